create function headwater.as_field(name text) returns text
  language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$ select case when name like '/%' then '/' || replace(replace(name, '~', '~0'), '/', '~1') else name end $$;
comment on function headwater.as_field(text) is 'A column''s name as the field of an upcast''s step, where a / in front would begin a JSON Pointer.';
