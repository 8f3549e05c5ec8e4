create function headwater.digest_of_snapshot(folded bytea, state jsonb, schema_version int) returns bytea
  language sql immutable set search_path = pg_catalog, pg_temp
as $$ select sha256(folded || convert_to(schema_version || coalesce(state::text, ''), 'UTF8')) $$;
comment on function headwater.digest_of_snapshot(bytea, jsonb, int) is 'SHA-256 over what was folded and what came of it: what headwater.snapshot has as hash.';
