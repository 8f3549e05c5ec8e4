create function headwater.record_entities(entity text, wanted text[]) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  now timestamptz := clock_timestamp();
  recorded bigint;
begin
  insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                               occurred_at, recorded_at, source, applies)
  select headwater.uuid_v7(), d.tenant_id, entity, d.entity_id, entity || '.' || d.name, d.payload, d.schema_version,
         greatest(now, d.head + interval '1 microsecond'), now, 'capture', true
  from (
    select k.tenant_id, k.entity_id, case when r.state is null then 'deleted' when f.state is null then 'created' else 'updated' end as name,
           coalesce(r.state, '{}') as payload, coalesce(r.schema_version, e.schema_version) as schema_version,
           (select max(h.occurred_at) from headwater.event h
            where h.entity_type = entity and h.entity_id = k.entity_id and h.tenant_id is not distinct from k.tenant_id and h.applies) as head
    from headwater.entity e
    cross join (
      select w as entity_id, r.tenant_id from unnest(wanted) w cross join lateral headwater.find_row(entity, w) r
      union
      select v.entity_id, v.tenant_id from headwater.event v where v.entity_type = entity and v.entity_id = any (wanted) and v.applies
    ) k
    left join lateral (select * from headwater.find_row(entity, k.entity_id) r where r.tenant_id is not distinct from k.tenant_id) r on true
    cross join lateral (select headwater.state_within(entity, k.entity_id, k.tenant_id) as state offset 0) f
    where e.entity_type = entity
      and ((r.state is null) <> (f.state is null)
           or exists (select from jsonb_each(r.state) c where c.value is distinct from coalesce(f.state -> c.key, 'null')))
  ) d
  order by d.name <> 'deleted';
  get diagnostics recorded = row_count;
  return recorded;
end
$$;
comment on function headwater.record_entities(text, text[]) is
  'Records, as captured events, where the rows of these entities are not the folds of their events. Its caller''s transaction has changed them,
and so has them locked. Returns how many.';
