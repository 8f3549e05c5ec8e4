-- Tables, and what goes.
-- file: member

-- functions

-- file: event_triggers

-- Tables that are enabled.
select headwater.set_identity(member, e.entity_type)
from headwater.entity e cross join lateral headwater.members(e.relation) member;
select headwater.remember(e.relation) from headwater.entity e;
