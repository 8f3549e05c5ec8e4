create function headwater.state_expression(relation regclass, excluded text[], alias text) returns text
  language c stable strict set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'state_expression_wrapper';
comment on function headwater.state_expression(regclass, text[], text) is 'SQL of a row''s state as jsonb, for the row called alias.';
