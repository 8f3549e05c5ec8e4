create function headwater.rename_fields(rules jsonb, renamed jsonb) returns jsonb
  language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(event.key, event.value
    || case when event.value ? 'field' then
         jsonb_build_object('field', coalesce(renamed ->> (event.value ->> 'field'), event.value ->> 'field'))
       else '{}' end
    || case when event.value ? 'fields' then
         jsonb_build_object('fields', (select jsonb_agg(coalesce(renamed ->> f.name, f.name) order by f.place)
                                       from jsonb_array_elements_text(event.value -> 'fields') with ordinality f (name, place)))
       else '{}' end)
  from jsonb_each(rules) event
$$;
comment on function headwater.rename_fields(jsonb, jsonb) is 'Merge rules after columns were renamed: {"old": "new"}.';
