-- Tables, and what goes.
-- file: member

drop index headwater.event_entity;
create index event_entity on headwater.event (entity_id text_pattern_ops, entity_type text_pattern_ops, occurred_at, id);

-- functions

-- file: event_triggers

-- Tables that are enabled.
select headwater.attach_member(member, e.entity_type)
from headwater.entity e cross join lateral headwater.members(e.relation) member where e.enabled;
select headwater.remember(e.relation) from headwater.entity e;
