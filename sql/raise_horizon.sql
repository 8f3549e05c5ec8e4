create function headwater.raise_horizon(entity text, older_than interval) returns timestamptz
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  entry headwater.entity;
  wanted timestamptz := headwater.require_horizon(older_than);
begin
  select * into entry from headwater.entity e where e.entity_type = entity and e.enabled;
  if entry.relation is null then
    raise exception 'no enabled table is entity "%"', entity
      using errcode = 'undefined_object', hint = 'select * from headwater.syncable_tables() lists them.';
  end if;
  perform headwater.require_owner(entry.relation);
  update headwater.entity e set horizon = greatest(e.horizon, wanted) where e.entity_type = entity
  returning e.horizon into wanted;
  perform headwater.invalidate(entry.relation);
  return wanted;
end
$$;
comment on function headwater.raise_horizon(text, interval) is
  'Has clients'' events from so long ago refused as too_late from now on. Returns the horizon; one that was later already stays.';
