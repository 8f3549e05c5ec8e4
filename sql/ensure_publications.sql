create function headwater.ensure_publications() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if (select count(*) = 2 from pg_publication where pubname in ('headwater_events', 'headwater_tables'))
     and exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                 where p.pubname = 'headwater_events' and r.prrelid = 'headwater.event'::regclass) then
    return;
  end if;
  -- Not members of the extension (Postgres has no such thing), so that a dump carries them; hence "ensure".
  perform pg_advisory_xact_lock(hashtextextended('headwater.ensure_publications', 0));
  if not exists (select from pg_publication where pubname = 'headwater_events') then
    create publication headwater_events with (publish = 'insert');
  end if;
  if not exists (select from pg_publication where pubname = 'headwater_tables') then
    if current_setting('server_version_num')::int < 180000 then
      create publication headwater_tables;
    else
      -- With replica identity full, Postgres 18 refuses to change rows whose generated columns are not published.
      execute 'create publication headwater_tables with (publish_generated_columns = stored)';
    end if;
  end if;
  if not exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'headwater_events' and r.prrelid = 'headwater.event'::regclass
  ) then
    alter publication headwater_events add table headwater.event;
  end if;
end
$$;
comment on function headwater.ensure_publications() is
  'Creates the publications headwater_events and headwater_tables where they are missing. Before the slot: on Postgres 15 a slot that is older than
its publication fails at every start. The streamer calls it; you do where headwater.check() says so.
Example: select headwater.ensure_publications();';
