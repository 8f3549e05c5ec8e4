-- Tables, and what goes.
-- file: member

drop index headwater.event_entity;
create index event_entity on headwater.event (entity_id text_pattern_ops, entity_type text_pattern_ops, occurred_at, id);

alter table headwater.entity add column upcasts jsonb not null default '{}', add column horizon timestamptz;
alter table headwater.meta add column dropped_position bigint not null default 0;
alter table headwater.receipt add column entity_type text, add column entity_id text;
create index receipt_of_reject on headwater.receipt (entity_id, entity_type) where entity_id is not null;
alter table headwater.snapshot
  add column schema_version int not null default 1, add column folded bytea, add column hash bytea,
  add column is_floor boolean not null default false,
  drop constraint snapshot_entity_type_entity_id_tenant_id_key,
  add unique nulls not distinct (entity_type, entity_id, tenant_id, id);
create index snapshot_folded on headwater.snapshot (entity_type) where id is not null;
-- file: erased
-- file: past_entity
insert into headwater.past_entity
select distinct e.entity_type from headwater.event e
where not exists (select from headwater.entity r where r.entity_type operator(pg_catalog.=) e.entity_type);
-- file: backfill_progress
drop function headwater.history(text, text, timestamptz, int);
drop function headwater.check();
drop function headwater.lock_briefly(regclass);
drop function headwater.state_expression(regclass, text[], text);
drop function headwater.entity_id_expression(regclass, text[], text);

-- functions

-- file: event_triggers

-- Tables that are enabled.
select headwater.attach_member(member, e.entity_type)
from headwater.entity e cross join lateral headwater.members(e.relation) member where e.enabled;
select headwater.remember(e.relation) from headwater.entity e;
