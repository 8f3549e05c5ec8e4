-- docs/sql.md as text, from the catalog: what stands there of a function, a table or a column is its comment. Run by scripts/sql-reference.

-- What users call, in the order in which one gets to know it.
create temporary table shown (section int, name text, place int);
create temporary table section (number int, title text, introduction text);
insert into section values
  (1, 'Tables that sync', 'Called by the owner of the table, who is a member of `headwater_admin`.'),
  (2, 'Record', 'Events besides those that capture records of every statement.'),
  (3, 'Read', 'For members of `headwater_reader`, which all other roles but `headwater_client` are.'),
  (4, 'Change the form of rows and payloads', 'Stored events are never rewritten: they are lifted when they are read.'),
  (5, 'Keep history short, and forget', 'History is kept for good unless these are called.'),
  (6, 'What was refused', 'Dead letters: events of clients that the server refused, in `headwater.rejected_event`.'),
  (7, 'Set-up, and taking it out', 'For operators.');
insert into shown
select section, name, place from (values
  (1, array['enable', 'backfill', 'syncable_tables', 'publish', 'reconcile']),
  (2, array['emit', 'ingest']),
  (3, array['history', 'materialize', 'openapi']),
  (4, array['upcast']),
  (5, array['compact', 'apply_retention', 'erase']),
  (6, array['retry_rejected', 'discard_rejected']),
  (7, array['check', 'ensure_publications', 'disable', 'disable_all'])
) sections (section, names), unnest(names) with ordinality named (name, place);

-- What roles may call, but only the functions above and the streamer do.
create temporary table internal (name text);
insert into internal select unnest(array[
  'begin_backfill', 'backfill_batch', 'end_backfill', 'min_horizon', 'require_horizon', 'raise_horizon', 'event_writers', 'compact_range', 'drop_events',
  'drop_receipts', 'caller', 'singular', 'members', 'is_captured', 'lift', 'digest_of_events', 'digest_of_snapshot', 'check_snapshots',
  'check_sequences', 'check_rows', 'check_definitions', 'open_states', 'gather_changes']);

create temporary view callable as
select p.oid, p.proname::text as name, p.prokind,
       (select array_agg(g.grantee::regrole::text order by g.grantee::regrole::text) from aclexplode(p.proacl) g where g.grantee <> p.proowner) as roles
from pg_proc p where p.pronamespace = 'headwater'::regnamespace
  and exists (select from aclexplode(p.proacl) g where g.grantee <> p.proowner);

do $$
declare
  lost text;
begin
  select string_agg(name, ', ') into lost from callable where name not in (select name from shown) and name not in (select name from internal);
  if lost is not null then
    raise exception 'scripts/sql-reference.sql does not know where to put %: name it in `shown`, or in `internal`', lost;
  end if;
  select string_agg(name, ', ') into lost from (select name from shown union select name from internal) listed where name not in (select name from callable);
  if lost is not null then
    raise exception 'scripts/sql-reference.sql names %, which nobody may call', lost;
  end if;
  select string_agg(name, ', ') into lost from callable where obj_description(oid, 'pg_proc') is null;
  if lost is not null then
    raise exception 'no comment on %', lost;
  end if;
end
$$;

-- A signature as one would write it: an argument a line, its default in short.
create function pg_temp.signature(function oid) returns text language sql as $$
  select replace(case p.prokind when 'p' then 'procedure ' else '' end || 'headwater.' || p.proname || '('
    || coalesce((select case when count(*) > 1 then E'\n    ' || string_agg(argument, E',\n    ' order by n) else min(argument) end
                 from regexp_split_to_table(regexp_replace(regexp_replace(regexp_replace(pg_get_function_arguments(p.oid), '\mIN ', '', 'g'), ' DEFAULT ', ' default ', 'g'),
                        '(?:NULL|(''[^'']*''))::[a-z\[\] ]+', 'null\1', 'g'), ', (?=[a-z_"]+ )') with ordinality as a(raw, n),
                      lateral replace(raw, 'null''', '''') argument where raw <> ''), '')
    || ')' || case when p.prokind = 'p' then '' else ' returns ' || replace(replace(pg_get_function_result(p.oid), 'SETOF', 'setof'), 'TABLE(', 'table (') end, 'timestamp with time zone', 'timestamptz')
  from pg_proc p where p.oid = function
$$;

-- A comment as Markdown: lines that begin with an argument's name become a list, the example a block that a test runs.
create function pg_temp.markdown(comment text) returns text language plpgsql as $$
declare
  line text;
  parts text[] := string_to_array(comment, E'\nExample: ');
  listed boolean := false;
  was_listed boolean;
  text text := '';
begin
  foreach line in array string_to_array(parts[1], E'\n') loop
    was_listed := listed;
    if line ~ '^[a-z_]+(, [a-z_]+)*: ' then
      text := text || case when was_listed or text = '' then '' else E'\n' end || regexp_replace(line, '^([a-z_, ]+): ', '- `\1`: ') || E'\n';
      listed := true;
    elsif line = '' then
      text := text || E'\n';
      listed := false;
    else
      text := text || case when was_listed then '  ' else '' end || line || E'\n';
    end if;
  end loop;
  return text || case when parts[2] is null then '' else E'\n```sql\n' || replace(parts[2], '; ', E';\n') || E'\n```\n' end;
end
$$;

-- Columns without a comment of their own are told from their name.
create function pg_temp.columns(relation oid) returns text language sql as $$
  select E'| column | type | |\n|---|---|---|\n' || string_agg(format('| `%s` | %s | %s |', attname,
    replace(format_type(atttypid, atttypmod), 'timestamp with time zone', 'timestamptz'), coalesce(col_description(attrelid, attnum), '')), E'\n' order by attnum) || E'\n'
  from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped
$$;

select '# SQL reference

<!-- stack: empty -->
<!-- Made by scripts/sql-reference of the comments on the extension''s objects (sql/*.sql): change those. -->

Every function and table of the schema `headwater` that is meant for you, as `\df+ headwater.*` and `\d+ headwater.event` show it too. How they go
together: [guide.md](guide.md). The examples are run by a test, one after the other, on two tables:

```sql
create extension headwater;

create table orders (id int primary key, tenant_id text, status text default ''open'', items jsonb default ''[]'');
create table menu (id int primary key, dish text);
insert into orders values (17, ''cafe'');
```';

select rtrim(E'\n## ' || title || E'\n\n' || introduction || E'\n' || (
  select string_agg(E'\n### headwater.' || c.name || E'\n\n```\n' || pg_temp.signature(c.oid) || E'\n```\n\n' || pg_temp.markdown(obj_description(c.oid, 'pg_proc'))
           || E'\nFor: ' || (select string_agg('`' || role || '`', ', ') from unnest(c.roles) role) || E'.\n', '' order by s.place)
  from shown s join callable c using (name) where s.section = section.number), E'\n')
from section order by number;

select rtrim(E'\n## Tables\n\nRead them with the role named; only the extension writes to them.\n' || string_agg(E'\n### headwater.' || c.relname || E'\n\n' || obj_description(c.oid, 'pg_class')
  || E'\n\n' || pg_temp.columns(c.oid) || E'\nFor: `' || (select string_agg(g.grantee::regrole::text, '`, `') from aclexplode(c.relacl) g where g.grantee <> c.relowner and g.privilege_type = 'SELECT') || E'`.\n',
  '' order by array_position(array['event', 'entity', 'rejected_event', 'snapshot', 'backfill_progress', 'erased', 'past_entity', 'meta']::name[], c.relname), c.relname), E'\n')
from pg_class c where c.relnamespace = 'headwater'::regnamespace and c.relkind in ('r', 'v')
  and exists (select from aclexplode(c.relacl) g where g.grantee <> c.relowner and g.privilege_type = 'SELECT');

select E'\n## Roles\n\nMade by `create extension`; they belong to the cluster, log in nowhere, and are granted to roles of yours.\n\n| role | member of | may |\n|---|---|---|\n'
  || string_agg(format('| `%s` | %s | %s |', r.rolname,
       coalesce((select string_agg('`' || g.rolname || '`', ', ' order by g.rolname) from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid), ''),
       purpose), E'\n' order by place)
from (values
  (1, 'headwater_reader', 'read events, the registry and snapshots, every tenant''s'),
  (2, 'headwater_client', 'what you grant it on your tables (`enable` does): clients'' events are applied under it'),
  (3, 'headwater_writer', 'besides, take clients'' events and see to the publications: for the streamer'),
  (4, 'headwater_admin', 'besides, enable and publish tables of its own, emit, and see to dead letters: for whoever deploys')
) purposes (place, name, purpose) join pg_roles r on r.rolname = purposes.name;
