create function headwater.lock_briefly(relation regclass, mode text default 'access exclusive') returns void
  language plpgsql set search_path = pg_catalog, pg_temp
  -- Others wait behind this lock while it waits for those who have the table: better to let go and try again. More than
  -- deadlock_timeout (1 s), after which an autovacuum gives way to who waits for it.
  set lock_timeout = '1500ms'
as $$
declare
  attempts constant int := 10;
begin
  if mode <> all (array['share update exclusive', 'share row exclusive', 'access exclusive']) then
    raise exception 'no lock of mode "%" is taken here', mode using errcode = 'invalid_parameter_value';
  end if;
  for attempt in 1..attempts loop
    begin
      execute format('lock table %s in %s mode', relation, mode);
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
comment on function headwater.lock_briefly(regclass, text) is
  'Locks a table against other changes of its definition (share update exclusive), against writers too (share row exclusive), or against all, without making its users wait long.';
