create function headwater.fold_to(entity text, entity_id text, tenant_id text, occurred_at timestamptz, id uuid)
  returns table (state jsonb, schema_version int)
  language c stable set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'fold_to_wrapper';
comment on function headwater.fold_to(text, text, text, timestamptz, uuid) is
  'The state of an entity right behind one of its events, null where it does not exist then; and the schema version of whose form it is.';
