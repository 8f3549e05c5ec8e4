create function headwater.follow_drop() returns event_trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  part record;
  entity text;
  changed regclass;
begin
  if not headwater.following() then
    return;
  end if;
  for entity in
    delete from headwater.entity e
    where e.relation in (select d.objid from pg_event_trigger_dropped_objects() d
                         where d.classid = 'pg_class'::regclass and d.objsubid = 0)
    returning e.entity_type
  loop
    raise notice 'entity "%" is out of the registry; its history stays', entity;
    insert into headwater.past_entity values (entity) on conflict do nothing;
    delete from headwater.member m where m.entity_type = entity;
  end loop;
  for part in
    delete from headwater.member m using pg_event_trigger_dropped_objects() d
    where d.classid = 'pg_class'::regclass and d.objsubid = 0 and m.relation = d.objid
    returning d.object_identity as name, m.entity_type
  loop
    select e.relation into changed from headwater.entity e where e.entity_type = part.entity_type and e.enabled;
    if found then
      raise exception 'partition % of table %, entity "%", cannot be dropped: its rows would go without an event', part.name, changed, part.entity_type
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Detach it first, which records its rows as deleted: alter table %s detach partition %s; drop table %s;', changed, part.name, part.name);
    end if;
  end loop;
  for changed in
    select distinct m.relation
    from pg_event_trigger_dropped_objects() d
    join headwater.member m on m.relation = case
      when d.classid = 'pg_class'::regclass and d.objsubid > 0 then d.objid
      when d.classid = 'pg_trigger'::regclass then to_regclass(format('%I.%I', d.address_names[1], d.address_names[2]))::oid end
    where m.columns is not null or m.entity_type is null
  loop
    perform headwater.follow(changed);
  end loop;
end
$$;
comment on function headwater.follow_drop() is
  'Event trigger: takes the entities of dropped tables out of the registry. It refuses to drop a partition whose rows would go without an event (SQLSTATE 55000).';
