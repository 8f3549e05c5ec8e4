create function headwater.erase(entity text, entity_id text) returns bigint
  language c volatile strict security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'erase_wrapper';
comment on function headwater.erase(text, text) is
  'Forgets an entity for good, as a person may ask: deletes its row, empties its events, deletes its snapshots, receipts and dead letters, and
records `<entity>.erased`, upon which clients empty their stores. Events that clients still send for it are refused as erased, for ever:
do not use its key again. That something happened, and when (event_type, occurred_at), stays; who did it does not. Returns how many events it emptied.
A key that was changed is another entity''s: where the row may have had one before, a notice names it and how to erase that too.
Old WAL, backups and dead rows keep their copies until they are recycled, replaced and vacuumed.
Example: select headwater.erase(''order'', ''17'');';
