create function headwater.lock_briefly(relation regclass, only_writers boolean default false) returns void
  language plpgsql set search_path = pg_catalog, pg_temp
  -- Others wait behind this lock while it waits for those who have the table: better to let go and try again.
  set lock_timeout = '1s'
as $$
declare
  attempts constant int := 10;
begin
  for attempt in 1..attempts loop
    begin
      execute format('lock table %s in %s mode', relation, case when only_writers then 'share row exclusive' else 'access exclusive' end);
      return;
    exception when lock_not_available then
      if attempt = attempts then
        raise exception 'table % is in use: no lock on it in % tries of %', relation, attempts, current_setting('lock_timeout')
          using errcode = 'lock_not_available', hint = 'Try again when long transactions on it have ended; pg_stat_activity shows them.';
      end if;
      perform pg_sleep(0.1 * attempt);
    end;
  end loop;
end
$$;
comment on function headwater.lock_briefly(regclass, boolean) is
  'Locks a table for a change of its definition, or against writers only, without making its users wait long.';
