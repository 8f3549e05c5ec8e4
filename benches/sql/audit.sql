-- The audit trigger that people write: one call for each row, PL/pgSQL, the row as JSON.
create table audit_log (
  id bigint generated always as identity primary key,
  recorded_at timestamptz not null default clock_timestamp(),
  who text not null default current_user,
  table_name text not null,
  operation text not null,
  row_key text not null,
  old_row jsonb,
  new_row jsonb
);
create index on audit_log (table_name, row_key, recorded_at);

-- The argument is the key's column.
create function audit() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    insert into audit_log (table_name, operation, row_key, old_row)
    values (tg_table_name, tg_op, row_to_json(old)->>tg_argv[0], row_to_json(old));
    return old;
  elsif tg_op = 'UPDATE' then
    insert into audit_log (table_name, operation, row_key, old_row, new_row)
    values (tg_table_name, tg_op, row_to_json(new)->>tg_argv[0], row_to_json(old), row_to_json(new));
    return new;
  end if;
  insert into audit_log (table_name, operation, row_key, new_row)
  values (tg_table_name, tg_op, row_to_json(new)->>tg_argv[0], row_to_json(new));
  return new;
end
$$;
