create function headwater.compact_range(entity text, horizon timestamptz, first_position bigint, last_position bigint) returns bigint
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  compacted bigint;
begin
  perform headwater.require_owner(e.relation) from headwater.entity e where e.entity_type = entity;
  perform headwater.require_read_committed();
  -- What is folded is too late for clients' events: only raise_horizon decides that, for it waits for those on their way.
  if horizon > coalesce((select e.horizon from headwater.entity e where e.entity_type = entity), '-infinity') then
    raise exception '% lies behind the horizon of entity "%"', horizon, entity
      using errcode = 'object_not_in_prerequisite_state', hint = format('call headwater.compact(%L) raises it, and folds up to there.', entity);
  end if;
  perform headwater.lock_snapshots(entity, false);
  with ready as (
    -- Whatever of an entity lies before the horizon is folded as soon as one of its events comes by.
    select distinct e.entity_id, e.tenant_id from headwater.event e
    where e.position between first_position and last_position
      and e.entity_type = entity and e.applies and e.occurred_at < horizon
      and not exists (select from headwater.erased x where x.entity_type = entity and x.entity_id = e.entity_id)
  ),
  folded as (
    select r.entity_id, r.tenant_id, last.occurred_at, last.id, last.position, beneath.occurred_at as beneath_at,
           beneath.id as beneath_id, beneath.folded as beneath_folded
    from ready r
    cross join lateral (
      select e.occurred_at, e.id, max(e.position) over () as position from headwater.event e
      where e.entity_type = entity and e.entity_id = r.entity_id and e.tenant_id is not distinct from r.tenant_id
        and e.applies and e.occurred_at < horizon
      order by e.occurred_at desc, e.id desc limit 1
    ) last
    left join lateral (
      select s.occurred_at, s.id, case when s.id is null then sha256(convert_to(s.state::text, 'UTF8')) else s.folded end as folded
      from headwater.snapshot s
      where s.entity_type = entity and s.entity_id = r.entity_id and s.tenant_id is not distinct from r.tenant_id
      order by s.occurred_at desc nulls last, s.id desc limit 1
    ) beneath on true
    where beneath.id is null or (beneath.occurred_at, beneath.id) < (last.occurred_at, last.id)
  )
  insert into headwater.snapshot (entity_type, entity_id, tenant_id, state, schema_version, occurred_at, id, position, folded, hash)
  select entity, f.entity_id, f.tenant_id, made.state, made.schema_version, f.occurred_at, f.id, f.position, digest.folded,
         headwater.digest_of_snapshot(digest.folded, made.state, made.schema_version)
  from folded f
  cross join lateral headwater.fold_to(entity, f.entity_id, f.tenant_id, f.occurred_at, f.id) made
  cross join lateral (
    select headwater.digest_of_events(f.beneath_folded, entity, f.entity_id, f.tenant_id,
                                      f.beneath_at, f.beneath_id, f.occurred_at, f.id) as folded
  ) digest
  on conflict do nothing;
  get diagnostics compacted = row_count;
  return compacted;
end
$$;
comment on function headwater.compact_range(text, timestamptz, bigint, bigint) is
  'Folds what lies before the horizon of those entities that have an event among these positions. Returns how many snapshots it made.';
