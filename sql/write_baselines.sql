create function headwater.write_baselines(relation regclass, leaf regclass, first_page bigint, end_page bigint) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  entity headwater.entity;
  written bigint;
begin
  perform headwater.require_read_committed();
  select * into entity from headwater.entity e where e.relation = write_baselines.relation;
  perform headwater.lock_snapshots(entity.entity_type, false);
  -- A row that has an event has either its baseline already or none beneath its `created`.
  insert into headwater.snapshot (entity_type, entity_id, tenant_id, state, schema_version)
  select entity.entity_type, r.entity_id, r.tenant_id, r.state, r.schema_version
  from headwater.rows(leaf, entity.entity_type, first_page, end_page) r
  where not exists (select from headwater.event e where e.entity_type = entity.entity_type and e.entity_id = r.entity_id
                      and e.tenant_id is not distinct from r.tenant_id and e.applies)
    and not exists (select from headwater.erased x where x.entity_type = entity.entity_type and x.entity_id = r.entity_id)
  on conflict do nothing;
  get diagnostics written = row_count;
  return written;
end
$$;
comment on function headwater.write_baselines(regclass, regclass, bigint, bigint) is
  'Records the rows in a range of a table''s pages as baselines; those of the whole table without a range. Returns how many were missing.';
