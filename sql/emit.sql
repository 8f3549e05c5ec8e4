create function headwater.emit(
    event_type text,
    entity_id text,
    payload jsonb default '{}',
    user_id text default null,
    apply boolean default false,
    tenant_id text default null,
    client_id text default null,
    id uuid default null,
    schema_version int default null)
  returns uuid
  language c volatile security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'emit_wrapper';
comment on function headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int) is
  'Records a domain event in the caller''s transaction: an outbox without a second write. Returns its id.
apply => false (default): history only, for you change the row yourself and capture sees that.
apply => true: the event changes the row by its merge rule, under the caller''s own rights.
Example: select headwater.emit(''order.receipt_printed'', ''17'', ''{"copies": 2}'');';
