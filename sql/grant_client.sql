create function headwater.grant_client(relation regclass, excluded text[]) returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  shared text;
  sequence regclass;
begin
  if cardinality(excluded) = 0 then
    execute format('grant select, insert, update, delete on %s to headwater_client', relation);
  else
    select string_agg(format('%I', attname), ', ' order by attnum) into shared
    from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped and attname <> all (excluded);
    execute format('revoke select, insert, update on %s from headwater_client', relation);
    execute format('grant select (%1$s), insert (%1$s), update (%1$s), delete on %2$s to headwater_client', shared, relation);
  end if;
  execute format('grant usage on schema %I to headwater_client', (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation));
  for sequence in
    select d.objid from pg_depend d join pg_class c on c.oid = d.objid
    where d.classid = 'pg_class'::regclass and d.refobjid = relation and d.refobjsubid > 0 and d.deptype in ('a', 'i') and c.relkind = 'S'
  loop
    execute format('grant usage on sequence %s to headwater_client', sequence);
  end loop;
end
$$;
comment on function headwater.grant_client(regclass, text[]) is 'Lets headwater_client read and write a table, but for its excluded columns.';
