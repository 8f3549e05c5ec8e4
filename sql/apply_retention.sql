create procedure headwater.apply_retention(older_than interval default headwater.min_horizon())
  language plpgsql
as $$
declare
  -- A batch is one transaction: small enough to be quick, large enough for commits not to count.
  positions_per_batch constant bigint := 10000;
  recorded_before pg_catalog.timestamptz := headwater.require_horizon(older_than);
  next_position bigint;
  last_position bigint;
  dropped bigint := 0;
begin
  -- No `set` clause: a procedure with one may not commit. So every name is qualified.
  select pg_catalog.min(e.position) into next_position from headwater.event e;
  loop
    select pg_catalog.max(b.position) into last_position
    from (select e.position, e.recorded_at from headwater.event e
          where e.position operator(pg_catalog.>=) next_position order by e.position limit positions_per_batch) b
    having pg_catalog.bool_or(b.recorded_at operator(pg_catalog.<) recorded_before);
    exit when last_position is null;
    dropped := dropped operator(pg_catalog.+) headwater.drop_events(next_position, last_position, recorded_before);
    next_position := last_position operator(pg_catalog.+) 1::bigint;
    commit;
  end loop;
  raise notice '% events recorded before % dropped, and % receipts', dropped, recorded_before, headwater.drop_receipts(recorded_before);
  commit;
end
$$;
comment on procedure headwater.apply_retention(interval) is
  'Drops events that were recorded longer ago than older_than (90 days at least) and are folded into snapshots (headwater.compact), history-only
events of that age, and receipts; in batches that commit. Off unless you call it. A client whose cursor lies below what was dropped starts anew.
To be called outside a transaction block.
Example: call headwater.compact(''order''); call headwater.apply_retention();';
