create table headwater.past_entity (
  entity_type text primary key
);
comment on table headwater.past_entity is 'Entities whose tables were dropped: the log still has their history, and headwater.enable reconciles whoever takes the name.';
grant select on headwater.past_entity to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.past_entity', '');
