create procedure headwater.compact(entity text, older_than interval default headwater.min_horizon())
  language plpgsql
as $$
declare
  -- A batch is one transaction: small enough to be quick, large enough for commits not to count.
  positions_per_batch constant bigint := 10000;
  -- How long writers from before the horizon are waited for in silence.
  patience pg_catalog.interval := '10 seconds';
  horizon pg_catalog.timestamptz;
  writers pg_catalog.text[];
  waiting_since pg_catalog.timestamptz;
  next_position bigint;
  last_position bigint;
  made bigint := 0;
begin
  -- No `set` clause: a procedure with one may not commit. So every name is qualified.
  horizon := headwater.raise_horizon(entity, older_than);
  commit;
  -- A transaction that may not know the horizon yet may still bring an event from before it. Those that begin to write from
  -- now on know it.
  writers := headwater.event_writers();
  waiting_since := pg_catalog.clock_timestamp();
  while writers operator(pg_catalog.&&) headwater.event_writers() loop
    if pg_catalog.clock_timestamp() operator(pg_catalog.-) waiting_since operator(pg_catalog.>) patience then
      raise notice 'waiting for transactions that wrote events before the horizon was raised' using hint = 'pg_stat_activity and pg_prepared_xacts show them.';
      patience := patience operator(pg_catalog.+) patience;
    end if;
    commit;
    perform pg_catalog.pg_sleep(0.05);
  end loop;

  select pg_catalog.min(e.position), pg_catalog.max(e.position) into next_position, last_position from headwater.event e;
  while next_position operator(pg_catalog.<=) last_position loop
    made := made operator(pg_catalog.+) headwater.compact_range(
      entity, horizon, next_position, next_position operator(pg_catalog.+) positions_per_batch operator(pg_catalog.-) 1::bigint);
    next_position := next_position operator(pg_catalog.+) positions_per_batch;
    commit;
  end loop;
  raise notice '% snapshots of entity %, of what happened before %', made, entity, horizon;
end
$$;
comment on procedure headwater.compact(text, interval) is
  'Folds what happened longer ago than older_than (90 days at least) into snapshots, in batches that commit, while others write; folds
go on from there. From then on clients'' events from before that horizon are refused as too_late. The events stay, until
headwater.apply_retention drops them. To be called outside a transaction block, now and then; a call that was broken off can be made again.
Example: call headwater.compact(''order'', interval ''180 days'');';
