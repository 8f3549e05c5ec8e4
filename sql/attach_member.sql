create function headwater.attach_member(relation regclass, entity text) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning set headwater.follow = 'off'
as $$
begin
  execute format('drop trigger if exists headwater_begin on %s', relation);
  execute format('drop trigger if exists headwater_row on %s', relation);
  execute format('drop trigger if exists headwater_insert on %s', relation);
  execute format('drop trigger if exists headwater_update on %s', relation);
  execute format('drop trigger if exists headwater_delete on %s', relation);
  execute format('drop trigger if exists headwater_truncate on %s', relation);
  execute format('create trigger headwater_begin before insert or update or delete on %s for each statement execute function headwater.capture(%L)', relation, entity);
  execute format('create trigger headwater_insert after insert on %s referencing new table as new_rows for each statement execute function headwater.capture(%L)', relation, entity);
  execute format('create trigger headwater_update after update on %s referencing old table as old_rows new table as new_rows for each statement execute function headwater.capture(%L)', relation, entity);
  execute format('create trigger headwater_delete after delete on %s referencing old table as old_rows for each statement execute function headwater.capture(%L)', relation, entity);
  execute format('create trigger headwater_truncate before truncate on %s for each statement execute function headwater.capture(%L)', relation, entity);
  -- A subscription's apply worker fires row triggers only. It runs as replica; elsewhere in that role this trigger finds
  -- that the statement is captured already.
  if (select relkind from pg_class where oid = relation) = 'r' then
    execute format('create trigger headwater_row after insert or update or delete on %s for each row execute function headwater.capture(%L)', relation, entity);
  end if;
  perform headwater.set_trigger_modes(relation);
  perform headwater.set_identity(relation, entity);
end
$$;
comment on function headwater.attach_member(regclass, text) is 'Triggers and replica identity of one table: an enabled one, or a partition of it.';
