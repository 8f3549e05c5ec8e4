create function headwater.columns_of(relation regclass) returns jsonb
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(a.attnum, jsonb_build_object('name', a.attname, 'type', a.atttypid::bigint))
  from pg_attribute a where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
$$;
comment on function headwater.columns_of(regclass) is 'Name and type of each column of a table by its number, as headwater.member keeps them.';
