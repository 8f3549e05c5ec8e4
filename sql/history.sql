create function headwater.history(entity text, entity_id text, since timestamptz default null, "limit" int default 1000)
  returns setof headwater.event
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select e.* from headwater.event e
  where e.entity_type = history.entity and e.entity_id = history.entity_id
    and (history.since is null or e.occurred_at >= history.since)
  order by e.occurred_at, e.id
  limit history."limit"
$$;
comment on function headwater.history(text, text, timestamptz, int) is
  'The audit trail of one entity, oldest first: select event_type, payload, user_id, occurred_at from headwater.history(''order'', ''17'').';
