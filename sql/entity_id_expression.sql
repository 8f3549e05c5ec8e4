create function headwater.entity_id_expression(relation regclass, key_columns text[], alias text) returns text
  language c stable strict set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'entity_id_expression_wrapper';
comment on function headwater.entity_id_expression(regclass, text[], text) is 'SQL of a row''s entity id, for the row called alias.';
