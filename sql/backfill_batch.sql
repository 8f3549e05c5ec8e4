create function headwater.backfill_batch(leaf regclass) returns headwater.backfill_progress
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  -- A batch reads at most this many pages (2 MiB) in one transaction: a fraction of a second.
  pages_per_batch constant bigint := 256;
  progress headwater.backfill_progress;
begin
  select * into progress from headwater.backfill_progress p where p.leaf = backfill_batch.leaf for update;
  if progress.leaf is null then
    raise exception 'no backfill of table % has begun', backfill_batch.leaf
      using errcode = 'object_not_in_prerequisite_state', hint = 'call headwater.backfill(…) begins one, and goes on with it.';
  end if;
  perform headwater.require_owner(progress.relation);
  execute format('lock table only %s in access share mode', progress.leaf);
  if progress.filenode <> pg_relation_filenode(progress.leaf) then
    progress.filenode := pg_relation_filenode(progress.leaf);
    progress.next_page := 0;
    progress.pages := pg_relation_size(progress.leaf) / current_setting('block_size')::int8;
  end if;
  progress.written := progress.written + headwater.write_baselines(
    progress.relation, progress.leaf, progress.next_page, progress.next_page + pages_per_batch);
  progress.next_page := progress.next_page + pages_per_batch;
  progress.updated_at := clock_timestamp();
  update headwater.backfill_progress p
  set filenode = progress.filenode, next_page = progress.next_page, pages = progress.pages, written = progress.written,
      updated_at = progress.updated_at
  where p.leaf = progress.leaf;
  return progress;
end
$$;
comment on function headwater.backfill_batch(regclass) is 'Writes the baselines of some pages of a table; returns how far that is. Use headwater.backfill.';
