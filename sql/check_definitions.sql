create function headwater.check_definitions() returns table (problem text, statement text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select format('the definition of %s has changed, and nobody followed it', e.relation),
         format('alter table %s replica identity full; -- which changes nothing, and upon which it is followed', e.relation)
  from headwater.entity e join pg_class c on c.oid = e.relation join headwater.member m on m.relation = e.relation
  where e.enabled and m.columns is distinct from headwater.columns_of(e.relation)
  union all
  select format('changes of %s escape capture: %s', e.relation, w.reason), format('select headwater.disable(%L); -- or: %s', e.relation, w.hint)
  from headwater.entity e join pg_class c on c.oid = e.relation cross join lateral headwater.why_not_capturable(e.relation) w
  where e.enabled and w.reason is not null
$$;
comment on function headwater.check_definitions() is 'Enabled tables whose definition is another than the one that headwater.follow has seen last, or which cannot be captured any more.';
