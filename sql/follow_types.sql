create function headwater.follow_types(types oid[]) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
#variable_conflict use_variable
declare
  -- As in follow: the owner of a larger table chooses the time.
  max_bytes_at_once constant bigint := 4 * 1024 * 1024;
  concerned record;
  differing text[];
begin
  for concerned in
    with recursive made_of (type) as (
      select unnest(types)
      union
      select n.type
      from made_of m cross join lateral (
        select t.oid from pg_type t where t.typbasetype = m.type or t.typelem = m.type and t.typlen = -1
        union all
        select c.reltype from pg_attribute a join pg_class c on c.oid = a.attrelid
        where a.atttypid = m.type and a.attnum > 0 and not a.attisdropped
        union all
        select r.rngtypid from pg_range r where r.rngsubtype = m.type
      ) n (type)
      where n.type <> 0
    )
    select distinct e.entity_type, e.relation
    from headwater.entity e join pg_attribute a on a.attrelid = e.relation
    where e.enabled and a.attnum > 0 and not a.attisdropped and a.attname <> all (e.excluded) and a.atttypid in (select m.type from made_of m)
  loop
    if (select coalesce(sum(pg_relation_size(leaf)), 0) <= max_bytes_at_once from headwater.leaves(concerned.relation) leaf) then
      -- Most commands change no value that is there.
      select array_agg(distinct d.entity_id) into differing from headwater.differences(concerned.entity_type, null) d;
      if differing is not null then
        perform headwater.lock_briefly(concerned.relation, 'share row exclusive');
        perform headwater.record_differences(concerned.entity_type, differing);
      end if;
    else
      raise warning 'rows of table % may no longer be what their events say, if this command renamed a value or an attribute', concerned.relation
        using hint = format('To record them as they are now, which reads the whole table: select headwater.reconcile(%L).', concerned.relation::text);
    end if;
  end loop;
end
$$;
comment on function headwater.follow_types(oid[]) is
  'Records, after ALTER TYPE, what rows print now where they print something else than before: an enum''s value or a composite''s attribute was renamed.';
