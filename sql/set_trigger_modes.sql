create function headwater.set_trigger_modes(relation regclass) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  trigger_name name;
begin
  for trigger_name in
    select t.tgname from pg_trigger t
    where t.tgrelid = relation and t.tgfoid = 'headwater.capture()'::regprocedure and not t.tgisinternal
      and t.tgenabled <> 'D' and t.tgenabled <> case when t.tgname = 'headwater_row' then 'R' else 'A' end
  loop
    execute format('alter table %s enable %s trigger %I', relation,
                   case when trigger_name = 'headwater_row' then 'replica' else 'always' end, trigger_name);
  end loop;
end
$$;
comment on function headwater.set_trigger_modes(regclass) is
  'Has capture''s triggers fire whatever session_replication_role is, the one for rows only as replica. ALTER TABLE … ENABLE TRIGGER ALL forgets that.';
