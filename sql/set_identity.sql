create function headwater.set_identity(relation regclass, entity text) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  identity "char" := (select c.relreplident from pg_class c where c.oid = relation);
begin
  insert into headwater.member (relation, entity_type, former_identity, former_index)
  values (relation, entity, identity,
          (select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = set_identity.relation and i.indisreplident))
  on conflict on constraint member_pkey do update set
    entity_type = coalesce(excluded.entity_type, member.entity_type),
    former_identity = case when identity = 'f' then member.former_identity else excluded.former_identity end,
    former_index = case when identity = 'f' then member.former_index else excluded.former_index end;
  if identity <> 'f' then
    execute format('alter table %s replica identity full', relation);
  end if;
end
$$;
comment on function headwater.set_identity(regclass, text) is 'Gives a table replica identity full, and remembers which it had.';
