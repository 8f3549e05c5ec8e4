create function headwater.disable_all() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
begin
  if not (select r.rolsuper or pg_has_role(headwater.caller(), e.extowner, 'usage')
          from pg_roles r, pg_extension e where r.rolname = headwater.caller() and e.extname = 'headwater') then
    raise exception 'must be owner of extension headwater' using errcode = 'insufficient_privilege';
  end if;
  update headwater.entity e set enabled = false where e.enabled;
  perform headwater.release(part)
  from (select m.relation from headwater.member m
        union select r.prrelid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = 'headwater_tables'
        union select t.tgrelid from pg_trigger t where t.tgfoid = 'headwater.capture()'::regprocedure) parts (part)
  where exists (select from pg_class c where c.oid = part);
  drop publication if exists headwater_events;
  drop publication if exists headwater_tables;
end
$$;
comment on function headwater.disable_all() is
  'Ends capture of every table and takes everything of Headwater off them; the history stays. Afterwards `drop extension headwater` needs no
cascade. Stop the streamers first, and drop their replication slots.
Example: select headwater.disable_all();';
