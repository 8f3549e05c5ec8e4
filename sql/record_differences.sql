create function headwater.record_differences(entity text, wanted text[] default null) returns bigint
  language plpgsql set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  now timestamptz := clock_timestamp();
  recorded bigint;
begin
  perform headwater.require_read_committed();
  insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                               occurred_at, recorded_at, source, applies)
  select headwater.uuid_v7(), d.tenant_id, entity, d.entity_id, entity || '.' || d.name, d.payload, d.schema_version,
         -- Above all that stands in its history, also where the clock was set back.
         greatest(now, d.head + interval '1 microsecond'), now, 'capture', true
  from headwater.differences(entity, wanted) d
  -- As capture does: a row that went from one tenant to another ends there before it begins here.
  order by d.name <> 'deleted';
  get diagnostics recorded = row_count;
  return recorded;
end
$$;
comment on function headwater.record_differences(text, text[]) is
  'Records, as captured events, where a table''s rows are not the folds of their events. Its caller has locked the table against writers. Returns how many.';
