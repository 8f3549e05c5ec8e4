create table source as
  select gen_random_uuid() as id, 'tenant-' || n % 10 as tenant_id, n % 40 as table_number, 'open'::text as status,
         '[{"id": "i1", "name": "espresso", "price": "2.50"}]'::jsonb as items,
         '2026-01-01'::timestamptz + n * interval '1 second' as updated_at
  from generate_series(1, ROWS) n;
vacuum analyze source;
