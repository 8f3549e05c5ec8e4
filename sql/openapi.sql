create function headwater.openapi() returns jsonb
  language c stable strict security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'openapi_wrapper';
comment on function headwater.openapi() is
  'The HTTP API as OpenAPI 3.1: the streamer serves it at /openapi.json, and `headwater generate` reads it. Each enabled entity has its columns
and payloads as JSON schemas, and x-sync with its events, merge rules and upcasts. Excluded columns do not occur. Equal set-ups give equal documents.
Example: select headwater.openapi();';
