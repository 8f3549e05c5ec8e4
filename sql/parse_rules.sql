create function headwater.parse_rules(events jsonb, settable text[]) returns jsonb
  language c stable strict parallel safe set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'parse_rules_wrapper';
comment on function headwater.parse_rules(jsonb, text[]) is 'Reads a declaration of events, either form, and returns the long form. Errors name the event and what is wrong with it.';
