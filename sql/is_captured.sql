create function headwater.is_captured(relation regclass) returns boolean
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  -- insert, update, delete, truncate
  select count(*) >= 4 from pg_trigger t
  where t.tgrelid = relation and t.tgfoid = 'headwater.capture()'::regprocedure and t.tgenabled in ('O', 'A')
$$;
comment on function headwater.is_captured(regclass) is 'Whether a table has all triggers of capture, and none is disabled.';
