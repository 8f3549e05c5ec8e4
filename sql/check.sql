create function headwater.check(verify boolean default false) returns table (problem text, statement text)
  language sql volatile set search_path = pg_catalog, pg_temp
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
  where not headwater.is_captured(m.member)
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
  union all
  select format('the publication %s does not publish %s', p.pubname, wanted.publish),
         format('alter publication %I set (publish = %L);', p.pubname, wanted.publish)
  from pg_publication p
  join (values ('headwater_events', 'insert'), ('headwater_tables', 'insert, update, delete, truncate')) wanted (name, publish)
    on wanted.name = p.pubname
  where not p.pubinsert or p.pubname = 'headwater_tables' and not (p.pubupdate and p.pubdelete and p.pubtruncate)
  union all
  select format('two rows of %s may have one key: no unique index is left over %s', e.name, array_to_string(e.key_columns, ', ')),
         format('alter table %s add unique (%s);', e.name, (select string_agg(quote_ident(k.name), ', ') from unnest(e.key_columns) k (name)))
  from enabled e
  where e.there and not exists (
    select from pg_index i
    where i.indrelid = e.relation and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
      and e.key_columns <@ array(select a.attname::text from pg_attribute a where a.attrelid = e.relation and a.attnum = any (i.indkey[0:i.indnkeyatts - 1]))
      and i.indnkeyatts = cardinality(e.key_columns))
  union all
  select format('event %s of entity %s changes a column that is gone', event.key, e.entity_type),
         format('select headwater.enable(%L, events => %L::jsonb);', e.name, e.rules - event.key)
  from enabled e cross join lateral jsonb_each(e.rules) event
  where e.there and exists (
    select from (select event.value ->> 'field' union all select jsonb_array_elements_text(event.value -> 'fields')) f (name)
    where f.name is not null
      and not exists (select from pg_attribute a where a.attrelid = e.relation and a.attname = f.name and not a.attisdropped))
  union all
  select format('the role %s is missing', wanted), format('create role %I nologin;', wanted)
  from unnest(array['headwater_client', 'headwater_reader', 'headwater_writer', 'headwater_admin']) wanted
  where not exists (select from pg_roles r where r.rolname = wanted)
  union all
  select format('the role %s is no member of %s', member.rolname, wanted.rolname), format('grant %I to %I;', wanted.rolname, member.rolname)
  from pg_roles member cross join pg_roles wanted
  where member.rolname in ('headwater_writer', 'headwater_admin') and wanted.rolname in ('headwater_reader', 'headwater_client')
    and not pg_has_role(member.oid, wanted.oid, 'usage')
  union all
  select format('headwater_client may read or write %s, but not use its schema', e.name),
         format('grant usage on schema %I to headwater_client;', n.nspname)
  from enabled e join pg_class c on c.oid = e.relation join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.rolname = 'headwater_client'
  where has_any_column_privilege(r.oid, c.oid, 'select') and not has_schema_privilege(r.oid, n.oid, 'usage')
  union all
  select format('headwater_client may read or write the excluded column %I of %s', a.attname, e.name),
         format('select headwater.enable(%L, grant_client => true);', e.name)
  from enabled e join pg_attribute a on a.attrelid = e.relation and a.attname = any (e.excluded) and not a.attisdropped
  join pg_roles r on r.rolname = 'headwater_client'
  where has_column_privilege(r.oid, e.relation, a.attnum, 'select') or has_column_privilege(r.oid, e.relation, a.attnum, 'insert')
     or has_column_privilege(r.oid, e.relation, a.attnum, 'update')
  union all
  select s.problem, s.statement from headwater.check_sequences() s
  union all
  select d.problem, d.statement from headwater.check_definitions() d
  union all
  select c.problem, c.statement from headwater.check_snapshots() c where verify
  union all
  select r.problem, r.statement from headwater.check_rows() r where verify
$$;
comment on function headwater.check(boolean) is
  'One row for each problem in this database''s set-up, with the statement that mends it. No row: all is well.
verify: true looks also whether snapshots still are what was folded, which takes as long as reading them and their events.
Example: select * from headwater.check();';
