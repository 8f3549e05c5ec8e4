create function headwater.follow(relation regclass) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
#variable_conflict use_variable
declare
  -- Up to here, as in enable, differences are recorded at once; the owner of a larger table chooses the time.
  max_bytes_at_once constant bigint := 4 * 1024 * 1024;
  entity headwater.entity;
  known headwater.member;
  part regclass;
  captured boolean;
  differs boolean := false;
  numbers_hold boolean;
  wrong text;
  explanation text;
begin
  select * into known from headwater.member m where m.relation = relation;
  select * into entity from headwater.entity e where e.relation = relation for update;
  -- pg_upgrade keeps numbers of columns, and a dump of a table that never lost one does.
  numbers_hold := known.columns is not null and not exists (
    select from jsonb_object_keys(known.columns) n (number)
    where not exists (select from pg_attribute a where a.attrelid = relation and a.attnum = n.number::int2 and not a.attisdropped));
  -- Else they tell nothing in a restored copy: there the names in the registry are right.
  if known.seen_in is distinct from headwater.place_of(relation) then
    known.seen_in := null;
  end if;

  if entity.enabled then
    begin
      perform headwater.require_capturable(relation);
    exception when wrong_object_type then
      get stacked diagnostics wrong = message_text, explanation = pg_exception_hint;
      raise exception 'changes of table %, entity "%", would escape capture: %', relation, entity.entity_type, wrong
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('%s To go on without capture: select headwater.disable(%L).', explanation, relation::text);
    end;
  end if;

  if entity.entity_type is null then
    -- Published: its row changes are on the stream, and those of its partitions.
    perform headwater.set_identity(member, null) from headwater.members(relation) member
    where not exists (select from headwater.member m where m.relation = member);
    return;
  elsif known.seen_in is not null or numbers_hold then
    differs := headwater.follow_columns(relation);
    -- Numbers of types do not hold there.
    differs := differs and known.seen_in is not null;
    select * into entity from headwater.entity e where e.relation = relation;
  end if;
  if not entity.enabled then
    perform headwater.remember(relation);
    update headwater.member m set former_identity = c.relreplident from pg_class c where m.relation = relation and c.oid = relation;
    return;
  end if;

  if exists (
    select from unnest(entity.key_columns || entity.tenant_column || entity.user_column) c (name)
    where c.name is not null and not exists (select from pg_attribute a where a.attrelid = relation and a.attname = c.name and not a.attisdropped)
  ) then
    -- Said above, once; nothing that reads rows by them could go on.
    perform headwater.remember(relation);
    perform headwater.invalidate(member) from headwater.members(relation) member;
    return;
  end if;
  if known.seen_in is not null then
    perform headwater.follow_partitions(relation, entity.entity_type);
    perform headwater.set_trigger_modes(member) from headwater.members(relation) member;
    captured := (select bool_and(headwater.is_captured(member)) from headwater.members(relation) member);
    if known.captured and not captured then
      raise warning 'changes of table %, entity "%", are no longer captured: a trigger is gone or disabled', relation, entity.entity_type
        using hint = format('Once it is back, what changed meanwhile is recorded: select headwater.enable(%L). To end capture: select headwater.disable(%L).', relation::text, relation::text);
    end if;
    if captured and (differs or not known.captured) then
      if (select coalesce(sum(pg_relation_size(leaf)), 0) <= max_bytes_at_once from headwater.leaves(relation) leaf) then
        perform headwater.record_differences(entity.entity_type);
      else
        raise warning 'rows of table % are no longer what their events say', relation
          using hint = format('To record them as they are now, which reads the whole table: select headwater.reconcile(%L).', relation::text);
      end if;
    end if;
    begin
      perform headwater.key_of(relation, entity.key_columns);
    exception when invalid_table_definition then
      raise warning 'two rows of table % may have one key now: no unique index is left over %', relation, array_to_string(entity.key_columns, ', ')
        using hint = format('Entity "%s" is known by that key: create a unique index over these columns, not null, not partial, not deferrable.', entity.entity_type);
    end;
    for part in select c.oid from headwater.members(relation) member join pg_class c on c.oid = member where c.relreplident <> 'f' loop
      raise warning 'the replica identity of % is not full any more: its old rows are not in the write-ahead log', part
        using hint = format('alter table %s replica identity full;', part);
    end loop;
  end if;
  perform headwater.remember(relation);
  perform headwater.invalidate(member) from headwater.members(relation) member;
end
$$;
comment on function headwater.follow(regclass) is
  'Brings registry, triggers and grants of a table up to date with its definition, after DDL. Warns of what it cannot follow; an error where changes would escape capture.';
