create function headwater.open_states(
  states refcursor, entity text, above bigint, every_tenant boolean, tenant_id text default null, entity_id text default null
) returns refcursor
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  registered headwater.entity;
  one_row jsonb;
  source text;
begin
  select * into registered from headwater.entity e where e.entity_type = open_states.entity and e.enabled;
  if not found then
    raise exception 'no enabled table is entity "%"', entity
      using errcode = 'undefined_object', hint = 'select * from headwater.syncable_tables() lists them.';
  end if;
  if open_states.entity_id is null then
    source := format('headwater.chunks(%L::regclass) c cross join lateral headwater.rows(c.leaf, %L, c.first_page, c.end_page) r',
                     registered.relation::oid, entity);
  else
    -- By the key's own index. A text that is no value of the key's type is an error of class 22.
    select coalesce(jsonb_agg(jsonb_build_object('entity_id', open_states.entity_id, 'tenant_id', r.tenant_id, 'state', r.state)), '[]') into one_row
    from headwater.find_row(open_states.entity, open_states.entity_id) r;
    source := format('jsonb_to_recordset(%L::jsonb) r (entity_id text, tenant_id text, state jsonb)', one_row);
  end if;
  -- Opened here, with the rights of the extension's owner; each row is made when the caller fetches it.
  execute format(
    'declare %1$I no scroll cursor for
     select r.entity_id, r.tenant_id, r.state::text, greatest(%2$L::bigint, n.position), h.occurred_at::text, h.id::text
     from %4$s
     left join (
       select e.entity_id, e.tenant_id, max(e.position) as position from headwater.event e
       where e.entity_type = %3$L and e.position > %2$L::bigint group by 1, 2
     ) n on n.entity_id = r.entity_id and n.tenant_id is not distinct from r.tenant_id
     left join lateral (
       (select e.occurred_at, e.id from headwater.event e
        where e.entity_type = %3$L and e.entity_id = r.entity_id and e.tenant_id is not distinct from r.tenant_id and e.applies
        order by e.occurred_at desc, e.id desc limit 1)
       union all
       (select s.occurred_at, s.id from headwater.snapshot s
        where s.entity_type = %3$L and s.entity_id = r.entity_id and s.tenant_id is not distinct from r.tenant_id and s.id is not null)
       order by 1 desc, 2 desc limit 1
     ) h on true
     where %5$s',
    states, above, entity, source,
    case when registered.tenant_column is null or every_tenant then 'true' else format('r.tenant_id is not distinct from %L', open_states.tenant_id) end);
  return states;
end
$$;
comment on function headwater.open_states(refcursor, text, bigint, boolean, text, text) is
  'Opens a cursor over the present states of an entity''s rows: id, tenant, state, position, time and id of the last event. For the streamer.
position: the state has every event of the entity up to there and none beyond; above must be a watermark that was reached before.
every_tenant: else only tenant_id''s rows, where the table has a tenant column. entity_id: one only.';
