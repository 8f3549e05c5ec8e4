create function headwater.write_baselines(relation regclass, leaf regclass, first_page bigint, end_page bigint) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp set "TimeZone" = 'UTC' set "DateStyle" = 'ISO'
  set "IntervalStyle" = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex'
as $$
declare
  entity headwater.entity;
  written bigint;
begin
  select * into entity from headwater.entity e where e.relation = write_baselines.relation;
  -- A row that has an event has either its baseline already or none beneath its `created`.
  execute format(
    'insert into headwater.snapshot (entity_type, entity_id, tenant_id, state, schema_version)
     select %1$L, row_key.id, row_key.tenant, %3$s, %6$s
     from only %4$s t cross join lateral (select %5$s as id, (%2$s)::text as tenant) row_key
     where ($1 is null or t.ctid >= $1) and ($2 is null or t.ctid < $2)
       and not exists (select from headwater.event e where e.entity_type = %1$L and e.entity_id = row_key.id
                         and e.tenant_id is not distinct from row_key.tenant and e.applies)
     on conflict do nothing',
    entity.entity_type,
    case when entity.tenant_column is null then 'null' else format('t.%I::text', entity.tenant_column) end,
    headwater.state_expression(leaf, entity.excluded, 't'),
    leaf,
    headwater.entity_id_expression(leaf, entity.key_columns, 't'),
    entity.schema_version)
  using case when first_page is not null then format('(%s,0)', first_page)::tid end,
        case when end_page is not null then format('(%s,0)', end_page)::tid end;
  get diagnostics written = row_count;
  return written;
end
$$;
comment on function headwater.write_baselines(regclass, regclass, bigint, bigint) is
  'Records the rows in a range of a table''s pages as baselines; those of the whole table without a range. Returns how many were missing.';
