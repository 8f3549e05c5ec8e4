create function headwater.differences(entity text, wanted text[])
  returns table (tenant_id text, entity_id text, name text, payload jsonb, schema_version int, head timestamptz)
  language sql volatile set search_path = pg_catalog, pg_temp
as $$
  with registered as (
    select e.relation, e.schema_version, e.backfilled from headwater.entity e where e.entity_type = entity
  ),
  -- Grouped, not joined: nothing is known here of how many there are.
  present as (
    select k.entity_id, k.tenant_id, (array_agg(k.state) filter (where k.state is not null))[1] as state, max(k.schema_version) as schema_version
    from (
      select r.entity_id, r.tenant_id, r.state, r.schema_version
      from registered e cross join lateral headwater.chunks(e.relation) c
      cross join lateral headwater.rows(c.leaf, entity, c.first_page, c.end_page) r
      union all
      select e.entity_id, e.tenant_id, null, null from headwater.event e where e.entity_type = entity and e.applies group by 1, 2
      union all
      select s.entity_id, s.tenant_id, null, null from headwater.snapshot s where s.entity_type = entity group by 1, 2
    ) k
    where wanted is null or k.entity_id in (select w from unnest(wanted) w)
    group by 1, 2
  )
  select p.tenant_id, p.entity_id,
         case when p.state is null then 'deleted' when f.state is null then 'created' else 'updated' end,
         coalesce(p.state, '{}'), coalesce(p.schema_version, e.schema_version),
         (select h.occurred_at from headwater.event h
          where h.entity_type = entity and h.entity_id = p.entity_id and h.tenant_id is not distinct from p.tenant_id and h.applies
          order by h.occurred_at desc, h.id desc limit 1)
  from registered e cross join present p
  cross join lateral (select headwater.state_within(entity, p.entity_id, p.tenant_id) as state offset 0) f
  -- A column that the fold does not know, for it was added since, is null there.
  where ((p.state is null) <> (f.state is null)
         or exists (select from jsonb_each(p.state) c where c.value is distinct from coalesce(f.state -> c.key, 'null')))
    -- Its first change will write the baseline of a row that has none yet.
    and (e.backfilled or f.state is not null)
$$;
comment on function headwater.differences(text, text[]) is
  'Where a table''s rows are not the folds of their events, and the event that would mend it; of these entities only, if any are named.';
