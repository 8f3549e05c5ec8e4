create function headwater.reconcile(relation regclass) returns bigint
  language plpgsql security definer set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  entity text;
  differing text[];
begin
  perform headwater.require_owner(relation);
  perform headwater.require_read_committed();
  select e.entity_type into entity from headwater.entity e where e.relation = reconcile.relation and e.enabled;
  if entity is null then
    raise exception 'table % is not enabled', relation
      using errcode = 'object_not_in_prerequisite_state', hint = 'select * from headwater.syncable_tables() lists those that are.';
  end if;
  -- While others write, for it takes long; whoever changes meanwhile is found here or captured, or both.
  select array_agg(distinct d.entity_id) into differing from headwater.differences(entity, null) d;
  if differing is null then
    return 0;
  end if;
  perform headwater.lock_briefly(relation, 'share row exclusive');
  perform from headwater.entity e where e.entity_type = entity for key share;
  return headwater.record_differences(entity, differing);
end
$$;
comment on function headwater.reconcile(regclass) is
  'Records, as captured events, what changed in a table while it was not captured: rows that differ from the fold of their events. Returns how many.
Its owner calls it where a warning says so. Others write meanwhile; they wait only while what differed is looked at again and recorded.
Example: select headwater.reconcile(''orders'');';
