create function headwater.require_read_committed() returns void
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'this needs the isolation level read committed, not %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state',
            hint = 'Under a snapshot that is older than the locks, what others have just committed could not be seen: begin isolation level read committed;';
  end if;
end
$$;
comment on function headwater.require_read_committed() is 'Raises an error where a statement would not see what was committed before it began.';
