-- Last: nothing is anybody's unless it is granted here.
revoke all on all functions in schema headwater from public;
revoke all on all procedures in schema headwater from public;

grant execute on function
  headwater.syncable_tables(),
  headwater.history(text, text, timestamptz, int),
  headwater.materialize(text, text, timestamptz, text),
  headwater.check(), headwater.members(regclass), headwater.is_captured(regclass),
  headwater.caller(), headwater.singular(text)
  to headwater_reader;

grant execute on function
  headwater.ingest(jsonb, jsonb),
  headwater.open_states(refcursor, text, bigint, boolean, text, text),
  headwater.ensure_publications(),
  headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int)
  to headwater_writer;

grant execute on function
  headwater.enable(regclass, text, "any", text[], text, text, text[], text, boolean, boolean),
  headwater.disable(regclass),
  headwater.disable_all(),
  headwater.publish(regclass),
  headwater.reconcile(regclass),
  headwater.retry_rejected(uuid, text),
  headwater.discard_rejected(uuid, text),
  headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int)
  to headwater_admin;
