create function headwater.refuse_change() returns trigger
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if headwater.change_allowed() then
    return null;
  end if;
  raise exception '% on headwater.event: events are immutable', tg_op
    using errcode = 'object_not_in_prerequisite_state',
          hint = 'Record what corrects it as a new event, with headwater.emit or by changing the row.';
end
$$;
comment on function headwater.refuse_change() is 'Trigger: keeps headwater.event append-only, for its owner too.';

create trigger refuse_change before update or delete or truncate on headwater.event
  for each statement execute function headwater.refuse_change();
-- Also under session_replication_role = replica.
alter table headwater.event enable always trigger refuse_change;
