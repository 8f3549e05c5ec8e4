create function headwater.record_rows(relation regclass, leaf regclass, name text) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  entity headwater.entity;
  recorded bigint;
  now timestamptz;
begin
  perform headwater.require_read_committed();
  select * into entity from headwater.entity e where e.relation = record_rows.relation for key share;
  now := clock_timestamp();
  insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                               occurred_at, recorded_at, source, applies)
  select headwater.uuid_v7(), r.tenant_id, entity.entity_type, r.entity_id, entity.entity_type || '.' || name,
         -- `created` carries the row, `deleted` the key.
         case when name = 'deleted' then (select jsonb_object_agg(k, r.state -> k) from unnest(entity.key_columns) k) else r.state end,
         r.schema_version, now, now, 'capture', true
  from headwater.rows(leaf, entity.entity_type, null, null) r;
  get diagnostics recorded = row_count;
  return recorded;
end
$$;
comment on function headwater.record_rows(regclass, regclass, text) is
  'Records every row of a partition as created, or as deleted: it came to its table, or left it, as a whole. Returns how many.';
