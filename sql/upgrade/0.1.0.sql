-- Roles belong to the cluster, not to the database: they may be there already, and stay when the extension goes.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['headwater_client', 'headwater_reader', 'headwater_writer', 'headwater_admin'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
      execute pg_catalog.format('create role %I nologin', wanted);
    end if;
  end loop;
end
$$;

-- The streamer reads, ingests, and writes user tables as headwater_client; so does an admin who retries a dead letter.
grant headwater_reader, headwater_client to headwater_writer;
grant headwater_reader, headwater_client to headwater_admin;
grant usage on schema headwater to headwater_reader, headwater_writer, headwater_admin;
create table headwater.meta (
  only_row boolean primary key default true check (only_row),
  epoch bigint not null default 1,
  created_at timestamptz not null default pg_catalog.clock_timestamp()
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
grant select on headwater.meta to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.meta', '');
create table headwater.entity (
  entity_type text primary key check (entity_type operator(pg_catalog.~) '^[a-z][a-z0-9_]{0,62}$'),
  relation regclass not null unique,
  key_columns text[] not null,
  tenant_column text,
  user_column text,
  excluded text[] not null default '{}',
  rules jsonb not null,
  schema_version int not null default 1,
  notification text,
  enabled boolean not null default true,
  backfilled boolean not null default false,
  enabled_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table headwater.entity is 'The registry: which table is which entity, and how its events change it. Written by headwater.enable and headwater.disable.';
comment on column headwater.entity.rules is 'Event names and their merge rules, in the long form.';
comment on column headwater.entity.notification is 'Notification backend for this entity; null means the streamer''s own.';
comment on column headwater.entity.backfilled is 'Every row that was there before has its baseline. Until then a row''s first captured change writes it.';
grant select on headwater.entity to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.entity', '');
create sequence headwater.event_position_seq cache 1;
comment on sequence headwater.event_position_seq is 'Positions of events. Gaps are normal: a transaction that rolls back leaves one.';

create table headwater.event (
  position bigint primary key default pg_catalog.nextval('headwater.event_position_seq'),
  id uuid not null,
  tenant_id text,
  entity_type text not null,
  entity_id text not null,
  event_type text not null,
  payload jsonb not null,
  schema_version int not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null,
  user_id text,
  client_id text,
  source text not null check (source in ('client', 'sql', 'capture')),
  applies boolean not null
);
alter sequence headwater.event_position_seq owned by headwater.event.position;

-- Reader: the fold (all events of an entity in their order), its head (the last of them), history.
create index event_entity on headwater.event (entity_type, entity_id, occurred_at, id);

comment on table headwater.event is 'Every change as an immutable event, in the transaction that made it. Append-only.';
comment on column headwater.event.position is 'Order for paging. Drawn under the entity''s lock: the positions of one entity rise in commit order.';
comment on column headwater.event.id is 'The client''s id of the event (UUIDv7), or one made here.';
comment on column headwater.event.tenant_id is 'Who may see it; null where the table has no tenant column or the row no tenant.';
comment on column headwater.event.entity_id is 'The row''s key as text; the parts of a composite key are joined by /, with ~ as ~0 and / as ~1.';
comment on column headwater.event.payload is 'What happened. int8 and numeric values are decimal strings.';
comment on column headwater.event.occurred_at is 'When it happened. Together with id the order of the fold.';
comment on column headwater.event.recorded_at is 'When the server took it.';
comment on column headwater.event.source is 'client: POST /events/batch. sql: headwater.emit. capture: the triggers.';
comment on column headwater.event.applies is 'false: history only, no fold reads it.';

grant select on headwater.event to headwater_reader;
grant select on sequence headwater.event_position_seq to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.event', '');
select pg_catalog.pg_extension_config_dump('headwater.event_position_seq', '');
create table headwater.receipt (
  tenant_id text,
  event_id uuid not null,
  idempotency_key text,
  digest bytea not null,
  code text,
  reject jsonb,
  recorded_at timestamptz not null default pg_catalog.clock_timestamp(),
  unique nulls not distinct (event_id, tenant_id)
);
create unique index receipt_idempotency_key on headwater.receipt (idempotency_key, tenant_id) nulls not distinct
  where idempotency_key is not null;
comment on table headwater.receipt is 'What became of each event that a client sent, so that a retry gets the first answer.';
comment on column headwater.receipt.digest is 'SHA-256 of the event as sent: the same id with another digest is a conflict.';
comment on column headwater.receipt.code is 'null: accepted. Else the code of the reject.';
comment on column headwater.receipt.reject is 'The reject as it was answered.';
select pg_catalog.pg_extension_config_dump('headwater.receipt', '');
create table headwater.rejected_event (
  id uuid not null,
  tenant_id text,
  event jsonb not null,
  claims jsonb not null,
  code text not null,
  reason text not null,
  rejected_at timestamptz not null default pg_catalog.clock_timestamp(),
  unique nulls not distinct (id, tenant_id)
);
comment on table headwater.rejected_event is 'Dead letters: events that a client sent and the server refused, as they were sent.';
comment on column headwater.rejected_event.claims is 'What ingest was told of the sender: a retry is judged as the sender was.';
grant select on headwater.rejected_event to headwater_admin;
select pg_catalog.pg_extension_config_dump('headwater.rejected_event', '');
create table headwater.snapshot (
  entity_type text not null,
  entity_id text not null,
  tenant_id text,
  state jsonb,
  occurred_at timestamptz,
  id uuid,
  position bigint not null default 0,
  unique nulls not distinct (entity_type, entity_id, tenant_id)
);
comment on table headwater.snapshot is 'States beneath the events. A baseline is a row as it was before its first event.';
comment on column headwater.snapshot.state is 'The state; null where the entity did not exist.';
comment on column headwater.snapshot.occurred_at is 'The last event folded into the state; null for a baseline, which has none.';
grant select on headwater.snapshot to headwater_reader;
select pg_catalog.pg_extension_config_dump('headwater.snapshot', '');
create function headwater.refuse_change() returns trigger
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
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
create function headwater.caller() returns name
  language c stable strict
as 'MODULE_PATHNAME', 'caller_name_wrapper';
comment on function headwater.caller() is 'The role that called from outside, seen from within a security definer function (SET ROLE counts).';
create function headwater.uuid_v7() returns uuid
  language c volatile strict parallel safe
as 'MODULE_PATHNAME', 'uuid_v7_wrapper';
comment on function headwater.uuid_v7() is 'A new UUIDv7 (RFC 9562). Those of one backend rise.';
create function headwater.invalidate(relation regclass) returns void
  language c volatile strict
as 'MODULE_PATHNAME', 'invalidate_wrapper';
comment on function headwater.invalidate(regclass) is 'Makes every backend forget what it cached of a table and its registry entry, once this transaction commits.';
create function headwater.parse_rules(events jsonb, settable text[]) returns jsonb
  language c stable strict parallel safe set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'parse_rules_wrapper';
comment on function headwater.parse_rules(jsonb, text[]) is 'Reads a declaration of events, either form, and returns the long form. Errors name the event and what is wrong with it.';
create function headwater.state_expression(relation regclass, excluded text[], alias text) returns text
  language c stable strict set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'state_expression_wrapper';
comment on function headwater.state_expression(regclass, text[], text) is 'SQL of a row''s state as jsonb, for the row called alias.';
create function headwater.entity_id_expression(relation regclass, key_columns text[], alias text) returns text
  language c stable strict set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'entity_id_expression_wrapper';
comment on function headwater.entity_id_expression(regclass, text[], text) is 'SQL of a row''s entity id, for the row called alias.';
create function headwater.singular(name text) returns text
  language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
  select case
    when name ~ '[^aeiou]ies$' then regexp_replace(name, 'ies$', 'y')
    when name ~ '(ch|sh|ss|x|z)es$' then regexp_replace(name, 'es$', '')
    when name ~ '(ss|us|is)$' then name
    else regexp_replace(name, 's$', '')
  end
$$;
comment on function headwater.singular(text) is 'The entity that a table''s name suggests: orders → order, categories → category, pgbench_branches → pgbench_branch.';
create function headwater.require_owner(relation regclass) returns void
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if not (select pg_has_role(headwater.caller(), c.relowner, 'usage') from pg_class c where c.oid = relation) then
    raise exception 'must be owner of table %', relation using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function headwater.require_owner(regclass) is 'Raises an error unless the caller owns the table.';
create function headwater.require_capturable(relation regclass) returns void
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  class pg_class;
begin
  select * into class from pg_class where oid = relation;
  if class.relkind not in ('r', 'p') then
    raise exception '% is not a table', relation
      using errcode = 'wrong_object_type', hint = 'Views, foreign tables and sequences have no row changes to capture; enable the table beneath.';
  end if;
  if class.relpersistence <> 'p' then
    raise exception 'table % is %', relation, case class.relpersistence when 'u' then 'unlogged' else 'temporary' end
      using errcode = 'wrong_object_type', hint = 'What is not in the write-ahead log cannot be synced.';
  end if;
  if class.relispartition then
    raise exception 'table % is a partition', relation
      using errcode = 'wrong_object_type',
            hint = format('Enable the table that it belongs to: %s.', (select partition_root::text from pg_partition_root(relation) partition_root));
  end if;
  if class.relkind = 'r' and exists (select from pg_inherits where inhparent = relation) then
    raise exception 'tables inherit from table %', relation
      using errcode = 'wrong_object_type', hint = 'Rows of its children would escape capture when they are written there. Partitioned tables can be enabled; tables with children cannot.';
  end if;
  if class.relnamespace in ('pg_catalog'::regnamespace, 'headwater'::regnamespace) then
    raise exception 'table % belongs to the system', relation using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function headwater.require_capturable(regclass) is 'Raises an error unless changes of the table can be captured.';
create function headwater.members(relation regclass) returns setof regclass
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select relation
  union
  select t.relid from pg_partition_tree(relation) t join pg_class c on c.oid = t.relid where c.relkind in ('r', 'p')
$$;
comment on function headwater.members(regclass) is 'A table and, if it is partitioned, its partitions: a statement fires the triggers of the one that it names.';
create function headwater.leaves(relation regclass) returns setof regclass
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select member from headwater.members(relation) member join pg_class c on c.oid = member where c.relkind = 'r'
$$;
comment on function headwater.leaves(regclass) is 'The tables that hold the rows of a table.';
create function headwater.key_of(relation regclass, wanted text[]) returns text[]
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  found_key text[];
begin
  -- Without a wish, the primary key. Else any unique index over just these columns, all of them not null.
  select keys.columns into found_key
  from pg_index i
  cross join lateral (
    select array_agg(a.attname::text order by k.place) as columns, bool_and(a.attnotnull) as not_null
    from unnest(i.indkey::int2[]) with ordinality k (attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where k.place <= i.indnkeyatts
  ) keys
  where i.indrelid = relation and i.indisunique and i.indisvalid and i.indimmediate
    and i.indpred is null and i.indexprs is null and keys.not_null
    and case when wanted is null then i.indisprimary
             else keys.columns @> wanted and keys.columns <@ wanted and cardinality(keys.columns) = cardinality(wanted) end
  limit 1;

  if found_key is null and wanted is null then
    raise exception 'table % has no primary key', relation
      using errcode = 'invalid_table_definition',
            detail = 'An entity is known by its key: without one, its events could not be told from those of other rows.',
            hint = format('Add one (alter table %s add primary key (…), or add column id bigint generated always as identity primary key), or name the not-null columns of a unique index: select headwater.enable(%L, key => array[''…'']).', relation, relation::text);
  elsif found_key is null then
    raise exception 'the columns % are no key of table %', array_to_string(wanted, ', '), relation
      using errcode = 'invalid_table_definition',
            hint = 'A key is made of the not-null columns of a unique index (not partial, not deferrable, no expressions).';
  end if;
  return coalesce(wanted, found_key);
end
$$;
comment on function headwater.key_of(regclass, text[]) is 'The key columns of a table: its primary key, or those wanted, if a unique index makes them one.';
create function headwater.settable_columns(relation regclass, reserved text[]) returns text[]
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(attname::text order by attnum), '{}')
  from pg_attribute
  where attrelid = relation and attnum > 0 and not attisdropped and attgenerated = '' and attidentity <> 'a'
    and attname::text <> all (array_remove(reserved, null))
$$;
comment on function headwater.settable_columns(regclass, text[]) is 'The columns that clients'' events may set: all but the reserved (key, tenant, user, excluded) and generated ones.';
create function headwater.ensure_publications() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if (select count(*) = 2 from pg_publication where pubname in ('headwater_events', 'headwater_tables'))
     and exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                 where p.pubname = 'headwater_events' and r.prrelid = 'headwater.event'::regclass) then
    return;
  end if;
  -- Not members of the extension (Postgres has no such thing), so that a dump carries them; hence "ensure".
  perform pg_advisory_xact_lock(hashtextextended('headwater.ensure_publications', 0));
  if not exists (select from pg_publication where pubname = 'headwater_events') then
    create publication headwater_events with (publish = 'insert');
  end if;
  if not exists (select from pg_publication where pubname = 'headwater_tables') then
    create publication headwater_tables;
  end if;
  if not exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'headwater_events' and r.prrelid = 'headwater.event'::regclass
  ) then
    alter publication headwater_events add table headwater.event;
  end if;
end
$$;
comment on function headwater.ensure_publications() is
  'Creates the publications headwater_events and headwater_tables where they are missing. Before the slot: on Postgres 15 a slot that is older than its publication fails at every start.';
create function headwater.lock_briefly(relation regclass) returns void
  language plpgsql set search_path = pg_catalog, pg_temp
  -- Writers wait behind this lock while it waits behind readers: better to let go and try again.
  set lock_timeout = '1s'
as $$
declare
  attempts constant int := 10;
begin
  for attempt in 1..attempts loop
    begin
      execute format('lock table %s in access exclusive mode', relation);
      return;
    exception when lock_not_available then
      if attempt = attempts then
        raise exception 'table % is in use: no lock on it in % tries of %', relation, attempts, current_setting('lock_timeout')
          using errcode = 'lock_not_available', hint = 'Try again when long transactions on it have ended; pg_stat_activity shows them.';
      end if;
      perform pg_sleep(0.1 * attempt);
    end;
  end loop;
end
$$;
comment on function headwater.lock_briefly(regclass) is 'Locks a table for a change of its definition, without making its users wait long.';
create function headwater.capture() returns trigger
  language c security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'capture_wrapper';
comment on function headwater.capture() is 'Trigger: records each changed row as one event. Attached by headwater.enable.';
create function headwater.attach_capture(relation regclass, entity text) returns boolean
  language plpgsql set search_path = pg_catalog, pg_temp
  set client_min_messages = warning
as $$
declare
  part regclass;
  published boolean;
begin
  published := exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                       where p.pubname = 'headwater_tables' and r.prrelid = relation);
  if published and not exists (
    select from headwater.members(relation) member
    where (select count(*) from pg_trigger t
           where t.tgrelid = member and t.tgfoid = 'headwater.capture()'::regprocedure and t.tgenabled in ('O', 'A')) < 4
       or (select relreplident from pg_class where oid = member) <> 'f'
  ) then
    return false;
  end if;

  perform headwater.lock_briefly(relation);
  for part in select headwater.members(relation) loop
    execute format('alter table %s replica identity full', part);
    execute format('drop trigger if exists headwater_insert on %s', part);
    execute format('drop trigger if exists headwater_update on %s', part);
    execute format('drop trigger if exists headwater_delete on %s', part);
    execute format('drop trigger if exists headwater_truncate on %s', part);
    execute format('create trigger headwater_insert after insert on %s referencing new table as new_rows for each statement execute function headwater.capture(%L)', part, entity);
    execute format('create trigger headwater_update after update on %s referencing old table as old_rows new table as new_rows for each statement execute function headwater.capture(%L)', part, entity);
    execute format('create trigger headwater_delete after delete on %s referencing old table as old_rows for each statement execute function headwater.capture(%L)', part, entity);
    execute format('create trigger headwater_truncate before truncate on %s for each statement execute function headwater.capture(%L)', part, entity);
  end loop;
  if not published then
    execute format('alter publication headwater_tables add table %s', relation);
  end if;
  return true;
end
$$;
comment on function headwater.attach_capture(regclass, text) is 'Triggers, replica identity and publication of a table; nothing, and no lock, where all stand already. Returns whether something was missing.';
create function headwater.grant_client(relation regclass, excluded text[]) returns void
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  shared text;
  sequence regclass;
begin
  if cardinality(excluded) = 0 then
    execute format('grant select, insert, update, delete on %s to headwater_client', relation);
  else
    select string_agg(format('%I', attname), ', ' order by attnum) into shared
    from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped and attname <> all (excluded);
    execute format('revoke select, insert, update on %s from headwater_client', relation);
    execute format('grant select (%1$s), insert (%1$s), update (%1$s), delete on %2$s to headwater_client', shared, relation);
  end if;
  execute format('grant usage on schema %I to headwater_client', (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation));
  for sequence in
    select d.objid from pg_depend d join pg_class c on c.oid = d.objid
    where d.classid = 'pg_class'::regclass and d.refobjid = relation and d.refobjsubid > 0 and d.deptype in ('a', 'i') and c.relkind = 'S'
  loop
    execute format('grant usage on sequence %s to headwater_client', sequence);
  end loop;
end
$$;
comment on function headwater.grant_client(regclass, text[]) is 'Lets headwater_client read and write a table, but for its excluded columns.';
create function headwater.write_baselines(relation regclass, leaf regclass, first_page bigint, end_page bigint) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp set "TimeZone" = 'UTC' set "DateStyle" = 'ISO'
  set "IntervalStyle" = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex'
as $$
declare
  entity headwater.entity;
  written bigint;
begin
  select * into entity from headwater.entity e where e.relation = write_baselines.relation;
  -- A row that has an event has either its baseline already or none beneath its `created`.
  execute format(
    'insert into headwater.snapshot (entity_type, entity_id, tenant_id, state)
     select %1$L, row_key.id, row_key.tenant, %3$s
     from only %4$s t cross join lateral (select %5$s as id, (%2$s)::text as tenant) row_key
     where ($1 is null or t.ctid >= $1) and ($2 is null or t.ctid < $2)
       and not exists (select from headwater.event e where e.entity_type = %1$L and e.entity_id = row_key.id
                         and e.tenant_id is not distinct from row_key.tenant and e.applies)
     on conflict do nothing',
    entity.entity_type,
    case when entity.tenant_column is null then 'null' else format('t.%I::text', entity.tenant_column) end,
    headwater.state_expression(leaf, entity.excluded, 't'),
    leaf,
    headwater.entity_id_expression(leaf, entity.key_columns, 't'))
  using case when first_page is not null then format('(%s,0)', first_page)::tid end,
        case when end_page is not null then format('(%s,0)', end_page)::tid end;
  get diagnostics written = row_count;
  return written;
end
$$;
comment on function headwater.write_baselines(regclass, regclass, bigint, bigint) is
  'Records the rows in a range of a table''s pages as baselines; those of the whole table without a range. Returns how many were missing.';
create function headwater.reconcile(relation regclass) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp set "TimeZone" = 'UTC' set "DateStyle" = 'ISO, DMY'
  set "IntervalStyle" = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex'
as $$
declare
  entity headwater.entity;
  leaf regclass;
  now timestamptz := clock_timestamp();
  total bigint := 0;
begin
  select * into entity from headwater.entity e where e.relation = reconcile.relation;
  create temp table headwater_rows (entity_id text, tenant_id text, state jsonb) on commit drop;
  for leaf in select headwater.leaves(relation) loop
    execute format('insert into pg_temp.headwater_rows select %s, %s, %s from only %s t',
      headwater.entity_id_expression(leaf, entity.key_columns, 't'),
      case when entity.tenant_column is null then 'null' else format('t.%I::text', entity.tenant_column) end,
      headwater.state_expression(leaf, entity.excluded, 't'), leaf);
  end loop;
  insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                               occurred_at, recorded_at, source, applies)
  select headwater.uuid_v7(), d.tenant_id, entity.entity_type, d.entity_id, entity.entity_type || '.' || d.name, d.payload,
         entity.schema_version, now, now, 'capture', true
  from (
    select k.tenant_id, k.entity_id,
           case when r.state is null then 'deleted' when f.state is null then 'created' else 'updated' end as name,
           coalesce(r.state, '{}') as payload
    from (
      select entity_id, tenant_id from pg_temp.headwater_rows
      union
      select e.entity_id, e.tenant_id from headwater.event e where e.entity_type = entity.entity_type and e.applies
      union
      select s.entity_id, s.tenant_id from headwater.snapshot s where s.entity_type = entity.entity_type
    ) k
    left join pg_temp.headwater_rows r on r.entity_id = k.entity_id and r.tenant_id is not distinct from k.tenant_id
    cross join lateral (select headwater.materialize(entity.entity_type, k.entity_id, null, k.tenant_id) as state) f
    where r.state is distinct from f.state
      -- Its first change will write the baseline of a row that has none yet.
      and (entity.backfilled or f.state is not null)
  ) d;
  get diagnostics total = row_count;
  drop table pg_temp.headwater_rows;
  return total;
end
$$;
comment on function headwater.reconcile(regclass) is
  'Records, as captured events, what changed in a table while it was not captured: rows that differ from the fold of their events. Returns how many.';
-- What headwater.enable does once it has read `events`.
create function headwater.enable_table(
    relation regclass, entity text, events jsonb, key text[], tenant_column text, user_column text,
    exclude text[], notification text, backfill boolean, grant_client boolean)
  returns text
  language plpgsql set search_path = pg_catalog, pg_temp
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
  wrong text;
begin
  perform headwater.require_owner(relation);
  perform headwater.require_capturable(relation);

  select * into old from headwater.entity e where e.relation = relation;
  new := old;
  new.relation := relation;
  new.enabled := true;
  new.entity_type := coalesce(entity, old.entity_type, headwater.singular((select relname::text from pg_class where oid = relation)));
  new.tenant_column := nullif(coalesce(tenant_column, old.tenant_column), '');
  new.user_column := nullif(coalesce(user_column, old.user_column), '');
  new.excluded := coalesce(exclude, old.excluded, '{}');
  new.notification := nullif(coalesce(notification, old.notification), '');
  new.schema_version := coalesce(old.schema_version, 1);
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

  select name into wrong from unnest(new.excluded || new.tenant_column || new.user_column) name
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

  perform headwater.ensure_publications();
  attached := headwater.attach_capture(relation, new.entity_type);

  -- A table that was dropped leaves its entity to the next one of that name.
  delete from headwater.entity e where e.entity_type = new.entity_type;
  insert into headwater.entity select new.*;
  for part in select relid from pg_partition_tree(relation) union select relation loop
    perform headwater.invalidate(part);
  end loop;

  -- The table was captured once, and then for a while it was not.
  if attached and old.entity_type is not null then
    perform headwater.reconcile(relation);
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
create function headwater.enable(
    "table" regclass,
    entity text default null,
    events "any" default null::jsonb,
    key text[] default null,
    tenant_column text default null,
    user_column text default null,
    exclude text[] default null,
    notification text default null,
    backfill boolean default true,
    grant_client boolean default null)
  returns text
  language c security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'enable_wrapper';
comment on function headwater.enable(regclass, text, "any", text[], text, text, text[], text, boolean, boolean) is
  'Makes a table syncable: every change of it becomes an event, and clients may send the events that you declare.
entity: its name; the table''s, in the singular, if you name none.
events: array[''created'', ''moved'', ''deleted''], or jsonb with a merge rule for each; created, updated and deleted if you name none.
key: the columns of a unique index; the primary key if you name none.
tenant_column, user_column: who may see a row; who made it.
exclude: columns that never leave the table.
notification: a backend of its own for this entity (memory, redis, noop).
backfill: record the rows that are there as baselines, at once where they are few (else: call headwater.backfill).
grant_client: grant the table to headwater_client, the role under which clients'' events are applied; true if you do not say, and later as it is.
A second call alters what it names and keeps the rest; an empty text or array clears. Returns the entity.
Example: select headwater.enable(''orders'', events => ''{"created": {"rule": "create"}, "item_added": {"rule": "append", "field": "items", "value": "item"}}'', tenant_column => ''tenant_id'');';
create function headwater.disable("table" regclass) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  part regclass;
  trigger_name name;
begin
  perform headwater.require_owner("table");
  if not exists (select from headwater.entity e where e.relation = "table" and e.enabled) then
    raise exception 'table % is not enabled', "table"
      using errcode = 'object_not_in_prerequisite_state', hint = 'select * from headwater.syncable_tables() lists those that are.';
  end if;
  for part, trigger_name in
    select t.tgrelid, t.tgname from pg_trigger t
    where t.tgfoid = 'headwater.capture()'::regprocedure and not t.tgisinternal
      and t.tgrelid in (select "table" union select relid from pg_partition_tree("table"))
  loop
    execute format('drop trigger %I on %s', trigger_name, part);
  end loop;
  if exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'headwater_tables' and r.prrelid = "table"
  ) then
    execute format('alter publication headwater_tables drop table %s', "table");
  end if;
  update headwater.entity e set enabled = false where e.relation = "table";
  perform headwater.invalidate("table");
end
$$;
comment on function headwater.disable(regclass) is 'Ends capture of a table. Its history stays, and headwater.enable goes on with it.';
create function headwater.publish("table" regclass) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  part regclass;
begin
  perform headwater.require_owner("table");
  perform headwater.require_capturable("table");
  perform headwater.ensure_publications();
  if exists (select from headwater.members("table") member join pg_class c on c.oid = member where c.relreplident <> 'f') then
    perform headwater.lock_briefly("table");
    for part in select headwater.members("table") loop
      execute format('alter table %s replica identity full', part);
    end loop;
  end if;
  if not exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'headwater_tables' and r.prrelid = "table"
  ) then
    execute format('alter publication headwater_tables add table %s', "table");
  end if;
end
$$;
comment on function headwater.publish(regclass) is
  'Puts a table''s row changes on the stream (replica identity full, publication headwater_tables) without recording events of them.';
create procedure headwater.backfill("table" regclass)
  language plpgsql
as $$
#variable_conflict use_column
declare
  -- A batch reads at most this many pages (8 MiB) in one transaction.
  pages_per_batch constant bigint := 1024;
  leaf pg_catalog.regclass;
  pages bigint;
  page bigint;
  written bigint := 0;
begin
  -- No `set` clause: a procedure with one may not commit. So every name is qualified.
  perform headwater.require_owner("table");
  if not exists (select from headwater.entity e where e.relation operator(pg_catalog.=) "table" and e.enabled) then
    raise exception 'table % is not enabled', "table"
      using errcode = 'object_not_in_prerequisite_state', hint = pg_catalog.format('select headwater.enable(%L) enables it.', "table"::text);
  end if;
  for leaf in select l from headwater.leaves("table") l loop
    -- Rows that change meanwhile get their baseline from capture, wherever they move: the pages there are now suffice.
    pages := pg_catalog.pg_relation_size(leaf) operator(pg_catalog./) pg_catalog.current_setting('block_size')::pg_catalog.int8;
    page := 0;
    while page operator(pg_catalog.<=) pages loop
      written := written operator(pg_catalog.+) headwater.write_baselines("table", leaf, page, page operator(pg_catalog.+) pages_per_batch);
      page := page operator(pg_catalog.+) pages_per_batch;
      commit;
      raise notice '%: % of % pages, % baselines', leaf, least(page, pages), pages, written;
    end loop;
  end loop;
  update headwater.entity e set backfilled = true where e.relation operator(pg_catalog.=) "table";
  perform headwater.invalidate("table");
  commit;
end
$$;
comment on procedure headwater.backfill(regclass) is
  'Writes baselines for the rows that a table had before it was enabled, in batches that commit, while others write. To be called outside a transaction block; a call that was broken off can be made again.';
create function headwater.syncable_tables()
  returns table (relation regclass, entity text, key_columns text[], tenant_column text, user_column text,
                 excluded text[], rules jsonb, notification text, backfilled boolean)
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select e.relation, e.entity_type, e.key_columns, e.tenant_column, e.user_column, e.excluded, e.rules, e.notification, e.backfilled
  from headwater.entity e where e.enabled order by e.entity_type
$$;
comment on function headwater.syncable_tables() is 'The enabled tables: entity, key, tenant, rules.';
create function headwater.history(entity text, entity_id text, since timestamptz default null, "limit" int default 1000)
  returns setof headwater.event
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select e.* from headwater.event e
  where e.entity_type = history.entity and e.entity_id = history.entity_id
    and (history.since is null or e.occurred_at >= history.since)
  order by e.occurred_at, e.id
  limit history."limit"
$$;
comment on function headwater.history(text, text, timestamptz, int) is
  'The audit trail of one entity, oldest first: select event_type, payload, user_id, occurred_at from headwater.history(''order'', ''17'').';
create function headwater.materialize(entity text, entity_id text, as_of timestamptz default null, tenant_id text default null) returns jsonb
  language c stable set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'materialize_wrapper';
comment on function headwater.materialize(text, text, timestamptz, text) is
  'The state of an entity: its applying events in the order (occurred_at, id) over its baseline; null where it does not exist.
as_of: only what had happened by then. tenant_id: whose, where one id stands in several tenants; else the latest event''s.';
create function headwater.emit(
    event_type text,
    entity_id text,
    payload jsonb default '{}',
    user_id text default null,
    apply boolean default false,
    tenant_id text default null,
    client_id text default null,
    id uuid default null,
    schema_version int default null)
  returns uuid
  language c volatile security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'emit_wrapper';
comment on function headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int) is
  'Records a domain event in the caller''s transaction: an outbox without a second write. Returns its id.
apply => false (default): history only, for you change the row yourself and capture sees that.
apply => true: the event changes the row by its merge rule, under the caller''s own rights.
Example: select headwater.emit(''order.receipt_printed'', ''17'', ''{"copies": 2}'');';
create function headwater.ingest(events jsonb, claims jsonb) returns jsonb
  language c volatile strict security definer set search_path = pg_catalog, pg_temp
  -- Who waits for a locked row keeps a connection busy: rather let the client send the batch again.
  set lock_timeout = '5s'
as 'MODULE_PATHNAME', 'ingest_wrapper';
comment on function headwater.ingest(jsonb, jsonb) is
  'Takes a batch of clients'' events: stores each and applies it to its row, or rejects it, alone. What POST /events/batch calls.
claims: {"sub", "tenant_id", "role", "trusted"}; with "trusted": true the events'' own tenant_id and user_id count.
Returns {"accepted": [id…], "rejected": [{"id", "index", "code", "reason", …}]}. The same event sent again gets the same answer.';
create function headwater.retry_rejected(id uuid, tenant_id text default null) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  letter headwater.rejected_event;
begin
  delete from headwater.rejected_event r
  where r.id = retry_rejected.id and r.tenant_id is not distinct from retry_rejected.tenant_id returning r.* into letter;
  if letter.id is null then
    raise exception 'no dead letter has the id %', id
      using errcode = 'no_data_found', hint = 'select id, tenant_id, code, reason from headwater.rejected_event lists them; name the tenant as well.';
  end if;
  -- The new verdict takes the place of the old one.
  delete from headwater.receipt r where r.event_id = letter.id and r.tenant_id is not distinct from letter.tenant_id;
  return headwater.ingest(jsonb_build_array(letter.event), letter.claims);
end
$$;
comment on function headwater.retry_rejected(uuid, text) is
  'Tries a dead letter again, under its own id and for its sender, and returns what headwater.ingest says. What is refused again is a dead letter again.';
create function headwater.discard_rejected(id uuid, tenant_id text default null) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  delete from headwater.rejected_event r
  where r.id = discard_rejected.id and r.tenant_id is not distinct from discard_rejected.tenant_id;
  if not found then
    raise exception 'no dead letter has the id %', id
      using errcode = 'no_data_found', hint = 'select id, tenant_id, code, reason from headwater.rejected_event lists them; name the tenant as well.';
  end if;
end
$$;
comment on function headwater.discard_rejected(uuid, text) is 'Removes a dead letter. Its receipt stays: the client that sends the event again gets the same refusal.';
create function headwater.check() returns table (problem text, statement text)
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  with enabled as (
    select e.*, e.relation::text as name, c.oid is not null as there
    from headwater.entity e left join pg_class c on c.oid = e.relation
    where e.enabled
  ),
  members as (
    select e.entity_type, e.name, member, c.relreplident
    from enabled e cross join lateral headwater.members(e.relation) member join pg_class c on c.oid = member
    where e.there
  )
  select format('Postgres runs with wal_level=%s; the streamer needs logical', current_setting('wal_level')),
         'alter system set wal_level = ''logical''; -- then restart Postgres'
  where current_setting('wal_level') <> 'logical'
  union all
  select format('the publication %s is missing', wanted), 'select headwater.ensure_publications();'
  from unnest(array['headwater_events', 'headwater_tables']) wanted
  where not exists (select from pg_publication p where p.pubname = wanted)
  union all
  select 'the publication headwater_events does not carry the events', 'select headwater.ensure_publications();'
  where exists (select from pg_publication p where p.pubname = 'headwater_events')
    and not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                    where p.pubname = 'headwater_events' and r.prrelid = 'headwater.event'::regclass)
  union all
  select format('the table of entity %s is gone', e.entity_type),
         format('select headwater.enable(''…'', entity => %L); -- the table that took its place', e.entity_type)
  from enabled e where not e.there
  union all
  select format('changes of %s are not captured: it lacks a trigger, or one is disabled', m.member),
         format('select headwater.enable(%L);', m.name)
  from members m
  where (select count(*) from pg_trigger t
         where t.tgrelid = m.member and t.tgfoid = 'headwater.capture()'::regprocedure and t.tgenabled in ('O', 'A')) < 4
  union all
  select format('%s does not have replica identity full: its old rows are not in the WAL', m.member),
         format('alter table %s replica identity full;', m.member)
  from members m where m.relreplident <> 'f'
  union all
  select format('%s is not in the publication headwater_tables', e.name),
         format('alter publication headwater_tables add table %s;', e.name)
  from enabled e
  where e.there and not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                                where p.pubname = 'headwater_tables' and r.prrelid = e.relation)
  union all
  select format('column %I of %s, by which entity %s is known, is gone', lost, e.name, e.entity_type),
         format('select headwater.disable(%L);', e.name)
  from enabled e cross join lateral unnest(e.key_columns || e.tenant_column || e.user_column) lost
  where e.there and lost is not null
    and not exists (select from pg_attribute a where a.attrelid = e.relation and a.attname = lost and not a.attisdropped)
  union all
  select format('rows of %s may still lack their baseline', e.name), format('call headwater.backfill(%L);', e.name)
  from enabled e where e.there and not e.backfilled
  union all
  select format('the replication slot %s is not in use and keeps %s of WAL (%s)', s.slot_name,
                pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)), s.wal_status),
         format('select pg_drop_replication_slot(%L); -- if no streamer of that name is to come back', s.slot_name)
  from pg_replication_slots s
  where s.slot_name like 'headwater\_%' and not s.active and not pg_is_in_recovery()
  union all
  select format('the prepared transaction %s has been open since %s: it holds back pollers and WAL', p.gid, p.prepared),
         format('rollback prepared %L; -- or commit prepared', p.gid)
  from pg_prepared_xacts p
  where p.database = current_database() and p.prepared < clock_timestamp() - interval '5 minutes'
$$;
comment on function headwater.check() is 'One row for each problem in this database''s set-up, with the statement that mends it. No row: all is well.';
-- Last: nothing is anybody's unless it is granted here.
revoke all on all functions in schema headwater from public;
revoke all on all procedures in schema headwater from public;

grant execute on function
  headwater.syncable_tables(),
  headwater.history(text, text, timestamptz, int),
  headwater.materialize(text, text, timestamptz, text),
  headwater.check(), headwater.members(regclass),
  headwater.caller(), headwater.singular(text)
  to headwater_reader;

grant execute on function
  headwater.ingest(jsonb, jsonb),
  headwater.ensure_publications(),
  headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int)
  to headwater_writer;

grant execute on function
  headwater.enable(regclass, text, "any", text[], text, text, text[], text, boolean, boolean),
  headwater.disable(regclass),
  headwater.publish(regclass),
  headwater.retry_rejected(uuid, text),
  headwater.discard_rejected(uuid, text),
  headwater.emit(text, text, jsonb, text, boolean, text, text, uuid, int)
  to headwater_admin;
