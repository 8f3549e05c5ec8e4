create function headwater.retry_rejected(id uuid, tenant_id text default null) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  letter headwater.rejected_event;
begin
  delete from headwater.rejected_event r
  where r.id = retry_rejected.id and r.tenant_id is not distinct from retry_rejected.tenant_id returning r.* into letter;
  if letter.id is null then
    raise exception 'no dead letter has the id %', id
      using errcode = 'no_data_found', hint = 'select id, tenant_id, code, reason from headwater.rejected_event lists them; name the tenant as well.';
  end if;
  -- The new verdict takes the place of the old one.
  delete from headwater.receipt r where r.event_id = letter.id and r.tenant_id is not distinct from letter.tenant_id;
  return headwater.ingest(jsonb_build_array(letter.event), letter.claims);
end
$$;
comment on function headwater.retry_rejected(uuid, text) is
  'Tries a dead letter again, under its own id and for its sender, and returns what headwater.ingest says. What is refused again is a dead letter again.
tenant_id: whose it is, as headwater.rejected_event says; null for those without a tenant.
Example: select headwater.retry_rejected(id, tenant_id) from headwater.rejected_event;';
