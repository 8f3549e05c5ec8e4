/** A collection of TanStack DB, as npm has it, over the client's entities. */

import 'fake-indexeddb/auto';
import { createCollection, createLiveQueryCollection, eq, type Collection } from '@tanstack/db';
import { afterEach, expect, it } from 'vitest';
import type { HeadwaterClient } from '../src/client.js';
import { collectionOptions } from '../src/collection.js';
import { eventually, newDevice, order, QUICK, start } from './support/orders.js';
import { ModelServer } from './support/server.js';

interface Order {
  readonly id: string;
  readonly status?: string;
  readonly items?: readonly unknown[];
}

const open: HeadwaterClient[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((client) => client.close()));
});

function orders(server: ModelServer): { client: HeadwaterClient; url: string; collection: Collection<Order, string> } {
  const url = newDevice();
  const client = start(server, url);
  open.push(client);
  return { client, url, collection: createCollection(collectionOptions<Order>(client, 'order', ['id'])) };
}

function record(client: HeadwaterClient, name: string, id: string, payload: Record<string, unknown> = {}) {
  return client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload: payload as never });
}

it('answers live queries with what was recorded here and by others', async () => {
  const server = new ModelServer(order, { snapshots: true });
  server.capture('created', 'a', { status: 'open' });
  const { client, collection } = orders(server);
  const isOpen = createLiveQueryCollection((query) => query.from({ order: collection }).where(({ order }) => eq(order.status, 'open')).orderBy(({ order }) => order.id));
  await isOpen.preload();
  const ids = (): string => isOpen.toArray.map(({ id }) => id).join('');
  await eventually('what was there is found', () => ids() === 'a');
  const { stored } = record(client, 'created', 'b', { status: 'open' });
  await Promise.resolve();
  expect(ids()).toBe('ab');
  record(client, 'item_added', 'b', { item: 1 });
  await stored;
  expect(collection.get('b')).toMatchObject({ id: 'b', items: [1] });
  server.capture('created', 'c', { status: 'open' });
  server.capture('updated', 'a', { status: 'paid' });
  await eventually('others are', () => ids() === 'bc');
  record(client, 'deleted', 'b');
  await eventually('and what is gone is not', () => ids() === 'c');
  expect([...collection.keys()].sort()).toEqual(['a', 'c']);
});

it('changes by events alone', async () => {
  const { collection } = orders(new ModelServer(order));
  await collection.preload();
  expect(() => collection.insert({ id: 'x' })).toThrow('onInsert');
});

it('is filled anew for another user and shows nothing of the first', async () => {
  const server = new ModelServer(order);
  const { client, url, collection } = orders(server);
  await collection.preload();
  server.fault = () => 'lost';
  await record(client, 'created', 'a', { status: 'open' }).stored;
  expect(collection.size).toBe(1);
  client.configure({ url, userId: 'bob', transport: { fetch: server.fetch }, sync: QUICK });
  await Promise.resolve();
  expect(collection.size).toBe(0);
  record(client, 'created', 'b', { status: 'open' });
  await eventually('the other has an order', () => [...collection.keys()].join('') === 'b');
});

it('knows rows of composite keys by the id of their entity', () => {
  const { getKey } = collectionOptions<{ place: string; number: number }>(open[0] as HeadwaterClient, 'seat', ['place', 'number']);
  expect(getKey({ place: 'a/b', number: 7 })).toBe('a~1b/7');
});
