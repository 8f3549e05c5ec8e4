create function headwater.open_states(
  states refcursor, entity text, above bigint, every_tenant boolean, tenant_id text default null, entity_id text default null
) returns refcursor
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  registered headwater.entity;
  tenant text;
  wanted text := 'true';
  parts text[];
begin
  select * into registered from headwater.entity e where e.entity_type = open_states.entity and e.enabled;
  if not found then
    raise exception 'no enabled table is entity "%"', entity
      using errcode = 'undefined_object', hint = 'select * from headwater.syncable_tables() lists them.';
  end if;
  tenant := case when registered.tenant_column is null then 'null::text' else format('t.%I::text', registered.tenant_column) end;
  if registered.tenant_column is not null and not every_tenant then
    wanted := format('%s is not distinct from %L', tenant, tenant_id);
  end if;
  if entity_id is not null then
    -- By the key's own index. A text that is no value of the key's type is an error of class 22.
    parts := string_to_array(entity_id, '/');
    if cardinality(parts) <> cardinality(registered.key_columns) then
      wanted := 'false';
    else
      wanted := wanted || (
        select string_agg(format(' and t.%I = %L::%s', k.name, replace(replace(parts[k.place], '~1', '/'), '~0', '~'),
                                 format_type(a.atttypid, a.atttypmod)), '' order by k.place)
        from unnest(registered.key_columns) with ordinality k (name, place)
        join pg_attribute a on a.attrelid = registered.relation and a.attname = k.name and not a.attisdropped);
    end if;
  end if;
  -- Opened here, with the rights of the extension's owner; each row is made when the caller fetches it.
  execute format(
    'declare %9$I no scroll cursor for
     select r.id, r.tenant, r.state::text, greatest(%1$L::bigint, n.position), h.occurred_at::text, h.id::text
     from (select %2$s as id, %3$s as tenant, %4$s as state from %5$s t where %6$s) r
     left join (
       select e.entity_id, e.tenant_id, max(e.position) as position from headwater.event e
       where e.entity_type = %7$L and e.position > %1$L::bigint group by 1, 2
     ) n on n.entity_id = r.id and n.tenant_id is not distinct from r.tenant
     left join lateral (
       (select e.occurred_at, e.id from headwater.event e
        where e.entity_type = %7$L and e.entity_id = r.id and e.tenant_id is not distinct from r.tenant and e.applies
        order by e.occurred_at desc, e.id desc limit 1)
       union all
       (select s.occurred_at, s.id from headwater.snapshot s
        where s.entity_type = %7$L and s.entity_id = r.id and s.tenant_id is not distinct from r.tenant and s.id is not null)
       order by 1 desc, 2 desc limit 1
     ) h on true
     where %8$L is null or r.id = %8$L',
    above, headwater.entity_id_expression(registered.relation, registered.key_columns, 't'), tenant,
    headwater.state_expression(registered.relation, registered.excluded, 't'), registered.relation, wanted, entity, entity_id, states);
  return states;
end
$$;
comment on function headwater.open_states(refcursor, text, bigint, boolean, text, text) is
  'Opens a cursor over the present states of an entity''s rows: id, tenant, state, position, time and id of the last event. For the streamer.
position: the state has every event of the entity up to there and none beyond; above must be a watermark that was reached before.
every_tenant: else only tenant_id''s rows, where the table has a tenant column. entity_id: one only.';
