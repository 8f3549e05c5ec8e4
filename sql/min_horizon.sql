create function headwater.min_horizon() returns interval
  language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$ select interval '90 days' $$;
comment on function headwater.min_horizon() is
  'The shortest time that events stay open to late ones and to retries: a device that was off for a season still delivers.';
