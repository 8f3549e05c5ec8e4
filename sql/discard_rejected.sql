create function headwater.discard_rejected(id uuid, tenant_id text default null) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  delete from headwater.rejected_event r
  where r.id = discard_rejected.id and r.tenant_id is not distinct from discard_rejected.tenant_id;
  if not found then
    raise exception 'no dead letter has the id %', id
      using errcode = 'no_data_found', hint = 'select id, tenant_id, code, reason from headwater.rejected_event lists them; name the tenant as well.';
  end if;
end
$$;
comment on function headwater.discard_rejected(uuid, text) is
  'Removes a dead letter. Its receipt stays: the client that sends the event again gets the same refusal.
tenant_id: whose it is, as headwater.rejected_event says; null for those without a tenant.
Example: select headwater.discard_rejected(id, tenant_id) from headwater.rejected_event;';
