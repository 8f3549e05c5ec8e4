/** The views over a store that answers when the test says so. */

import { expect, it } from 'vitest';
import type { LocalEvent } from '../src/event.js';
import type { StoredEntity } from '../src/store/database.js';
import { Views } from '../src/views.js';
import { order } from './support/order.js';

const own = (id: string, name: string, timestamp: number): LocalEvent => ({
  id: `00000000-0000-7000-8000-00000000000${timestamp}`,
  event_type: `order.${name}`,
  entity_type: 'order',
  entity_id: id,
  payload: { status: name },
  timestamp,
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

it('does not say of an entity that is still being read that there is none', async () => {
  const answers: (() => void)[] = [];
  const answer = <T>(value: T): Promise<T> => new Promise((resolve) => answers.push(() => resolve(value)));
  const stored: StoredEntity = { baseline: null, events: [{ ...own('o1', 'created', 1), client_seq: 1 }] };
  const views = new Views(new Map([['order', order]]));
  views.attach({ readEntities: (refs) => answer(refs.map(() => stored)), readType: () => answer(new Map([['o1', stored]])) });
  const seen: unknown[] = [];
  views.list('order');
  views.subscribe(['order', 'o1'], () => seen.push(views.entity(['order', 'o1'])));
  // It changes while it is read, and by itself it makes no entity.
  views.add(own('o1', 'state_changed', 2));
  answers.shift()?.();
  const listed = views.states('order');
  while (views.list('order').isLoading) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    answers.shift()?.();
  }
  expect(await listed).toEqual([{ id: 'o1', data: { id: 'o1', status: 'state_changed' } }]);
  expect(seen).not.toContainEqual({ data: null, isLoading: false, error: null });
});
