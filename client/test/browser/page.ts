/** The page under test: the orders example without a user interface; tests reach the client as `window.client`. */

import { applyStored, type EntityDefinition } from '../../src/entity.js';
import { HeadwaterClient, type LocalEvent, type State } from '../../src/index.js';
import { parseRules } from '../../src/rules.js';

const parameters = new URLSearchParams(location.search);

const order: EntityDefinition = {
    type: 'order',
    rules: parseRules({
      created: { rule: 'create' },
      item_added: { rule: 'append', field: 'items', value: 'item' },
      item_removed: { rule: 'remove', field: 'items', where: { id: 'item_id' } },
      state_changed: { rule: 'set', fields: ['status'] },
      deleted: { rule: 'delete' },
    }),
    keyOf: (id) => ({ id }),
};

const client = new HeadwaterClient([order]);

const ahead = Number(parameters.get('ahead_ms') ?? 0);

client.configure({
  url: parameters.get('url') ?? '',
  tenantId: 'cafe',
  userId: parameters.get('user') ?? 'ada',
  ...(parameters.has('token') ? { getToken: ({ refresh }) => window.token(refresh) } : {}),
  ...(ahead === 0 ? {} : { now: () => performance.timeOrigin + performance.now() + ahead }),
});

declare global {
  interface Window {
    client: HeadwaterClient;
    /** A test gives it where the address asks for tokens. */
    token: (refresh: boolean) => Promise<string>;
    refold: (id: string) => State | null;
  }
}

window.client = client;

// What a client does when an event comes that sorts among those that it has.
const folded = new Map<string, readonly LocalEvent[]>();
window.refold = (id) => {
  const events = folded.get(id);
  if (events === undefined) void client.getEventsForEntity('order', id).then((read) => folded.set(id, read));
  return (events ?? []).reduce<State | null>((state, event) => applyStored(state, event, order, null), null);
};
