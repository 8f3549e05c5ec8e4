-- Last: nothing is anybody's unless it is granted here.
revoke all on all functions in schema headwater from public;
revoke all on all procedures in schema headwater from public;

grant execute on function
  headwater.syncable_tables(), headwater.openapi(),
  headwater.history(text, text, timestamptz, int, uuid, text),
  headwater.lift(text, text, text, int, jsonb),
  headwater.materialize(text, text, timestamptz, text),
  headwater.check(boolean), headwater.check_snapshots(), headwater.check_rows(), headwater.check_definitions(), headwater.check_sequences(),
  headwater.members(regclass), headwater.is_captured(regclass),
  headwater.digest_of_events(bytea, text, text, text, timestamptz, uuid, timestamptz, uuid), headwater.digest_of_snapshot(bytea, jsonb, int),
  headwater.caller(), headwater.singular(text)
  to headwater_reader;

grant execute on function
  headwater.ingest(jsonb, jsonb),
  headwater.open_states(refcursor, text, bigint, boolean, text, text),
  headwater.ensure_publications(), headwater.gather_changes(),
  headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int)
  to headwater_writer;

grant execute on function
  headwater.enable(regclass, text, "any", text[], text, text, text[], text, boolean, boolean),
  headwater.disable(regclass),
  headwater.disable_all(),
  headwater.begin_backfill(regclass), headwater.backfill_batch(regclass), headwater.end_backfill(regclass),
  headwater.upcast(text, int, jsonb),
  headwater.erase(text, text),
  headwater.min_horizon(), headwater.require_horizon(interval),
  headwater.raise_horizon(text, interval), headwater.event_writers(), headwater.compact_range(text, timestamptz, bigint, bigint),
  headwater.drop_events(bigint, bigint, timestamptz), headwater.drop_receipts(timestamptz),
  headwater.publish(regclass),
  headwater.reconcile(regclass),
  headwater.retry_rejected(uuid, text),
  headwater.discard_rejected(uuid, text),
  headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int)
  to headwater_admin;

grant execute on procedure headwater.backfill(regclass), headwater.compact(text, interval), headwater.apply_retention(interval) to headwater_admin;
