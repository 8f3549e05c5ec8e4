-- The orders of the example, and rows to fill it from.
create table orders (
  id uuid primary key default gen_random_uuid(),
  tenant_id text,
  table_number int,
  status text default 'open',
  items jsonb default '[]',
  updated_at timestamptz
);
