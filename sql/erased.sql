create table headwater.erased (
  entity_type text not null,
  entity_id text not null,
  erased_at timestamptz not null default pg_catalog.clock_timestamp(),
  erased_by name not null,
  primary key (entity_type, entity_id)
);
comment on table headwater.erased is 'Entities that headwater.erase has emptied, for good: no client''s event is taken for them any more.';
comment on column headwater.erased.erased_by is 'The role that called headwater.erase.';
grant select on headwater.erased to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.erased', '');
