create function headwater.reconcile(relation regclass) returns bigint
  language plpgsql security definer set search_path = pg_catalog, pg_temp set headwater.follow = 'off' set "TimeZone" = 'UTC' set "DateStyle" = 'ISO, DMY'
  set "IntervalStyle" = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex'
as $$
declare
  entity headwater.entity;
  leaf regclass;
  now timestamptz := clock_timestamp();
  total bigint := 0;
begin
  perform headwater.require_owner(relation);
  select * into entity from headwater.entity e where e.relation = reconcile.relation;
  create temp table headwater_rows (entity_id text, tenant_id text, state jsonb) on commit drop;
  for leaf in select headwater.leaves(relation) loop
    execute format('insert into pg_temp.headwater_rows select %s, %s, %s from only %s t',
      headwater.entity_id_expression(leaf, entity.key_columns, 't'),
      case when entity.tenant_column is null then 'null' else format('t.%I::text', entity.tenant_column) end,
      headwater.state_expression(leaf, entity.excluded, 't'), leaf);
  end loop;
  insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                               occurred_at, recorded_at, source, applies)
  select headwater.uuid_v7(), d.tenant_id, entity.entity_type, d.entity_id, entity.entity_type || '.' || d.name, d.payload,
         entity.schema_version, now, now, 'capture', true
  from (
    select k.tenant_id, k.entity_id,
           case when r.state is null then 'deleted' when f.state is null then 'created' else 'updated' end as name,
           coalesce(r.state, '{}') as payload
    from (
      select entity_id, tenant_id from pg_temp.headwater_rows
      union
      select e.entity_id, e.tenant_id from headwater.event e where e.entity_type = entity.entity_type and e.applies
      union
      select s.entity_id, s.tenant_id from headwater.snapshot s where s.entity_type = entity.entity_type
    ) k
    left join pg_temp.headwater_rows r on r.entity_id = k.entity_id and r.tenant_id is not distinct from k.tenant_id
    cross join lateral (select headwater.state_within(entity.entity_type, k.entity_id, k.tenant_id) as state) f
    -- A column that the fold does not know, for it was added since, is null there.
    where ((r.state is null) <> (f.state is null)
           or exists (select from jsonb_each(r.state) c where c.value is distinct from coalesce(f.state -> c.key, 'null')))
      -- Its first change will write the baseline of a row that has none yet.
      and (entity.backfilled or f.state is not null)
  ) d
  -- As capture does: a row that went from one tenant to another ends there before it begins here.
  order by d.name <> 'deleted';
  get diagnostics total = row_count;
  drop table pg_temp.headwater_rows;
  return total;
end
$$;
comment on function headwater.reconcile(regclass) is
  'Records, as captured events, what changed in a table while it was not captured: rows that differ from the fold of their events. Returns how many. Its owner calls it where a warning says so.';
