create function headwater.enable(
    "table" regclass,
    entity text default null,
    events "any" default null::pg_catalog.jsonb,
    key text[] default null,
    tenant_column text default null,
    user_column text default null,
    exclude text[] default null,
    notification text default null,
    backfill boolean default true,
    grant_client boolean default null)
  returns text
  language c security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'enable_wrapper';
comment on function headwater.enable(regclass, text, "any", text[], text, text, text[], text, boolean, boolean) is
  'Makes a table syncable: every change of it becomes an event, and clients may send the events that you declare. Returns the entity.
entity: its name; the table''s, in the singular, if you name none.
events: array[''created'', ''moved'', ''deleted''], or jsonb with a merge rule for each; created, updated and deleted if you name none.
Rules: create, set (fields), unset (fields), append (field, value), remove (field, where), increment (field, by), delete, ignore, custom (function).
key: the columns of a unique index; the primary key if you name none.
tenant_column, user_column: who may see a row; who made it.
exclude: columns that never leave the table.
notification: a backend of its own for this entity (memory, redis, noop).
backfill: record the rows that are there as baselines, at once where they are few (else: call headwater.backfill).
grant_client: grant the table to headwater_client, the role under which clients'' events are applied; true if you do not say, and later as it is.

A second call alters what it names and keeps the rest; an empty text or array clears. To be called by the table''s owner.
Example: select headwater.enable(''orders'', events => ''{"created": {"rule": "create"}, "item_added": {"rule": "append", "field": "items", "value": "item"}}'', tenant_column => ''tenant_id'');';
