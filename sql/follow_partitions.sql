create function headwater.follow_partitions(relation regclass, entity text) returns void
  language plpgsql set search_path = pg_catalog, pg_temp set headwater.follow = 'off'
as $$
declare
  part regclass;
  holds_rows boolean;
begin
  for part, holds_rows in
    select member, c.relkind = 'r' from headwater.members(relation) member join pg_class c on c.oid = member
    where not exists (select from headwater.member m where m.relation = member and m.entity_type = entity)
  loop
    perform headwater.attach_member(part, entity);
    if holds_rows then
      perform headwater.record_rows(relation, part, 'created');
    end if;
  end loop;
  for part, holds_rows in
    select m.relation, c.relkind = 'r' from headwater.member m join pg_class c on c.oid = m.relation
    where m.entity_type = entity and m.relation not in (select headwater.members(follow_partitions.relation))
  loop
    if holds_rows then
      perform headwater.record_rows(relation, part, 'deleted');
    end if;
    perform headwater.release(part);
  end loop;
end
$$;
comment on function headwater.follow_partitions(regclass, text) is
  'A partition that came is captured and its rows are recorded as created; one that went takes them along: they are recorded as deleted.';
