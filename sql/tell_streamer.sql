create function headwater.tell_streamer() returns trigger
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_logical_emit_message(true, 'headwater.registry', '');
  return null;
end
$$;
comment on function headwater.tell_streamer() is
  'Trigger: says in the WAL that the registry or the epoch has changed, so that streamers read it anew before they pass on what follows.';
create trigger tell_streamer after insert or update or delete or truncate on headwater.entity
  for each statement execute function headwater.tell_streamer();
create trigger tell_streamer after insert or update or delete on headwater.meta
  for each statement execute function headwater.tell_streamer();
