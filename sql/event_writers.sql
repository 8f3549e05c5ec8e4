create function headwater.event_writers() returns text[]
  language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct l.virtualtransaction), '{}') from pg_locks l
  where l.locktype = 'relation' and l.relation = 'headwater.event'::regclass and l.mode = 'RowExclusiveLock' and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and l.pid is distinct from pg_backend_pid()
$$;
comment on function headwater.event_writers() is 'The transactions that write events at this moment, prepared ones included.';
