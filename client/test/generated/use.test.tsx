// @vitest-environment happy-dom
/** Generated code on a model of the server: the orders of the streamer's own document, and a document by hand. */

import 'fake-indexeddb/auto';
import { act, createElement, StrictMode, type ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { expect, it } from 'vitest';
import { formatMicros } from '../../src/clock.js';
import { locks } from '../support/locks.js';
import { eventually, newDevice, QUICK } from '../support/orders.js';
import { ModelServer } from '../support/server.js';
import * as byHand from './out/by-hand/index.js';
import * as orders from './out/openapi/index.js';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

const platform = { locks, BroadcastChannel: globalThis.BroadcastChannel };

it('records and shows by generated hooks what the server then has', async () => {
  const server = new ModelServer(orders.orderDefinition, { snapshots: true });
  orders.configure({ url: newDevice(), tenantId: 'cafe', platform, sync: QUICK, transport: { fetch: server.fetch } });
  const id = orders.newId();
  let mutate: orders.OrderMutations | undefined;
  let shown: orders.Order | null = null;
  function Order(): ReactNode {
    const { data, isLoading } = orders.useOrder(id);
    mutate = orders.useOrderMutations(id);
    shown = data;
    const open = orders.useOrders({ status: 'open' });
    return `${isLoading ? 'loading' : (data?.status ?? 'none')} of ${open.data.length}`;
  }
  const page = createElement(StrictMode, null, createElement(Order));
  expect(renderToString(page)).toBe('loading of 0');
  const root = createRoot(document.body);
  await act(async () => root.render(page));
  await act(async () => eventually('it is read', () => document.body.textContent === 'none of 0'));
  await act(async () => {
    mutate?.created({ status: 'open', items: [] });
    mutate?.itemAdded({ item: { id: 1 } });
  });
  expect(document.body.textContent).toBe('open of 1');
  expect(shown).toEqual({ id, status: 'open', items: [{ id: 1 }] });
  await orders.syncEngine.sync();
  expect(server.state(id)).toEqual({ status: 'open', items: [{ id: 1 }] });
  expect(await orders.materializeOrder(id)).toEqual(shown);
  const events = await orders.getEventsForEntity('order', id);
  expect(events.map(({ event_type }) => event_type)).toEqual(['order.created', 'order.item_added']);
  expect(orders.foldOrder(events)).toEqual(shown);
  await eventually('the status says that all is sent', () => orders.syncEngine.status().unsynced === 0);
  await act(async () => root.unmount());
  await orders.forget();
});

it('refuses payloads that the schema does not take, also without types', () => {
  orders.configure({ url: newDevice(), platform, sync: QUICK, transport: { fetch: new ModelServer(orders.orderDefinition).fetch } });
  const { created, stateChanged } = orders.orderMutations('o1');
  expect(() => created({ table_number: '7' } as never)).toThrow('"table_number" must be integer or null, not string');
  expect(() => created({ color: 'red' } as never)).toThrow('"color" is not known here');
  expect(() => created({ table_number: 2 ** 31 })).toThrow('"table_number" must be 2147483647 or less');
  expect(() => stateChanged({})).toThrow('none of the fields');
  expect(orders.orderSchema['~standard'].validate({ id: 7 })).toEqual({ issues: [{ message: 'must be string, not number', path: ['id'] }] });
  expect(orders.orderSchema['~standard'].validate({ id: 'a' })).toEqual({ value: { id: 'a' } });
  return orders.forget();
});

it('folds by the functions of the application and lifts old payloads', async () => {
  const server = new ModelServer({ ...byHand.tableDefinition, customs: { 'app.join_tables': (state, { payload }) => ({ ...state, waiter: payload['other'] ?? null }) } });
  const id = 't1';
  byHand.configure({
    url: newDevice(),
    platform,
    sync: QUICK,
    transport: { fetch: server.fetch },
    merges: { 'app.join_tables': (table, { payload }) => ({ ...table, waiter: payload.other }) },
    lifts: { 'app.lift_joined': (payload) => ({ ...payload, other: `table ${String(payload['other'])}` }) },
  });
  byHand.tableMutations(id).created({ state: 'free' });
  byHand.tableMutations(id).guestAdded({ guest: { name: 'Ada' } });
  byHand.tableMutations(id).joined({ other: 't2' });
  expect(await byHand.materializeTable(id)).toEqual({ id, state: 'free', guests: [{ name: 'Ada' }], waiter: 't2' });
  const [, , joined] = await byHand.getEventsForEntity('table', id);
  if (joined === undefined) throw new Error('three events were recorded');
  expect(joined.schema_version).toBe(3);
  await byHand.syncEngine.sync();
  // As an old application would have sent it.
  const old = { event_type: 'table.joined', entity_type: 'table', entity_id: id, payload: { with: 't9' }, schema_version: 1, timestamp: formatMicros(joined.timestamp + 1) };
  await server.fetch('http://old.test/api/v1/events/batch', { method: 'POST', body: JSON.stringify({ events: [{ ...old, id: '0190a0a0-0000-7000-8000-000000000001' }] }) });
  await eventually('the old event is folded in its present form', async () => (await byHand.materializeTable(id))?.waiter === 'table t9');
  const last = (await byHand.getEventsForEntity('table', id)).at(-1);
  expect(last).toMatchObject({ payload: { other: 'table t9' }, schema_version: 3 });
  await byHand.forget();
});
