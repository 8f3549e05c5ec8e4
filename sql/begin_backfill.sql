create function headwater.begin_backfill(relation regclass) returns setof regclass
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform headwater.require_owner(begin_backfill.relation);
  if not exists (select from headwater.entity e where e.relation = begin_backfill.relation and e.enabled) then
    raise exception 'table % is not enabled', begin_backfill.relation
      using errcode = 'object_not_in_prerequisite_state', hint = format('select headwater.enable(%L) enables it.', begin_backfill.relation::text);
  end if;
  -- Rows that change meanwhile get their baseline from capture, wherever they move: the pages there are now suffice.
  insert into headwater.backfill_progress (leaf, relation, filenode, pages)
  select l, begin_backfill.relation, pg_relation_filenode(l), pg_relation_size(l) / current_setting('block_size')::int8
  from headwater.leaves(begin_backfill.relation) l
  on conflict (leaf) do update
  set filenode = excluded.filenode, next_page = 0, pages = excluded.pages where backfill_progress.filenode <> excluded.filenode;
  return query select p.leaf from headwater.backfill_progress p
               where p.leaf in (select headwater.leaves(begin_backfill.relation)) and p.next_page <= p.pages order by p.leaf;
end
$$;
comment on function headwater.begin_backfill(regclass) is 'Begins a backfill, or takes up one that was broken off; returns the tables that still have rows to be looked at. Use headwater.backfill.';
