create table headwater.rejected_event (
  id uuid not null,
  tenant_id text,
  event jsonb not null,
  claims jsonb not null,
  code text not null,
  reason text not null,
  rejected_at timestamptz not null default pg_catalog.clock_timestamp(),
  unique nulls not distinct (id, tenant_id)
);
comment on table headwater.rejected_event is 'Dead letters: events that a client sent and the server refused, as they were sent.';
comment on column headwater.rejected_event.code is 'Why, for programs: constraint_violation.';
comment on column headwater.rejected_event.reason is 'Why, for people.';
comment on column headwater.rejected_event.claims is 'What ingest was told of the sender: a retry is judged as the sender was.';
grant select on headwater.rejected_event to headwater_admin;
select pg_catalog.pg_extension_config_dump('headwater.rejected_event', '');
