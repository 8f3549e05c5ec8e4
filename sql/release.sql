create function headwater.release(relation regclass) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  known headwater.member;
  trigger_name name;
begin
  for trigger_name in
    select t.tgname from pg_trigger t
    where t.tgrelid = relation and t.tgfoid = 'headwater.capture()'::regprocedure and not t.tgisinternal
  loop
    execute format('drop trigger %I on %s', trigger_name, relation);
  end loop;
  if exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
             where p.pubname = 'headwater_tables' and r.prrelid = relation) then
    execute format('alter publication headwater_tables drop table only %s', relation);
  end if;
  select m.* into known from headwater.member m where m.relation = release.relation;
  -- Whoever has changed it since wants it as it is.
  if (select c.relreplident = 'f' from pg_class c where c.oid = relation) then
    if known.former_identity = 'd' then
      execute format('alter table %s replica identity default', relation);
    elsif known.former_identity = 'n' then
      execute format('alter table %s replica identity nothing', relation);
    elsif exists (select from pg_index i join pg_class c on c.oid = i.indexrelid
                  where i.indrelid = relation and c.relname = known.former_index) then
      execute format('alter table %s replica identity using index %I', relation, known.former_index);
    end if;
  end if;
  -- The registry keeps a disabled table and follows its columns.
  delete from headwater.member m where m.relation = release.relation and m.columns is null;
  update headwater.member m set captured = null where m.relation = release.relation;
  perform headwater.invalidate(relation);
end
$$;
comment on function headwater.release(regclass) is 'Takes triggers and publication off a table and gives it the replica identity that it had.';
