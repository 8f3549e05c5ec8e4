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
event_type: an enabled entity and what happened to it, as order.receipt_printed; without apply it need not be declared.
apply: false, history only, for you change the row yourself and capture sees that; true, the event changes the row by its merge rule, under the
caller''s own rights.
user_id, tenant_id, client_id: who, whose and from which device, where you know. id: a UUID of your own, else one is made.
Example: select headwater.emit(''order.receipt_printed'', ''17'', ''{"copies": 2}'');';
