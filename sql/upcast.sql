create function headwater.upcast(event_type text, from_version int, rule jsonb) returns int
  language c volatile strict security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'upcast_wrapper';
comment on function headwater.upcast(text, int, jsonb) is
  'Declares how payloads of one schema version become those of the next; old ones are lifted when they are read, and stay stored as they were.
event_type: ''order.item_added'' for a declared event; ''order'' for rows: baselines, snapshots and captured events.
from_version: 1 to the present version. The first upcast from the present version raises it; the others of that step follow.
rule: a list of steps, [{"step": "rename", "field": "table", "to": "table_number"}, …]: rename (field, to), default (field, value),
remove (field), wrap (field, key), list (field), map (field, values), text (field), number (field), each (field, steps),
custom (function: an immutable function (jsonb) returning jsonb). A field is a name, or a JSON Pointer as /item/id.

Returns the entity''s present schema version. In the transaction that changes the table, before anything is written to it. A renamed or dropped
column of the table declares its own.
Example: select headwater.upcast(''order.item_added'', 1, ''[{"step": "rename", "field": "/item/qty", "to": "/item/count"}]'');';
