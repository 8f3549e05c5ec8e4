create function headwater.disable("table" regclass) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  part regclass;
  trigger_name name;
begin
  perform headwater.require_owner("table");
  if not exists (select from headwater.entity e where e.relation = "table" and e.enabled) then
    raise exception 'table % is not enabled', "table"
      using errcode = 'object_not_in_prerequisite_state', hint = 'select * from headwater.syncable_tables() lists those that are.';
  end if;
  for part, trigger_name in
    select t.tgrelid, t.tgname from pg_trigger t
    where t.tgfoid = 'headwater.capture()'::regprocedure and not t.tgisinternal
      and t.tgrelid in (select "table" union select relid from pg_partition_tree("table"))
  loop
    execute format('drop trigger %I on %s', trigger_name, part);
  end loop;
  if exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'headwater_tables' and r.prrelid = "table"
  ) then
    execute format('alter publication headwater_tables drop table %s', "table");
  end if;
  update headwater.entity e set enabled = false where e.relation = "table";
  perform headwater.invalidate("table");
end
$$;
comment on function headwater.disable(regclass) is 'Ends capture of a table. Its history stays, and headwater.enable goes on with it.';
