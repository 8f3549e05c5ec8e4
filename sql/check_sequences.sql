create function headwater.check_sequences() returns table (problem text, statement text)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  key record;
  greatest_key bigint;
  next_key bigint;
begin
  -- Rows whose keys clients chose, or that were copied in, do not move the sequence that SQL draws keys from.
  for key in
    select c.oid::regclass as relation, a.attname as name, d.objid::regclass as sequence
    from headwater.entity e
    join pg_class c on c.oid = e.relation
    join pg_attribute a on a.attrelid = e.relation and a.attname = any (e.key_columns) and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = e.relation and d.refobjsubid = a.attnum
                    and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    where e.enabled
    union all
    select 'headwater.event'::regclass, 'position', 'headwater.event_position_seq'::regclass
  loop
    greatest_key := headwater.greatest_key(key.relation, key.name);
    execute format('select last_value + is_called::int from %s', key.sequence) into next_key;
    if greatest_key >= next_key then
      problem := format('the sequence %s goes on at %s, but %s has keys up to %s', key.sequence, next_key, key.relation, greatest_key);
      statement := format('select pg_catalog.setval(%L, %s);', key.sequence::text, greatest_key);
      return next;
    end if;
  end loop;
end
$$;
comment on function headwater.check_sequences() is 'Sequences that are about to hand out keys that are taken.';
