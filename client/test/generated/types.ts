/** Compiled, never run: what generated code takes, and what it must not take. `scripts/test client` generates what is imported here. */

import { createCollection } from '@tanstack/db';
import * as byHand from './out/by-hand/index.js';
import * as orders from './out/openapi/index.js';
import { orderCollectionOptions } from './out/openapi/store/collections.js';
import type { Json, Order, OrderDraft, OrderEvent, StandardSchema } from './out/openapi/index.js';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => undefined;

export function payloads(id: string): void {
  orders.recordEvent({ event_type: 'order.item_added', entity_type: 'order', entity_id: id, payload: { item: { name: 'soup' } } });
  // @ts-expect-error the payload lacks `item`
  orders.recordEvent({ event_type: 'order.item_added', entity_type: 'order', entity_id: id, payload: {} });
  // @ts-expect-error a number is no status
  orders.recordEvent({ event_type: 'order.state_changed', entity_type: 'order', entity_id: id, payload: { status: 7 } });
  // @ts-expect-error no column of that name
  orders.recordEvent({ event_type: 'order.created', entity_type: 'order', entity_id: id, payload: { color: 'red' } });
  // @ts-expect-error the payload is another event's
  orders.recordEvent({ event_type: 'order.item_removed', entity_type: 'order', entity_id: id, payload: { item: 1 } });
  // @ts-expect-error no such event
  orders.recordEvent({ event_type: 'order.eaten', entity_type: 'order', entity_id: id, payload: {} });
  // @ts-expect-error an event of another entity
  orders.recordEvent({ event_type: 'thing.noted', entity_type: 'order', entity_id: id, payload: {} });
  // @ts-expect-error tenant_id is the server's to fill
  orders.recordEvent({ event_type: 'order.created', entity_type: 'order', entity_id: id, payload: { tenant_id: 'cafe' } });
}

export function collections(id: string): void {
  const order = createCollection(orderCollectionOptions()).get(id);
  same<(typeof order & {})['status'], Order['status']>(true);
}

export function mutations(id: string): void {
  const { created, itemAdded, deleted } = orders.useOrderMutations(id);
  created();
  created({ table_number: 7, items: [{ id: 1 }], status: null });
  deleted();
  itemAdded({ item: 'soup' });
  // @ts-expect-error the payload is missing
  itemAdded();
  // @ts-expect-error a text is no number
  created({ table_number: '7' });
  // What the server captures of SQL nobody records.
  same<keyof orders.OrderMutations, 'created' | 'deleted' | 'itemAdded' | 'itemRemoved' | 'stateChanged'>(true);
  same<OrderDraft['event_type'] & 'order.updated', never>(true);
}

/** Captured event types are among what happens. */
export function happened(event: OrderEvent): Json | undefined {
  switch (event.event_type) {
    case 'order.updated':
      same<typeof event.source, 'capture'>(true);
      return event.payload.status;
    case 'order.created':
      return event.source === 'capture' ? event.payload.id : event.payload.table_number;
    case 'order.item_added':
      return event.payload.item;
    case 'order.item_removed':
    case 'order.state_changed':
    case 'order.deleted':
    case 'order.erased':
      return event.timestamp;
  }
}

export async function states(id: string): Promise<void> {
  const state = await orders.materializeOrder(id);
  same<typeof state, Order | null>(true);
  same<Order['id'], string>(true);
  const { data, isLoading, error } = orders.useOrder(id);
  same<typeof data, Order | null>(true);
  same<typeof isLoading, boolean>(true);
  same<typeof error, Error | null>(true);
  same<ReturnType<typeof orders.useOrders>['data'], readonly Order[]>(true);
  orders.useOrders({ status: 'open' });
  orders.useOrders((order) => order.table_number === 7);
  // @ts-expect-error no such column
  orders.useOrders({ color: 'red' });
  same<ReturnType<typeof orders.useOrderHistory>['data'], readonly OrderEvent[]>(true);
  same<Awaited<ReturnType<typeof orders.getEventsForEntity<'order'>>>, readonly OrderEvent[]>(true);
  const schema: StandardSchema<Order> = orders.orderSchema;
  orders.foldOrder([...(await orders.getEventsForEntity('order', id))], data);
  void schema;
  void orders.thingId({ shop: 1, code: 'a/b' });
  await orders.syncEngine.sync();
  orders.syncEngine.scheduleSync();
  void [orders.useSyncStatus().unsynced, orders.useRejectedEvents()[0]?.retry()];
}

export function configured(): void {
  orders.configure({ url: 'http://127.0.0.1:4000', getToken: () => 'token', durability: { 'order.deleted': 'strict' } });
  // @ts-expect-error no such event
  orders.configure({ url: 'http://127.0.0.1:4000', durability: { 'order.eaten': 'strict' } });
  byHand.configure({
    url: 'http://127.0.0.1:4000',
    merges: { 'app.join_tables': (table, event) => ({ ...table, waiter: event.payload.other }) },
    lifts: { 'app.lift_joined': (payload) => payload },
  });
  // @ts-expect-error a custom rule needs its function
  byHand.configure({ url: 'http://127.0.0.1:4000', lifts: { 'app.lift_joined': (payload) => payload } });
  // @ts-expect-error and a custom step of an upcast
  byHand.configure({ url: 'http://127.0.0.1:4000', merges: { 'app.join_tables': (table) => table } });
  byHand.configure({
    url: 'http://127.0.0.1:4000',
    // @ts-expect-error which must give a state
    merges: { 'app.join_tables': () => 7 },
    lifts: { 'app.lift_joined': (payload) => payload },
  });
  same<byHand.Table['state'], 'free' | 'taken' | undefined>(true);
}
