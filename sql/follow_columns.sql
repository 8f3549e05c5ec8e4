create function headwater.follow_columns(relation regclass) returns boolean
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
#variable_conflict use_variable
declare
  known headwater.member;
  entity headwater.entity;
  renamed jsonb;
  gone text[];
  added text[];
  wrong text;
  differs boolean;
  steps jsonb;
begin
  select * into known from headwater.member m where m.relation = relation;
  select * into entity from headwater.entity e where e.relation = relation for update;
  select jsonb_object_agg(k.value ->> 'name', a.attname) filter (where a.attname <> k.value ->> 'name'),
         array_agg(k.value ->> 'name') filter (where a.attnum is null),
         coalesce(bool_or(a.atttypid <> (k.value ->> 'type')::oid and a.attname <> all (entity.excluded)), false)
  into renamed, gone, differs
  from jsonb_each(known.columns) k
  left join pg_attribute a on a.attrelid = relation and a.attnum = k.key::int2 and not a.attisdropped;

  if renamed is not null then
    entity.key_columns := array(select coalesce(renamed ->> c.name, c.name)
                                from unnest(entity.key_columns) with ordinality c (name, place) order by c.place);
    entity.tenant_column := coalesce(renamed ->> entity.tenant_column, entity.tenant_column);
    entity.user_column := coalesce(renamed ->> entity.user_column, entity.user_column);
    entity.excluded := array(select coalesce(renamed ->> c.name, c.name)
                             from unnest(entity.excluded) with ordinality c (name, place) order by c.place);
    entity.rules := headwater.rename_fields(entity.rules, renamed);
    update headwater.entity e
    set key_columns = entity.key_columns, tenant_column = entity.tenant_column, user_column = entity.user_column,
        excluded = entity.excluded, rules = entity.rules
    where e.entity_type = entity.entity_type;
  end if;
  -- What stands in the log, and what clients of before still send: under the old name; or of a column that is gone, whose value
  -- another that comes to bear its name must not inherit.
  select jsonb_agg(s.step order by s.place) into steps
  from (
    select 0, jsonb_build_object('step', 'remove', 'field', headwater.as_field(name))
    from unnest(gone) name
    where name <> all (array_remove(entity.excluded || entity.key_columns || entity.tenant_column || entity.user_column, null))
    union all
    select 1, jsonb_build_object('step', 'rename', 'field', headwater.as_field(r.key), 'to', headwater.as_field(r.value))
    from jsonb_each_text(renamed) r where r.value <> all (entity.excluded)
  ) s (place, step);
  if steps is not null then
    perform headwater.upcast(shape, entity.schema_version, steps)
    from (select entity.entity_type
          union all
          select entity.entity_type || '.' || event.key from jsonb_each(entity.rules) event
          where event.value ->> 'rule' in ('create', 'set')) s (shape);
  end if;

  for wrong in
    select format('column %I, its %s', c.name, c.part)
    from (select name, 'key' from unnest(entity.key_columns) name
          union all values (entity.tenant_column, 'tenant'), (entity.user_column, 'user')) c (name, part)
    where c.name = any (gone)
  loop
    raise warning 'table % has lost %: until that is mended, changes of the table fail', relation, wrong
      using hint = format('Name the column that took its place (select headwater.enable(%L, key => …, tenant_column => …, user_column => …); an empty text means none), or end capture: select headwater.disable(%L).', relation::text, relation::text);
  end loop;
  for wrong in
    select event.key from jsonb_each(entity.rules) event
    where event.value ->> 'field' = any (gone)
       or exists (select from jsonb_array_elements_text(event.value -> 'fields') f where f = any (gone))
  loop
    raise warning 'event "%" of entity "%" changes a column that is gone', wrong, entity.entity_type
      using hint = format('Declare the events anew: select headwater.enable(%L, events => …).', relation::text);
  end loop;

  -- The name of an excluded column that was dropped stays excluded, for whatever column bears it next.
  select array_agg(a.attname::text order by a.attnum),
         differs or coalesce(bool_or(a.atthasdef or a.atthasmissing or a.attgenerated <> '' or a.attidentity <> ''), false)
  into added, differs
  from pg_attribute a
  where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and not known.columns ? a.attnum::text
    and a.attname <> all (entity.excluded);
  -- Where columns are excluded, the client's grant is column by column.
  if added is not null and has_any_column_privilege('headwater_client', relation, 'select')
     and not has_table_privilege('headwater_client', relation, 'select') then
    execute (select format('grant select (%1$s), insert (%1$s), update (%1$s) on %2$s to headwater_client',
                           string_agg(quote_ident(name), ', '), relation) from unnest(added) name);
  end if;
  return differs;
end
$$;
comment on function headwater.follow_columns(regclass) is
  'Brings the registry and the client''s grants up to date with the columns of a table. Returns whether its rows may now differ from the fold of their events.';
