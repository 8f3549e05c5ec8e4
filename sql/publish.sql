create function headwater.publish("table" regclass) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  part regclass;
begin
  perform headwater.require_owner("table");
  perform headwater.require_capturable("table");
  perform headwater.ensure_publications();
  if exists (select from headwater.members("table") member join pg_class c on c.oid = member where c.relreplident <> 'f') then
    perform headwater.lock_briefly("table");
    for part in select headwater.members("table") loop
      perform headwater.set_identity(part, null);
    end loop;
  end if;
  if not exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'headwater_tables' and r.prrelid = "table"
  ) then
    execute format('alter publication headwater_tables add table %s', "table");
  end if;
end
$$;
comment on function headwater.publish(regclass) is
  'Puts a table''s row changes on the stream, for shapes (/v1/shape), without recording events of them. It gets replica identity full and joins the
publication headwater_tables; to end that: alter publication headwater_tables drop table …. To be called by the table''s owner.
Example: select headwater.publish(''menu'');';
