create table headwater.meta (
  only_row boolean primary key default true check (only_row),
  epoch bigint not null default 1,
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  dropped_position bigint not null default 0
);
insert into headwater.meta default values;

-- A dump restores this row after `create extension` has made one.
create function headwater.replace_meta() returns trigger
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  delete from headwater.meta;
  return new;
end
$$;
comment on function headwater.replace_meta() is 'Trigger: keeps headwater.meta at one row, the latest.';
create trigger replace_meta before insert on headwater.meta for each row execute function headwater.replace_meta();

comment on table headwater.meta is 'One row about this history as a whole.';
comment on column headwater.meta.epoch is 'Part of every cursor. Raise it after restoring a backup: clients then read anew and send again what the server lost.';
comment on column headwater.meta.dropped_position is 'The greatest position that retention has dropped: a cursor below it has missed events, and has expired.';
grant select on headwater.meta to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.meta', '');
