create function headwater.members(relation regclass) returns setof regclass
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select relation
  union
  select t.relid from pg_partition_tree(relation) t join pg_class c on c.oid = t.relid where c.relkind in ('r', 'p')
$$;
comment on function headwater.members(regclass) is 'A table and, if it is partitioned, its partitions: a statement fires the triggers of the one that it names.';
