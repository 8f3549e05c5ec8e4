-- What ingest leaves behind beside the row, as plain tables with the indexes of headwater.event and headwater.receipt.
create sequence event_position_seq;
create table event (
  position bigint primary key default nextval('event_position_seq'),
  id uuid not null,
  tenant_id text,
  entity_type text not null,
  entity_id text not null,
  event_type text not null,
  payload jsonb not null,
  schema_version int not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null default clock_timestamp(),
  user_id text,
  client_id text,
  source text not null,
  applies boolean not null
);
create index event_entity on event (entity_id text_pattern_ops, entity_type text_pattern_ops, occurred_at, id);
create table receipt (
  tenant_id text,
  event_id uuid not null,
  digest bytea not null,
  recorded_at timestamptz not null default clock_timestamp(),
  unique nulls not distinct (event_id, tenant_id)
);
