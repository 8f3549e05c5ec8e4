create function headwater.syncable_tables()
  returns table (relation regclass, entity text, key_columns text[], tenant_column text, user_column text,
                 excluded text[], rules jsonb, notification text, backfilled boolean)
  language sql stable set search_path = pg_catalog, pg_temp
as $$
  select e.relation, e.entity_type, e.key_columns, e.tenant_column, e.user_column, e.excluded, e.rules, e.notification, e.backfilled
  from headwater.entity e where e.enabled order by e.entity_type
$$;
comment on function headwater.syncable_tables() is
  'The enabled tables, one row each: which entity a table is, its key, whose its rows are, what is excluded, the merge rule of every event, the
notification backend where it has one of its own, and whether the rows that were there before all have their baseline.
Example: select relation, entity, rules from headwater.syncable_tables();';
