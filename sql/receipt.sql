create table headwater.receipt (
  tenant_id text,
  event_id uuid not null,
  idempotency_key text,
  digest bytea not null,
  code text,
  reject jsonb,
  recorded_at timestamptz not null default pg_catalog.clock_timestamp(),
  entity_type text,
  entity_id text,
  unique nulls not distinct (event_id, tenant_id)
);
create unique index receipt_idempotency_key on headwater.receipt (idempotency_key, tenant_id) nulls not distinct
  where idempotency_key is not null;
create index receipt_of_reject on headwater.receipt (entity_id, entity_type) where entity_id is not null;
comment on table headwater.receipt is 'What became of each event that a client sent, so that a retry gets the first answer.';
comment on column headwater.receipt.digest is 'SHA-256 of the event as sent: the same id with another digest is a conflict.';
comment on column headwater.receipt.code is 'null: accepted. Else the code of the reject.';
comment on column headwater.receipt.reject is 'The reject as it was answered.';
comment on column headwater.receipt.entity_id is 'Whose event was rejected, for headwater.erase: a reason may quote it. Null for those accepted, which headwater.event has.';
select pg_catalog.pg_extension_config_dump('headwater.receipt', '');
