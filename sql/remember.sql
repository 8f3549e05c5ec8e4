create function headwater.remember(relation regclass) returns void
  language sql set search_path = pg_catalog, pg_temp
as $$
  update headwater.member m
  set columns = headwater.columns_of(relation),
      captured = case when (select bool_and(headwater.is_captured(member)) from headwater.members(relation) member) then true
                      -- Before its triggers first stood, as while a dump is restored, a table is not one that lost them.
                      when m.captured is not null and m.seen_in = headwater.place_of(relation) then false end,
      seen_in = headwater.place_of(relation)
  where m.relation = remember.relation
$$;
comment on function headwater.remember(regclass) is 'Notes what an enabled table looks like now.';
