create function headwater.record_rows(relation regclass, leaf regclass, name text) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp set "TimeZone" = 'UTC' set "DateStyle" = 'ISO, DMY'
  set "IntervalStyle" = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex'
as $$
declare
  entity headwater.entity;
  recorded bigint;
begin
  select * into entity from headwater.entity e where e.relation = record_rows.relation;
  execute format(
    'insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                                  occurred_at, recorded_at, source, applies)
     select headwater.uuid_v7(), %s, %L, %s, %L, %s, $1, $2, $2, ''capture'', true from only %s t',
    case when entity.tenant_column is null then 'null' else format('t.%I::text', entity.tenant_column) end,
    entity.entity_type,
    headwater.entity_id_expression(leaf, entity.key_columns, 't'),
    entity.entity_type || '.' || name,
    -- `created` carries the row, `deleted` the key.
    headwater.state_expression(leaf, case when name = 'deleted' then array(
      select a.attname::text from pg_attribute a where a.attrelid = leaf and a.attnum > 0 and a.attname <> all (entity.key_columns)
    ) else entity.excluded end, 't'),
    leaf)
  using entity.schema_version, clock_timestamp();
  get diagnostics recorded = row_count;
  return recorded;
end
$$;
comment on function headwater.record_rows(regclass, regclass, text) is
  'Records every row of a partition as created, or as deleted: it came to its table, or left it, as a whole. Returns how many.';
