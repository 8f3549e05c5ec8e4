create table headwater.backfill_progress (
  leaf regclass primary key,
  relation regclass not null,
  filenode oid not null,
  next_page bigint not null default 0,
  pages bigint not null,
  written bigint not null default 0,
  started_at timestamptz not null default pg_catalog.clock_timestamp(),
  updated_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table headwater.backfill_progress is 'How far headwater.backfill is, for each table that holds rows; gone when it is done.';
comment on column headwater.backfill_progress.filenode is 'The file whose pages are counted: where a table was rewritten, counting starts anew.';
comment on column headwater.backfill_progress.next_page is 'Where the next batch begins. A call that was broken off is made again, and goes on there.';
comment on column headwater.backfill_progress.written is 'Baselines written so far.';
grant select on headwater.backfill_progress to headwater_reader;
