create function headwater.check_rows() returns table (problem text, statement text)
  language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  -- Portions of 2 MiB, and changes: a sample, for all rows of a large table take long.
  with bounds (portions, changes) as (values (2, 1000)),
  looked_at as (
    select e.entity_type, e.relation, r.entity_id, r.tenant_id, r.state
    from headwater.entity e join pg_class t on t.oid = e.relation cross join bounds b
    cross join lateral (select c.* from headwater.chunks(e.relation) c order by random() limit b.portions) c
    cross join lateral headwater.rows(c.leaf, e.entity_type, c.first_page, c.end_page) r
    where e.enabled
    union
    select e.entity_type, e.relation, l.entity_id, l.tenant_id, r.state
    from (select distinct c.entity_type, c.entity_id, c.tenant_id
          from (select v.* from headwater.event v order by v.position desc limit (select changes from bounds)) c where c.applies) l
    join headwater.entity e using (entity_type) join pg_class t on t.oid = e.relation
    left join lateral headwater.find_row(e.entity_type, l.entity_id) r on r.tenant_id is not distinct from l.tenant_id
    where e.enabled
  ),
  folded as (
    select l.*, f.state as fold
    from looked_at l join headwater.entity e using (entity_type)
    cross join lateral (select headwater.state_within(l.entity_type, l.entity_id, l.tenant_id) as state offset 0) f
    where e.backfilled or f.state is not null
  )
  select format('%s of %s rows of %s that were looked at are not the fold of their events, %L for one',
                count(*) filter (where d.differs), count(*), d.relation::text, min(d.entity_id) filter (where d.differs)),
         format('select headwater.reconcile(%L);', d.relation::text)
  from (
    select f.*, (f.state is null) <> (f.fold is null)
                or exists (select from jsonb_each(f.state) c where c.value is distinct from coalesce(f.fold -> c.key, 'null')) as differs
    from folded f
  ) d
  group by d.relation having bool_or(d.differs)
$$;
comment on function headwater.check_rows() is
  'Rows that are not the fold of their events, among a sample of each enabled table and those that changed last. headwater.reconcile looks at all.';
