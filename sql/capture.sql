create function headwater.capture() returns trigger
  language c security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'capture_wrapper';
comment on function headwater.capture() is 'Trigger: records each changed row as one event. Attached by headwater.enable.';
