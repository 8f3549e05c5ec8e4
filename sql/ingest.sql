create function headwater.ingest(events jsonb, claims jsonb) returns jsonb
  language c volatile strict security definer set search_path = pg_catalog, pg_temp
  -- Who waits for a locked row keeps a connection busy: rather let the client send the batch again.
  set lock_timeout = '5s'
as 'MODULE_PATHNAME', 'ingest_wrapper';
comment on function headwater.ingest(jsonb, jsonb) is
  'Takes a batch of clients'' events: stores each and applies it to its row, or rejects it, alone. What POST /events/batch calls.
claims: {"sub", "tenant_id", "role", "trusted"}; with "trusted": true the events'' own tenant_id and user_id count.

Returns {"accepted": [id…], "rejected": [{"id", "index", "code", "reason", …}]}. The same event sent again gets the same answer.';
