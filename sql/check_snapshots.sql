create function headwater.check_snapshots() returns table (problem text, statement text)
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format('the snapshot of %s %L as of %s is not what was folded', s.entity_type, s.entity_id, s.occurred_at),
         case when s.is_floor or beneath.is_cut
           then format('-- its events have been dropped: restore the row of headwater.snapshot with the id %s from a backup', s.id)
           else format('delete from headwater.snapshot where entity_type = %L and entity_id = %L and id is not null; -- then: call headwater.compact(%L);',
                       s.entity_type, s.entity_id, s.entity_type) end
  from headwater.snapshot s
  left join lateral (
    select b.occurred_at, b.id, case when b.id is null then sha256(convert_to(b.state::text, 'UTF8')) else b.folded end as folded,
           exists (select from headwater.snapshot f
                   where f.entity_type = s.entity_type and f.entity_id = s.entity_id
                     and f.tenant_id is not distinct from s.tenant_id and f.is_floor) as is_cut
    from headwater.snapshot b
    where b.entity_type = s.entity_type and b.entity_id = s.entity_id and b.tenant_id is not distinct from s.tenant_id
      and (b.id is null or (b.occurred_at, b.id) < (s.occurred_at, s.id))
    order by b.occurred_at desc nulls last, b.id desc limit 1
  ) beneath on true
  where s.id is not null
    and (s.hash is distinct from headwater.digest_of_snapshot(s.folded, s.state, s.schema_version)
         or not s.is_floor
            and s.folded is distinct from headwater.digest_of_events(
              beneath.folded, s.entity_type, s.entity_id, s.tenant_id, beneath.occurred_at, beneath.id, s.occurred_at, s.id))
$$;
comment on function headwater.check_snapshots() is 'Snapshots that somebody changed, or whose events: by the digests that headwater.compact has left. Reads every event that is in one.';
