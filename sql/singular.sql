create function headwater.singular(name text) returns text
  language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
  select case
    when name ~ '[^aeiou]ies$' then regexp_replace(name, 'ies$', 'y')
    when name ~ '(ch|sh|ss|x|z)es$' then regexp_replace(name, 'es$', '')
    when name ~ '(ss|us|is)$' then name
    else regexp_replace(name, 's$', '')
  end
$$;
comment on function headwater.singular(text) is 'The entity that a table''s name suggests: orders → order, categories → category, pgbench_branches → pgbench_branch.';
