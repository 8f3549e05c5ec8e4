create table headwater.entity (
  entity_type text primary key check (entity_type operator(pg_catalog.~) '^[a-z][a-z0-9_]{0,62}$'),
  relation regclass not null unique,
  key_columns text[] not null,
  tenant_column text,
  user_column text,
  excluded text[] not null default '{}',
  rules jsonb not null,
  schema_version int not null default 1,
  notification text,
  enabled boolean not null default true,
  backfilled boolean not null default false,
  enabled_at timestamptz not null default pg_catalog.clock_timestamp(),
  upcasts jsonb not null default '{}',
  horizon timestamptz
);
comment on table headwater.entity is 'The registry: which table is which entity, and how its events change it. Written by headwater.enable and headwater.disable.';
comment on column headwater.entity.entity_type is 'The entity''s name: order.';
comment on column headwater.entity.relation is 'Its table.';
comment on column headwater.entity.key_columns is 'The columns that make up an entity''s id.';
comment on column headwater.entity.tenant_column is 'Whose a row is; null: the table is shared by all tenants.';
comment on column headwater.entity.user_column is 'Filled with the user who creates an entity.';
comment on column headwater.entity.excluded is 'Columns that never leave the table.';
comment on column headwater.entity.enabled is 'false: headwater.disable ended capture, and the history stayed.';
comment on column headwater.entity.rules is 'Event names and their merge rules, in the long form.';
comment on column headwater.entity.schema_version is 'The present form of its rows and payloads. headwater.upcast raises it.';
comment on column headwater.entity.upcasts is 'How states and payloads of older schema versions become present ones: {"state": {"1": [step…]}, "events": {"item_added": {"1": [step…]}}}.';
comment on column headwater.entity.horizon is 'What happened before has been folded into snapshots by headwater.compact: clients'' events from before come too late. Null: never compacted.';
comment on column headwater.entity.notification is 'Notification backend for this entity; null means the streamer''s own.';
comment on column headwater.entity.backfilled is 'Every row that was there before has its baseline. Until then a row''s first captured change writes it.';
grant select on headwater.entity to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.entity', '');
