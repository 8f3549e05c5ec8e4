create function headwater.key_of(relation regclass, wanted text[]) returns text[]
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  found_key text[];
begin
  -- Without a wish, the primary key. Else any unique index over just these columns, all of them not null.
  select keys.columns into found_key
  from pg_index i
  cross join lateral (
    select array_agg(a.attname::text order by k.place) as columns, bool_and(a.attnotnull) as not_null
    from unnest(i.indkey::int2[]) with ordinality k (attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where k.place <= i.indnkeyatts
  ) keys
  where i.indrelid = relation and i.indisunique and i.indisvalid and i.indimmediate
    and i.indpred is null and i.indexprs is null and keys.not_null
    and case when wanted is null then i.indisprimary
             else keys.columns @> wanted and keys.columns <@ wanted and cardinality(keys.columns) = cardinality(wanted) end
  limit 1;

  if found_key is null and wanted is null then
    raise exception 'table % has no primary key', relation
      using errcode = 'invalid_table_definition',
            detail = 'An entity is known by its key: without one, its events could not be told from those of other rows.',
            hint = format('Add one (alter table %s add primary key (…), or add column id bigint generated always as identity primary key), or name the not-null columns of a unique index: select headwater.enable(%L, key => array[''…'']).', relation, relation::text);
  elsif found_key is null then
    raise exception 'the columns % are no key of table %', array_to_string(wanted, ', '), relation
      using errcode = 'invalid_table_definition',
            hint = 'A key is made of the not-null columns of a unique index (not partial, not deferrable, no expressions).';
  end if;
  return coalesce(wanted, found_key);
end
$$;
comment on function headwater.key_of(regclass, text[]) is 'The key columns of a table: its primary key, or those wanted, if a unique index makes them one.';
