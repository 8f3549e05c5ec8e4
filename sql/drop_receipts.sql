create function headwater.drop_receipts(recorded_before timestamptz) returns bigint
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  -- A client's clock may stand five minutes ahead of the receipt's.
  margin constant interval := '1 day';
  horizon timestamptz;
  dropped bigint;
begin
  recorded_before := headwater.require_horizon(now() - recorded_before);
  -- Without a receipt, a retry is told from a new event only by its age.
  select min(coalesce(e.horizon, '-infinity')) into horizon from headwater.entity e;
  delete from headwater.receipt r where r.recorded_at < least(recorded_before, horizon) - margin;
  get diagnostics dropped = row_count;
  return dropped;
end
$$;
comment on function headwater.drop_receipts(timestamptz) is
  'Deletes receipts of events that would be refused as too_late if they came again. Returns how many. Use headwater.apply_retention.';
