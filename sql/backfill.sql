create procedure headwater.backfill("table" regclass)
  language plpgsql
as $$
#variable_conflict use_column
declare
  -- How often it says how far it is.
  notice_every constant pg_catalog.interval := '5 seconds';
  said_at pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  leaf pg_catalog.regclass;
  progress headwater.backfill_progress;
begin
  -- No `set` clause: a procedure with one may not commit. So every name is qualified.
  loop
    for leaf in select l from headwater.begin_backfill("table") l loop
      commit;
      loop
        progress := headwater.backfill_batch(leaf);
        commit;
        exit when progress.next_page operator(pg_catalog.>) progress.pages;
        if pg_catalog.clock_timestamp() operator(pg_catalog.-) said_at operator(pg_catalog.>) notice_every then
          said_at := pg_catalog.clock_timestamp();
          raise notice '%: % of % pages, % baselines', leaf, progress.next_page, progress.pages, progress.written;
        end if;
      end loop;
      raise notice '%: % pages, % baselines', leaf, progress.pages, progress.written;
    end loop;
    exit when headwater.end_backfill("table");
    commit;
  end loop;
  commit;
end
$$;
comment on procedure headwater.backfill(regclass) is
  'Writes baselines for the rows that a table had before it was enabled, in batches that commit, while others write; headwater.backfill_progress
shows how far it is. To be called outside a transaction block; a call that was broken off can be made again, and goes on where it was.
Example: call headwater.backfill(''orders'');';
