create function headwater.lift(entity text, event_type text, source text, schema_version int, payload jsonb) returns jsonb
  language c stable strict set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'lift_wrapper';
comment on function headwater.lift(text, text, text, int, jsonb) is
  'An event''s payload in the present form, as headwater.upcast declares it; as it is where nothing is declared.';
