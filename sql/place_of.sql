create function headwater.place_of(relation regclass) returns text
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat_ws('/', s.system_identifier, d.oid, relation::oid)
  from pg_control_system() s, pg_database d where d.datname = current_database()
$$;
comment on function headwater.place_of(regclass) is 'Names a table as no restored copy of it is named: by cluster, database and number.';
