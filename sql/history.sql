create function headwater.history(
    entity text,
    entity_id text,
    since timestamptz default null,
    "limit" int default 1000,
    after uuid default null,
    tenant_id text default null)
  returns setof headwater.event
  language plpgsql stable set search_path = pg_catalog, pg_temp set "TimeZone" = 'UTC'
as $$
#variable_conflict use_column
declare
  -- A page is held in memory twice, and its payloads may have a megabyte each.
  max_limit constant int := 10000;
  version int;
  floor timestamptz;
begin
  if "limit" is null or "limit" not between 1 and max_limit then
    raise exception 'limit is %; a page has 1 to % events', coalesce("limit"::text, 'null'), max_limit
      using errcode = 'invalid_parameter_value', hint = 'Go on behind a page with its last row: since => occurred_at, after => id.';
  end if;
  if after is not null and since is null then
    raise exception 'after needs since'
      using errcode = 'invalid_parameter_value', hint = 'Both are of the last row of a page: since => occurred_at, after => id.';
  end if;
  select max(s.occurred_at) into floor from headwater.snapshot s
  where s.entity_type = entity and s.entity_id = history.entity_id and s.is_floor
    and (history.tenant_id is null or s.tenant_id = history.tenant_id);
  if floor is not null and (since is null or since <= floor) then
    raise warning 'the history of % % reaches back to %', entity, history.entity_id, floor
      using hint = 'What was before has been dropped by headwater.apply_retention; its state then is in headwater.snapshot.';
  end if;
  select e.schema_version into version from headwater.entity e where e.entity_type = entity and e.enabled;
  return query
    select e.position, e.id, e.tenant_id, e.entity_type, e.entity_id, e.event_type,
           headwater.lift(e.entity_type, e.event_type, e.source, e.schema_version, e.payload),
           greatest(e.schema_version, version),
           e.occurred_at, e.recorded_at, e.user_id, e.client_id, e.source, e.applies
    from headwater.event e
    where e.entity_type = entity and e.entity_id = history.entity_id
      and (history.tenant_id is null or e.tenant_id = history.tenant_id)
      and (since is null or e.occurred_at >= since)
      and (after is null or (e.occurred_at, e.id) > (since, after))
    order by e.occurred_at, e.id
    limit history."limit";
end
$$;
comment on function headwater.history(text, text, timestamptz, int, uuid, text) is
  'The audit trail of one entity, oldest first, payloads in their present form (headwater.event has them as they came).
since: what happened from then on. To go on behind a page, with no event twice and none left out: since and after are the
occurred_at and the id of its last row. An event that arrives late stands where it happened, perhaps on a page that was read already.
tenant_id: only that tenant''s, where one id has stood in several.
Example: select event_type, payload, user_id, occurred_at from headwater.history(''order'', ''17'');';
