create table headwater.member (
  relation regclass primary key,
  entity_type text,
  columns jsonb,
  seen_in text,
  captured boolean,
  former_identity "char" not null,
  former_index name
);
create index member_entity on headwater.member (entity_type);
comment on table headwater.member is 'The tables that enable or publish changed, partitions included, as they were when last seen: so that a rename is told from a column that went and another that came, and disable can put back what enable found. Written by headwater.remember.';
comment on column headwater.member.entity_type is 'null: published only.';
comment on column headwater.member.columns is 'Name and type of each column by its number, for the table that was enabled; null for its partitions.';
comment on column headwater.member.seen_in is 'Database and table in which those numbers count: a restored dump numbers columns anew.';
comment on column headwater.member.captured is 'Whether all its triggers stood; null before they first did.';
comment on column headwater.member.former_identity is 'pg_class.relreplident as it was before; former_index is the index, where it was one.';
select pg_catalog.pg_extension_config_dump('headwater.member', '');
