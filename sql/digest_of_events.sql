create function headwater.digest_of_events(
    beneath bytea, entity text, entity_id text, tenant_id text,
    after_at timestamptz, after_id uuid, upto_at timestamptz, upto_id uuid)
  returns bytea
  language sql stable set search_path = pg_catalog, pg_temp set "TimeZone" = 'UTC' set "DateStyle" = 'ISO'
as $$
  select sha256(coalesce(digest_of_events.beneath, '') || coalesce(string_agg(
    sha256(convert_to(jsonb_build_array(e.position, e.id, e.event_type, e.payload, e.schema_version, e.occurred_at, e.source)::text, 'UTF8')),
    ''::bytea order by e.occurred_at, e.id), ''))
  from headwater.event e
  where e.entity_type = digest_of_events.entity and e.entity_id = digest_of_events.entity_id
    and e.tenant_id is not distinct from digest_of_events.tenant_id and e.applies
    and (after_id is null or (e.occurred_at, e.id) > (after_at, after_id))
    and (e.occurred_at, e.id) <= (upto_at, upto_id)
$$;
comment on function headwater.digest_of_events(bytea, text, text, text, timestamptz, uuid, timestamptz, uuid) is
  'SHA-256 over the digest beneath and those of an entity''s applying events behind one up to another: what headwater.snapshot has as folded.';
