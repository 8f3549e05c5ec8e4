create function headwater.require_horizon(older_than interval) returns timestamptz
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  -- Compared as instants: 3 months may have fewer days than 90.
  if older_than is null or now() - older_than > now() - headwater.min_horizon() then
    raise exception 'older_than is %; it must be % at least', coalesce(older_than::text, 'null'), headwater.min_horizon()
      using errcode = 'invalid_parameter_value',
            hint = 'Devices that were away deliver what happened meanwhile; what is older than the horizon is refused as too_late.';
  end if;
  return now() - older_than;
end
$$;
comment on function headwater.require_horizon(interval) is 'The instant so long ago; an error if that is not long enough.';
