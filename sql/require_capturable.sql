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
  if class.relkind = 'r' and exists (select from pg_inherits where inhparent = relation) then
    raise exception 'tables inherit from table %', relation
      using errcode = 'wrong_object_type', hint = 'Rows of its children would escape capture when they are written there. Partitioned tables can be enabled; tables with children cannot.';
  end if;
  if class.relnamespace in ('pg_catalog'::regnamespace, 'headwater'::regnamespace) then
    raise exception 'table % belongs to the system', relation using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function headwater.require_capturable(regclass) is 'Raises an error unless changes of the table can be captured.';
