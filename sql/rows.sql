create function headwater.rows(leaf regclass, entity text, first_page bigint, end_page bigint)
  returns table (entity_id text, tenant_id text, state jsonb, schema_version int)
  language c stable security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'rows_wrapper';
comment on function headwater.rows(regclass, text, bigint, bigint) is
  'The rows in a range of pages of a table that holds some, as states; of the whole table without a range. No statement is planned that names
the table: to plan one runs code of its owner''s.';
