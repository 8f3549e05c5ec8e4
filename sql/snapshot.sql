create table headwater.snapshot (
  entity_type text not null,
  entity_id text not null,
  tenant_id text,
  state jsonb,
  occurred_at timestamptz,
  id uuid,
  position bigint not null default 0,
  schema_version int not null default 1,
  folded bytea,
  hash bytea,
  is_floor boolean not null default false,
  unique nulls not distinct (entity_type, entity_id, tenant_id, id)
);
-- Whether anything of a type is folded, beside very many baselines.
create index snapshot_folded on headwater.snapshot (entity_type) where id is not null;
comment on table headwater.snapshot is 'States beneath the events. A baseline is a row as it was before its first event; the others are folds, made by headwater.compact.';
comment on column headwater.snapshot.state is 'The state; null where the entity did not exist.';
comment on column headwater.snapshot.schema_version is 'The form of the state: headwater.upcast says how it becomes the present one.';
comment on column headwater.snapshot.occurred_at is 'With id the last event folded into the state; null for a baseline, which has none.';
comment on column headwater.snapshot.position is 'The greatest position among the folded events.';
comment on column headwater.snapshot.folded is 'SHA-256 over what was folded: the same of the snapshot beneath, then the digest of each event.';
comment on column headwater.snapshot.hash is 'SHA-256 over folded and the state: headwater.check(true) finds out by it whether somebody changed either.';
comment on column headwater.snapshot.is_floor is 'Retention dropped what lies beneath: history begins here.';
grant select on headwater.snapshot to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.snapshot', '');
