create function headwater.settable_columns(relation regclass, reserved text[]) returns text[]
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(attname::text order by attnum), '{}')
  from pg_attribute
  where attrelid = relation and attnum > 0 and not attisdropped and attgenerated = '' and attidentity <> 'a'
    and attname::text <> all (array_remove(reserved, null))
$$;
comment on function headwater.settable_columns(regclass, text[]) is 'The columns that clients'' events may set: all but the reserved (key, tenant, user, excluded) and generated ones.';
