-- What headwater.enable does once it has read `events`.
create function headwater.enable_table(
    relation regclass, entity text, events jsonb, key text[], tenant_column text, user_column text,
    exclude text[], notification text, backfill boolean, grant_client boolean)
  returns text
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
#variable_conflict use_variable
declare
  -- Bytes up to which enable writes the baselines itself; a larger table takes longer than its locks should last.
  max_bytes_at_once constant bigint := 4 * 1024 * 1024;
  old headwater.entity;
  new headwater.entity;
  columns text[];
  settable text[];
  part regclass;
  attached boolean;
  had_history boolean;
  refolds boolean;
  wrong text;
begin
  perform headwater.require_owner(relation);
  perform headwater.require_capturable(relation);
  perform headwater.require_read_committed();
  -- Neither ALTER TABLE nor another enable changes what is read from here on.
  perform headwater.lock_briefly(relation, 'share update exclusive');

  select * into old from headwater.entity e where e.relation = relation for update;
  new := old;
  new.relation := relation;
  new.enabled := true;
  new.entity_type := coalesce(entity, old.entity_type, headwater.singular((select relname::text from pg_class where oid = relation)));
  new.tenant_column := nullif(coalesce(tenant_column, old.tenant_column), '');
  new.user_column := nullif(coalesce(user_column, old.user_column), '');
  new.excluded := coalesce(exclude, old.excluded, '{}');
  new.notification := nullif(coalesce(notification, old.notification), '');
  new.schema_version := coalesce(old.schema_version, 1);
  new.upcasts := coalesce(old.upcasts, '{}');
  new.backfilled := coalesce(old.backfilled, false);
  new.enabled_at := case when old.enabled then old.enabled_at else clock_timestamp() end;

  if new.entity_type !~ '^[a-z][a-z0-9_]{0,62}$' then
    raise exception 'entity "%" cannot be a name: lower-case letters, digits and _ make up a name, a letter first', new.entity_type
      using errcode = 'invalid_name', hint = format('Choose one: select headwater.enable(%L, entity => ''…'').', relation::text);
  end if;
  if old.entity_type <> new.entity_type then
    raise exception 'table % is entity "%" already, and its history bears that name', relation, old.entity_type
      using errcode = 'object_not_in_prerequisite_state', hint = 'Leave the argument entity out.';
  end if;
  if exists (select from headwater.entity e join pg_class c on c.oid = e.relation
             where e.entity_type = new.entity_type and e.relation <> relation) then
    raise exception 'entity "%" belongs to table %', new.entity_type,
        (select e.relation from headwater.entity e where e.entity_type = new.entity_type)
      using errcode = 'duplicate_object', hint = format('Choose another name: select headwater.enable(%L, entity => ''…'').', relation::text);
  end if;

  select array_agg(attname::text order by attnum) into columns
  from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped;

  new.key_columns := headwater.key_of(relation, coalesce(key, old.key_columns));
  if old.key_columns <> new.key_columns
     and exists (select from headwater.event e where e.entity_type = new.entity_type) then
    raise exception 'the key of table % cannot change: its history names entities by %', relation, array_to_string(old.key_columns, ', ')
      using errcode = 'object_not_in_prerequisite_state', hint = 'Leave the argument key out.';
  end if;

  if array_position(exclude, null) is not null then
    raise exception 'exclude holds a null' using errcode = 'invalid_parameter_value', hint = 'Name columns, as in array[''note''].';
  end if;
  select name into wrong from unnest(exclude || new.tenant_column || new.user_column) name
  where name is not null and name <> all (columns) limit 1;
  if wrong is not null then
    raise exception 'table % has no column "%"', relation, wrong
      using errcode = 'undefined_column', hint = 'Its columns are ' || array_to_string(columns, ', ') || '.';
  end if;
  select name into wrong from unnest(new.excluded) name
  where name = any (new.key_columns || new.tenant_column || new.user_column) limit 1;
  if wrong is not null then
    raise exception 'column "%" cannot be excluded: it is the key, tenant or user of the entity', wrong
      using errcode = 'invalid_parameter_value';
  end if;
  if new.notification <> all (array['memory', 'redis', 'nats', 'noop']) then
    raise exception 'notification "%" is no backend', new.notification
      using errcode = 'invalid_parameter_value', hint = 'There are memory, redis, nats and noop.';
  end if;

  settable := headwater.settable_columns(relation, new.key_columns || new.tenant_column || new.user_column || new.excluded);
  new.rules := headwater.parse_rules(coalesce(events, old.rules, '["created", "updated", "deleted"]'), settable);

  -- No index finds the events of an entity by its name alone, but only what is enabled, or was, has some.
  had_history := old.entity_type is not null
                 or exists (select from headwater.entity e where e.entity_type = new.entity_type)
                 or exists (select from headwater.past_entity p where p.entity_type = new.entity_type);
  perform headwater.ensure_publications();
  attached := headwater.attach_capture(relation, new.entity_type);
  refolds := exists (select from jsonb_each(old.rules) r where new.rules -> r.key is distinct from r.value);
  if not attached and (refolds or (old.key_columns, old.tenant_column, old.user_column) is distinct from (new.key_columns, new.tenant_column, new.user_column)
                       or not (old.excluded <@ new.excluded and old.excluded @> new.excluded)) then
    -- Who is writing does so by the old registry: wait until that is done, and let nobody begin.
    perform headwater.lock_briefly(relation, 'share row exclusive');
  end if;

  if old.entity_type is null then
    -- A table that was dropped leaves its entity to the next one of that name.
    delete from headwater.entity e where e.entity_type = new.entity_type;
    delete from headwater.past_entity p where p.entity_type = new.entity_type;
    insert into headwater.entity select new.*;
  else
    -- In place: whoever waits for the row (upcast, compact, DDL that is followed) goes on with what it says now.
    update headwater.entity e
    set key_columns = new.key_columns, tenant_column = new.tenant_column, user_column = new.user_column, excluded = new.excluded,
        rules = new.rules, notification = new.notification, enabled = true, enabled_at = new.enabled_at
    where e.entity_type = new.entity_type;
  end if;
  perform headwater.set_identity(member, new.entity_type) from headwater.members(relation) member;
  perform headwater.remember(relation);
  for part in select relid from pg_partition_tree(relation) union select relation loop
    perform headwater.invalidate(part);
  end loop;

  -- The table was captured once, and then for a while it was not; or another was, under the same name; or its events
  -- stand under another tenant, or without a column that is shared now.
  if had_history and (attached or old.tenant_column is distinct from new.tenant_column or not old.excluded <@ new.excluded) then
    perform headwater.record_differences(new.entity_type);
  elsif refolds and had_history then
    -- What happened folds to something else by the new rules.
    if (select coalesce(sum(pg_relation_size(leaf)), 0) <= max_bytes_at_once from headwater.leaves(relation) leaf) then
      perform headwater.record_differences(new.entity_type);
    else
      raise warning 'rows of table % may no longer be what their events say by the new rules', relation
        using hint = format('To record them as they are now, which reads the whole table: select headwater.reconcile(%L).', relation::text);
    end if;
  end if;
  if coalesce(grant_client, old.entity_type is null or has_any_column_privilege('headwater_client', relation, 'select')) then
    perform headwater.grant_client(relation, new.excluded);
  end if;
  if backfill and not new.backfilled then
    if (select coalesce(sum(pg_relation_size(leaf)), 0) <= max_bytes_at_once from headwater.leaves(relation) leaf) then
      perform headwater.write_baselines(relation, leaf, null, null) from headwater.leaves(relation) leaf;
      update headwater.entity e set backfilled = true where e.entity_type = new.entity_type;
    else
      raise notice 'table % has many rows; their baselines are written as they change', relation
        using hint = format('To write them now, in small transactions: call headwater.backfill(%L).', relation::text);
    end if;
  end if;
  return new.entity_type;
end
$$;
comment on function headwater.enable_table(regclass, text, jsonb, text[], text, text, text[], text, boolean, boolean) is
  'Use headwater.enable.';
