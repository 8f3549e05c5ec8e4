create function headwater.find_row(entity text, entity_id text) returns table (tenant_id text, state jsonb, schema_version int)
  language c stable strict security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'find_row_wrapper';
comment on function headwater.find_row(text, text) is 'The row of an entity as it is, found by its key as the table''s owner.';
