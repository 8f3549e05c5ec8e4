create function headwater.end_backfill(relation regclass) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform headwater.require_owner(end_backfill.relation);
  -- A partition that came meanwhile, or a table that was rewritten, is still to be looked at.
  if exists (
    select from headwater.leaves(end_backfill.relation) l
    left join headwater.backfill_progress p on p.leaf = l
    where p.leaf is null or p.next_page <= p.pages or p.filenode <> pg_relation_filenode(l)
  ) then
    return false;
  end if;
  delete from headwater.backfill_progress p where p.relation = end_backfill.relation;
  update headwater.entity e set backfilled = true where e.relation = end_backfill.relation;
  perform headwater.invalidate(member) from headwater.members(end_backfill.relation) member;
  return true;
end
$$;
comment on function headwater.end_backfill(regclass) is 'Ends a backfill if every row has been looked at; returns whether that is so. Use headwater.backfill.';
