create function headwater.grant_client(relation regclass, excluded text[]) returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  client constant oid := 'headwater_client'::regrole;
  shared text;
  schema pg_namespace;
  sequence regclass;
  stands boolean;
begin
  with granted (column_name, privilege) as (
    select '', a.privilege_type from pg_class c, aclexplode(c.relacl) a where c.oid = relation and a.grantee = client
    union
    select c.attname, a.privilege_type from pg_attribute c, aclexplode(c.attacl) a
    where c.attrelid = relation and not c.attisdropped and a.grantee = client
  ), wanted (column_name, privilege) as (
    select '', privilege from unnest(array['SELECT', 'INSERT', 'UPDATE']) privilege where cardinality(excluded) = 0
    union
    select '', 'DELETE'
    union
    select c.attname, privilege from pg_attribute c, unnest(array['SELECT', 'INSERT', 'UPDATE']) privilege
    where c.attrelid = relation and c.attnum > 0 and not c.attisdropped and c.attname <> all (excluded) and cardinality(excluded) > 0
  )
  select not exists (table wanted except table granted)
         and (cardinality(excluded) = 0
              or not exists (select g.* from granted g where g.privilege in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') except table wanted))
  into stands;

  if not stands then
    -- GRANT locks nothing, and what rewrites the table's entry in the catalog at the same moment (TRUNCATE, VACUUM FULL, ALTER)
    -- would fail with an internal error, or make this fail.
    perform headwater.lock_briefly(relation, 'share row exclusive');
    if cardinality(excluded) = 0 then
      execute format('grant select, insert, update, delete on %s to headwater_client', relation);
    else
      select string_agg(format('%I', attname), ', ' order by attnum) into shared
      from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped and attname <> all (excluded);
      execute format('revoke select, insert, update on %s from headwater_client', relation);
      execute format('grant select (%1$s), insert (%1$s), update (%1$s), delete on %2$s to headwater_client', shared, relation);
    end if;
  end if;

  for sequence in
    select d.objid from pg_depend d join pg_class c on c.oid = d.objid
    where d.classid = 'pg_class'::regclass and d.refobjid = relation and d.refobjsubid > 0 and d.deptype in ('a', 'i') and c.relkind = 'S'
  loop
    if not has_sequence_privilege(client, sequence, 'usage') then
      execute format('grant usage on sequence %s to headwater_client', sequence);
    end if;
  end loop;

  select n.* into schema from pg_namespace n join pg_class c on c.relnamespace = n.oid where c.oid = relation;
  if not has_schema_privilege(client, schema.oid, 'usage') then
    -- Whoever owns a table owns not its schema: what the caller could not grant is not granted for them.
    if has_schema_privilege(headwater.caller(), schema.oid, 'usage with grant option') then
      -- One at a time, and the second one finds it granted.
      perform pg_advisory_xact_lock(hashtextextended('headwater.grant_client', schema.oid::bigint));
      perform from pg_namespace;
      if not has_schema_privilege(client, schema.oid, 'usage') then
        execute format('grant usage on schema %I to headwater_client', schema.nspname);
      end if;
    else
      raise warning 'clients cannot write table % yet: the role headwater_client may not use its schema', relation
        using hint = format('Whoever owns the schema says: grant usage on schema %I to headwater_client;', schema.nspname);
    end if;
  end if;
end
$$;
comment on function headwater.grant_client(regclass, text[]) is 'Lets headwater_client read and write a table, but for its excluded columns.';
