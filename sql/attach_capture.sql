create function headwater.attach_capture(relation regclass, entity text) returns boolean
  language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning set headwater.follow = 'off'
as $$
declare
  published boolean;
begin
  published := exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                       where p.pubname = 'headwater_tables' and r.prrelid = relation);
  if published and not exists (
    select from headwater.members(relation) member
    where not headwater.is_captured(member) or (select relreplident from pg_class where oid = member) <> 'f'
  ) then
    return false;
  end if;

  perform headwater.lock_briefly(relation);
  perform headwater.attach_member(member, entity) from headwater.members(relation) member;
  if not published then
    execute format('alter publication headwater_tables add table %s', relation);
  end if;
  return true;
end
$$;
comment on function headwater.attach_capture(regclass, text) is 'Triggers, replica identity and publication of a table; nothing, and no lock, where all stand already. Returns whether something was missing.';
