create function headwater.is_captured(relation regclass) returns boolean
  language sql stable strict set search_path = pg_catalog, pg_temp
as $$
  select not exists (
    select from (values ('headwater_begin', 'A'), ('headwater_insert', 'A'), ('headwater_update', 'A'), ('headwater_delete', 'A'),
                        ('headwater_truncate', 'A'), ('headwater_row', 'R')) wanted (name, enabled)
    where (wanted.name <> 'headwater_row' or (select c.relkind from pg_class c where c.oid = relation) <> 'p')
      and not exists (select from pg_trigger t
                      where t.tgrelid = relation and t.tgname = wanted.name and t.tgenabled::text = wanted.enabled
                        and t.tgfoid = 'headwater.capture()'::regprocedure))
$$;
comment on function headwater.is_captured(regclass) is 'Whether a table has all triggers of capture, enabled as they should be.';
