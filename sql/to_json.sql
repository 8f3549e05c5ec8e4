create function headwater.to_json(value "any") returns jsonb
  language c stable strict parallel safe
as 'MODULE_PATHNAME', 'to_json_wrapper';
comment on function headwater.to_json("any") is 'A value as it travels: JSON that JavaScript reads without loss.';
