create sequence headwater.event_position_seq cache 1;
comment on sequence headwater.event_position_seq is 'Positions of events. Gaps are normal: a transaction that rolls back leaves one.';

create table headwater.event (
  position bigint primary key default pg_catalog.nextval('headwater.event_position_seq'),
  id uuid not null,
  tenant_id text,
  entity_type text not null,
  entity_id text not null,
  event_type text not null,
  payload jsonb not null,
  schema_version int not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null,
  user_id text,
  client_id text,
  source text not null check (source operator(pg_catalog.=) any (array['client', 'sql', 'capture'])),
  applies boolean not null
);
alter sequence headwater.event_position_seq owned by headwater.event.position;

-- Reader: the fold (all events of an entity in their order), its head (the last of them), history.
-- The id comes first, for it decides most comparisons; they are of bytes, whatever the database's collation.
create index event_entity on headwater.event (entity_id text_pattern_ops, entity_type text_pattern_ops, occurred_at, id);

comment on table headwater.event is 'Every change as an immutable event, in the transaction that made it. Append-only.';
comment on column headwater.event.position is 'Order for paging. Drawn under the entity''s lock: the positions of one entity rise in commit order.';
comment on column headwater.event.id is 'The client''s id of the event (UUIDv7), or one made here.';
comment on column headwater.event.tenant_id is 'Who may see it; null where the table has no tenant column or the row no tenant.';
comment on column headwater.event.entity_id is 'The row''s key as text; the parts of a composite key are joined by /, with ~ as ~0 and / as ~1.';
comment on column headwater.event.entity_type is 'Which entity: order.';
comment on column headwater.event.event_type is 'The entity and what happened to it: order.item_added.';
comment on column headwater.event.schema_version is 'The form of the payload: headwater.upcast says how it becomes the present one.';
comment on column headwater.event.user_id is 'Who, if known.';
comment on column headwater.event.client_id is 'Which device, so that it recognises its own events.';
comment on column headwater.event.payload is 'What happened. int8 and numeric values are decimal strings.';
comment on column headwater.event.occurred_at is 'When it happened. Together with id the order of the fold.';
comment on column headwater.event.recorded_at is 'When the server took it.';
comment on column headwater.event.source is 'client: POST /events/batch. sql: headwater.emit. capture: the triggers.';
comment on column headwater.event.applies is 'false: history only, no fold reads it.';

grant select on headwater.event to headwater_reader;
grant select on sequence headwater.event_position_seq to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.event', '');
select pg_catalog.pg_extension_config_dump('headwater.event_position_seq', '');
