create function headwater.require_capturable(relation regclass) returns void
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  class pg_class;
begin
  select * into class from pg_class where oid = relation;
  if class.relkind not in ('r', 'p') then
    raise exception '% is not a table', relation
      using errcode = 'wrong_object_type', hint = 'Views, foreign tables and sequences have no row changes to capture; enable the table beneath.';
  end if;
  if class.relpersistence <> 'p' then
    raise exception 'table % is %', relation, case class.relpersistence when 'u' then 'unlogged' else 'temporary' end
      using errcode = 'wrong_object_type', hint = 'What is not in the write-ahead log cannot be synced.';
  end if;
  if class.relispartition then
    raise exception 'table % is a partition', relation
      using errcode = 'wrong_object_type',
            hint = format('Enable the table that it belongs to: %s.', (select partition_root::text from pg_partition_root(relation) partition_root));
  end if;
  -- A key is unique within a table, not across those that inherit from it: one entity could be two rows. And a
  -- statement fires the triggers of the table that it names only, whichever of them holds the rows.
  if class.relkind = 'r' and exists (select from pg_inherits where inhparent = relation) then
    raise exception 'tables inherit from table %', relation
      using errcode = 'wrong_object_type', hint = 'Rows written to its children would escape, and no key is unique across them. Make it a partitioned table, which can be enabled.';
  end if;
  if exists (select from pg_inherits where inhrelid = relation) then
    raise exception 'table % inherits from another', relation
      using errcode = 'wrong_object_type', hint = format('What is written through the parent would escape. Part them: alter table %s no inherit %s.', relation, (select inhparent::regclass from pg_inherits where inhrelid = relation limit 1));
  end if;
  select c.* into class from pg_partition_tree(relation) t join pg_class c on c.oid = t.relid
  where c.relkind not in ('r', 'p') or c.relpersistence <> 'p' limit 1;
  if found then
    raise exception 'partition % is %', class.oid::regclass, case when class.relkind = 'f' then 'a foreign table' else 'unlogged' end
      using errcode = 'wrong_object_type', hint = 'Rows in it could change or be lost without an event. Make it an ordinary table, or detach it.';
  end if;
  select * into class from pg_class where oid = relation;
  if exists (select from pg_attribute a where a.attrelid = relation and a.attgenerated = 'v' and not a.attisdropped) then
    raise exception 'table % has a virtual generated column', relation
      using errcode = 'wrong_object_type',
            hint = 'Postgres refuses to change rows of published tables with such columns when their replica identity is full. Make it stored.';
  end if;
  if class.relnamespace in ('pg_catalog'::regnamespace, 'headwater'::regnamespace) then
    raise exception 'table % belongs to the system', relation using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function headwater.require_capturable(regclass) is 'Raises an error unless changes of the table can be captured.';
