create function headwater.follow_ddl() returns event_trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  changed regclass;
  message text;
begin
  if not headwater.following() then
    return;
  end if;
  if tg_tag in ('ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER EXTENSION') then
    -- Names within statements that backends keep.
    perform headwater.invalidate(m.relation) from headwater.member m;
    if tg_tag = 'ALTER TYPE' then
      begin
        perform headwater.follow_types(array(
          select case c.classid when 'pg_type'::regclass then c.objid else (select t.reltype from pg_class t where t.oid = c.objid) end
          from pg_event_trigger_ddl_commands() c where c.classid in ('pg_class'::regclass, 'pg_type'::regclass)));
      exception when others then
        get stacked diagnostics message = message_text;
        raise warning 'headwater could not follow this change of a type: %', message
          using hint = 'select headwater.reconcile(…) records what rows of the tables that use it print now.';
      end;
    end if;
    return;
  end if;
  for changed in
    with recursive touched (relation) as (
      select case c.classid when 'pg_class'::regclass then c.objid
                            when 'pg_trigger'::regclass then (select t.tgrelid from pg_trigger t where t.oid = c.objid) end
      from pg_event_trigger_ddl_commands() c where c.classid in ('pg_class'::regclass, 'pg_trigger'::regclass)
      union
      select i.inhparent from touched t join pg_inherits i on i.inhrelid = t.relation
    )
    select m.relation from headwater.member m
    where m.relation in (select t.relation from touched t
                         -- A table that became a partition is not named.
                         union select i.inhrelid from touched t join pg_inherits i on i.inhparent = t.relation)
      and (m.columns is not null or m.entity_type is null)
  loop
    begin
      perform headwater.follow(changed);
    exception
      when object_not_in_prerequisite_state or transaction_rollback or lock_not_available then
        raise;
      when others then
        -- A mistake of ours is no reason to refuse a change of theirs, unless it could show what is to be hidden.
        if exists (select from headwater.entity e where e.relation = changed and e.excluded <> '{}') then
          raise;
        end if;
        get stacked diagnostics message = message_text;
        raise warning 'headwater could not follow this change of table %: %', changed, message
          using hint = 'select * from headwater.check() says what is to be done.';
    end;
  end loop;
end
$$;
comment on function headwater.follow_ddl() is
  'Event trigger: follows changes of enabled and published tables. It refuses a command by which changes would escape capture (SQLSTATE 55000); any other failure of its own is a warning.';
