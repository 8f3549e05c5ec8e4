create function headwater.lock_snapshots(entity text, exclusively boolean) returns void
  language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select case when exclusively then pg_advisory_xact_lock(name) else pg_advisory_xact_lock_shared(name) end
  from hashtextextended('snapshots of ' || entity, 0) name
$$;
comment on function headwater.lock_snapshots(text, boolean) is
  'Who writes copies of states without the lock of each entity (backfill, compact, dead letters) takes this one shared, in a statement before that
in which it looks for headwater.erased; erase takes it exclusively, before it deletes them.';
