create table headwater.snapshot (
  entity_type text not null,
  entity_id text not null,
  tenant_id text,
  state jsonb,
  occurred_at timestamptz,
  id uuid,
  position bigint not null default 0,
  unique nulls not distinct (entity_type, entity_id, tenant_id)
);
comment on table headwater.snapshot is 'States beneath the events. A baseline is a row as it was before its first event.';
comment on column headwater.snapshot.state is 'The state; null where the entity did not exist.';
comment on column headwater.snapshot.occurred_at is 'The last event folded into the state; null for a baseline, which has none.';
grant select on headwater.snapshot to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.snapshot', '');
