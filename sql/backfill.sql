create procedure headwater.backfill("table" regclass)
  language plpgsql
as $$
#variable_conflict use_column
declare
  -- A batch reads at most this many pages (8 MiB) in one transaction.
  pages_per_batch constant bigint := 1024;
  leaf pg_catalog.regclass;
  pages bigint;
  page bigint;
  written bigint := 0;
begin
  -- No `set` clause: a procedure with one may not commit. So every name is qualified.
  perform headwater.require_owner("table");
  if not exists (select from headwater.entity e where e.relation operator(pg_catalog.=) "table" and e.enabled) then
    raise exception 'table % is not enabled', "table"
      using errcode = 'object_not_in_prerequisite_state', hint = pg_catalog.format('select headwater.enable(%L) enables it.', "table"::pg_catalog.text);
  end if;
  for leaf in select l from headwater.leaves("table") l loop
    -- Rows that change meanwhile get their baseline from capture, wherever they move: the pages there are now suffice.
    pages := pg_catalog.pg_relation_size(leaf) operator(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8;
    page := 0;
    while page operator(pg_catalog.<=) pages loop
      written := written operator(pg_catalog.+) headwater.write_baselines("table", leaf, page, page operator(pg_catalog.+) pages_per_batch);
      page := page operator(pg_catalog.+) pages_per_batch;
      commit;
      raise notice '%: % of % pages, % baselines', leaf, least(page, pages), pages, written;
    end loop;
  end loop;
  update headwater.entity e set backfilled = true where e.relation operator(pg_catalog.=) "table";
  perform headwater.invalidate("table");
  commit;
end
$$;
comment on procedure headwater.backfill(regclass) is
  'Writes baselines for the rows that a table had before it was enabled, in batches that commit, while others write. To be called outside a transaction block; a call that was broken off can be made again.';
