create function headwater.disable("table" regclass) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  entity text;
begin
  perform headwater.require_owner("table");
  -- Before the registry is touched: ALTER TABLE has the table first, too, and the registry then.
  perform headwater.lock_briefly("table");
  update headwater.entity e set enabled = false where e.relation = "table" and e.enabled returning e.entity_type into entity;
  if entity is null then
    raise exception 'table % is not enabled', "table"
      using errcode = 'object_not_in_prerequisite_state', hint = 'select * from headwater.syncable_tables() lists those that are.';
  end if;
  perform headwater.release(part)
  from (select headwater.members("table") union select m.relation from headwater.member m where m.entity_type = entity) parts (part);
end
$$;
comment on function headwater.disable(regclass) is
  'Ends capture of a table. Its history stays, and headwater.enable goes on with it. Triggers, publication and replica identity are as they were.
Example: select headwater.disable(''orders'');';
