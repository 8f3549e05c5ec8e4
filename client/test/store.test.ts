/** The device's event store by itself. */

import 'fake-indexeddb/auto';
import { expect, it } from 'vitest';
import { EventStore } from '../src/store/eventStore.js';
import type { LocalEvent } from '../src/event.js';
import { order } from './support/order.js';

const event = (n: number): LocalEvent => ({
  id: `00000000-0000-7000-8000-00000000000${n}`,
  event_type: 'order.item_added',
  entity_type: 'order',
  entity_id: 'o1',
  payload: { item: n },
  timestamp: n,
  user_id: null,
  client_id: null,
  tenant_id: null,
  status: 'pending',
  server_position: null,
  idempotency_key: null,
  schema_version: 1,
  client_seq: 0,
  source: 'client',
  applies: true,
  recorded_at: null,
  rejection: null,
  again: null,
});

it('stores an event that is appended the moment another was stored', async () => {
  const store = new EventStore('store-test', new Map([['order', order]]));
  await store.open();
  for (let n = 1; n <= 5; n += 1) await store.append(event(n), false);
  expect((await store.outbox.next(10)).map(({ client_seq, timestamp }) => [client_seq, timestamp])).toEqual([[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]);
  await store.close();
});
