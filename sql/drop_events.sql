create function headwater.drop_events(first_position bigint, last_position bigint, recorded_before timestamptz) returns bigint
  language c volatile strict security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'drop_events_wrapper';
comment on function headwater.drop_events(bigint, bigint, timestamptz) is
  'Deletes those events among these positions that were recorded before an instant and are folded into snapshots, or are history only; with
them the snapshots beneath the ones that are needed now. Returns how many. Use headwater.apply_retention.';
