create event trigger headwater_follow_ddl on ddl_command_end
  when tag in ('ALTER TABLE', 'CREATE TABLE', 'CREATE SCHEMA', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER',
               'ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER EXTENSION')
  execute function headwater.follow_ddl();
comment on event trigger headwater_follow_ddl is 'Keeps what Headwater knows of enabled tables up to date with their definitions.';
create event trigger headwater_follow_drop on sql_drop
  when tag in ('DROP TABLE', 'DROP FOREIGN TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP TRIGGER', 'DROP FUNCTION', 'DROP ROUTINE', 'DROP TYPE',
               'DROP DOMAIN', 'DROP EXTENSION')
  execute function headwater.follow_drop();
comment on event trigger headwater_follow_drop is 'Keeps the registry of enabled tables free of those that are gone.';
