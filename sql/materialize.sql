create function headwater.materialize(entity text, entity_id text, as_of timestamptz default null, tenant_id text default null) returns jsonb
  language c stable set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'materialize_wrapper';
comment on function headwater.materialize(text, text, timestamptz, text) is
  'The state of an entity: its applying events in the order (occurred_at, id) over its baseline; null where it does not exist.
as_of: only what had happened by then, as it is known today: an event that arrived late counts from when it happened (occurred_at), not
from when it was recorded. Before the first event it is the baseline. An error where retention has dropped what was then.
tenant_id: whose, where one id stands in several tenants; else the latest event''s.
Example: select headwater.materialize(''order'', ''17'', as_of => now() - interval ''1 day'');';
