-- Payloads are read as UTF-8 wherever they go.
do $$
begin
  if pg_catalog.current_setting('server_encoding') operator(pg_catalog.<>) 'UTF8' then
    raise exception 'headwater needs a database in UTF8, not in %', pg_catalog.current_setting('server_encoding')
      using errcode = 'feature_not_supported', hint = 'create database … encoding ''UTF8'' template template0;';
  end if;
end
$$;

-- Roles belong to the cluster, not to the database: they may be there already, and stay when the extension goes.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['headwater_client', 'headwater_reader', 'headwater_writer', 'headwater_admin'] loop
    if not exists (select from pg_catalog.pg_roles where rolname operator(pg_catalog.=) wanted::pg_catalog.name) then
      execute pg_catalog.format('create role %I nologin', wanted);
    end if;
  end loop;
end
$$;

-- The streamer reads, ingests, and writes user tables as headwater_client; so does an admin who retries a dead letter.
grant headwater_reader, headwater_client to headwater_writer;
grant headwater_reader, headwater_client to headwater_admin;
grant usage on schema headwater to headwater_reader, headwater_writer, headwater_admin;
