create function headwater.attach_capture(relation regclass, entity text) returns void
  language plpgsql set search_path = pg_catalog, pg_temp
  -- Writers wait behind this lock while it waits behind readers: better to let go and try again.
  set lock_timeout = '1s' set client_min_messages = warning
as $$
declare
  attempts constant int := 10;
  part regclass;
  published boolean;
begin
  published := exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                       where p.pubname = 'headwater_tables' and r.prrelid = relation);
  if published and not exists (
    select from headwater.members(relation) member
    where not exists (select from pg_trigger t where t.tgrelid = member and t.tgfoid = 'headwater.capture()'::regprocedure)
       or (select relreplident from pg_class where oid = member) <> 'f'
  ) then
    return;
  end if;

  for attempt in 1..attempts loop
    begin
      execute format('lock table %s in access exclusive mode', relation);
      exit;
    exception when lock_not_available then
      if attempt = attempts then
        raise exception 'table % is in use: no lock on it in % tries of %', relation, attempts, current_setting('lock_timeout')
          using errcode = 'lock_not_available', hint = 'Try again when long transactions on it have ended; pg_stat_activity shows them.';
      end if;
      perform pg_sleep(0.1 * attempt);
    end;
  end loop;

  for part in select headwater.members(relation) loop
    execute format('alter table %s replica identity full', part);
    execute format('drop trigger if exists headwater_insert on %s', part);
    execute format('drop trigger if exists headwater_update on %s', part);
    execute format('drop trigger if exists headwater_delete on %s', part);
    execute format('drop trigger if exists headwater_truncate on %s', part);
    execute format('create trigger headwater_insert after insert on %s referencing new table as new_rows for each statement execute function headwater.capture(%L)', part, entity);
    execute format('create trigger headwater_update after update on %s referencing old table as old_rows new table as new_rows for each statement execute function headwater.capture(%L)', part, entity);
    execute format('create trigger headwater_delete after delete on %s referencing old table as old_rows for each statement execute function headwater.capture(%L)', part, entity);
    execute format('create trigger headwater_truncate before truncate on %s for each statement execute function headwater.capture(%L)', part, entity);
  end loop;
  if not published then
    execute format('alter publication headwater_tables add table %s', relation);
  end if;
end
$$;
comment on function headwater.attach_capture(regclass, text) is 'Triggers, replica identity and publication of a table; nothing, and no lock, where all stand already.';
