create function headwater.chunks(relation regclass) returns table (leaf regclass, first_page bigint, end_page bigint)
  language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  -- 2 MiB: a small fraction of a second to read.
  select leaf, page, page + 256
  from headwater.leaves(relation) leaf
  cross join lateral generate_series(0, greatest(pg_relation_size(leaf) / current_setting('block_size')::bigint - 1, 0), 256) page
$$;
comment on function headwater.chunks(regclass) is 'The pages of a table and its partitions, in portions for headwater.rows.';
