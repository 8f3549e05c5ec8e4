create function headwater.leaves(relation regclass) returns setof regclass
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select member from headwater.members(relation) member join pg_class c on c.oid = member where c.relkind = 'r'
$$;
comment on function headwater.leaves(regclass) is 'The tables that hold the rows of a table.';
