create function headwater.state_within(entity text, entity_id text, tenant_id text) returns jsonb
  language c stable set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'state_within_wrapper';
comment on function headwater.state_within(text, text, text) is 'The state of an entity within exactly this tenant, null included. For people: headwater.materialize.';
