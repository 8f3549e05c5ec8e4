create function headwater.change_allowed() returns boolean
  language c volatile strict
as 'MODULE_PATHNAME', 'change_allowed_wrapper';
comment on function headwater.change_allowed() is
  'Whether headwater.erase or headwater.drop_events is changing events at this moment. A mark in the backend''s memory, which no SQL can set.';
