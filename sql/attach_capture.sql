create function headwater.attach_capture(relation regclass, entity text) returns boolean
  language plpgsql set search_path = pg_catalog, pg_temp
  set client_min_messages = warning
as $$
declare
  part regclass;
  published boolean;
begin
  published := exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                       where p.pubname = 'headwater_tables' and r.prrelid = relation);
  if published and not exists (
    select from headwater.members(relation) member
    where (select count(*) from pg_trigger t
           where t.tgrelid = member and t.tgfoid = 'headwater.capture()'::regprocedure and t.tgenabled in ('O', 'A')) < 4
       or (select relreplident from pg_class where oid = member) <> 'f'
  ) then
    return false;
  end if;

  perform headwater.lock_briefly(relation);
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
  return true;
end
$$;
comment on function headwater.attach_capture(regclass, text) is 'Triggers, replica identity and publication of a table; nothing, and no lock, where all stand already. Returns whether something was missing.';
