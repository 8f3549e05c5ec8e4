create function headwater.require_owner(relation regclass) returns void
  language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if not (select pg_has_role(headwater.caller(), c.relowner, 'usage') from pg_class c where c.oid = relation) then
    raise exception 'must be owner of table %', relation using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function headwater.require_owner(regclass) is 'Raises an error unless the caller owns the table.';
