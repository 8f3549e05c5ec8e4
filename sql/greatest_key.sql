create function headwater.greatest_key(relation regclass, column_name text) returns bigint
  language c stable strict security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'greatest_key_wrapper';
comment on function headwater.greatest_key(regclass, text) is 'The greatest value of an integer column, looked up as the table''s owner.';
