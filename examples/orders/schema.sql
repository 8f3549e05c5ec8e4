-- The orders example: a restaurant's orders, one row each, shared by everyone of the same tenant.
-- Run once in a database that has the extension: psql -f examples/orders/schema.sql

create table public.orders (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    text,
    table_number int,
    status       text default 'open',
    items        jsonb default '[]',
    updated_at   timestamptz
);

comment on table public.orders is 'The orders example of Headwater: entity "order", tenant column tenant_id';

-- What a client's events do to the row. Plain SQL needs no rules: it is captured as
-- order.created, order.updated and order.deleted.
-- headwater_client, under whose name a client's events change the row, is granted the table by enable.
select headwater.enable(
    'public.orders',
    entity => 'order',
    tenant_column => 'tenant_id',
    events => '{
        "created":       {"rule": "create"},
        "item_added":    {"rule": "append", "field": "items", "value": "item"},
        "item_removed":  {"rule": "remove", "field": "items", "where": {"id": "item_id"}},
        "state_changed": {"rule": "set", "fields": ["status"]},
        "deleted":       {"rule": "delete"}
    }'::jsonb
);
