create function headwater.capture() returns trigger
  -- Not security definer: it acts as its owner, with that path, around what needs it, and seldom does anything.
  language c
as 'MODULE_PATHNAME', 'capture_wrapper';
comment on function headwater.capture() is 'Trigger: records each changed row as one event. Attached by headwater.enable.';
