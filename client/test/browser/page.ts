/** The page under test: the orders example without a user interface; tests reach the client as `window.client`. */

import { Dexie, type EntityTable } from 'dexie';
import { applyStored, type EntityDefinition } from '../../src/entity.js';
import { compareEvents } from '../../src/fold.js';
import { HeadwaterClient, type JsonObject, type LocalEvent, type RecordedEvent, type State } from '../../src/index.js';
import { parseRules } from '../../src/rules.js';
import { order } from '../support/order.js';

const parameters = new URLSearchParams(location.search);

/** A table that had rows before it was enabled. */
const account: EntityDefinition = {
  type: 'account',
  rules: parseRules({ created: { rule: 'create' }, noted: { rule: 'set', fields: ['note'] }, deleted: { rule: 'delete' } }),
  keyOf: (id) => ({ id: Number(id) }),
};

const client = new HeadwaterClient([parameters.get('entity') === 'account' ? account : order]);

const ahead = Number(parameters.get('ahead_ms') ?? 0);

client.configure({
  url: parameters.get('url') ?? '',
  tenantId: 'cafe',
  userId: parameters.get('user') ?? 'ada',
  ...(parameters.has('token') ? { getToken: ({ refresh }) => window.token(refresh) } : {}),
  ...(ahead === 0 ? {} : { now: () => performance.timeOrigin + performance.now() + ahead }),
});

/** What a page does by itself, without the client: for comparison. */
class Plain extends Dexie {
  declare readonly rows: EntityTable<LocalEvent, 'id'>;

  constructor() {
    super('plain', { chromeTransactionDurability: 'relaxed' });
    this.version(1).stores({ rows: 'id, [entity_type+entity_id]' });
  }
}

const plain = new Plain();

declare global {
  interface Window {
    client: HeadwaterClient;
    /** A test gives it where the address asks for tokens. */
    token: (refresh: boolean) => Promise<string>;
    record: (name: string, id: string, payload: JsonObject) => RecordedEvent;
    /** Whether the device's store has no unfolded entity. */
    folded: () => Promise<boolean>;
    refold: (events: readonly LocalEvent[]) => State | null;
    plain: {
      put: (event: LocalEvent) => Promise<unknown>;
      fill: (events: readonly LocalEvent[]) => Promise<unknown>;
      open: () => Promise<number>;
      /** Posts so many events in batches of 500; events a second. */
      post: (events: number) => Promise<number>;
    };
  }
}

window.client = client;
window.record = (name, id, payload) => client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload });

window.folded = async () => {
  const [name = ''] = (await Dexie.getDatabaseNames()).filter((one) => one.startsWith('headwater:'));
  const store = await new Dexie(name).open();
  const open = await store.table('unfolded').count();
  store.close();
  return open === 0;
};

// What a client does when an event comes that sorts among those that it has.
window.refold = (events) => events.reduce<State | null>((state, event) => applyStored(state, event, order, null), null);

window.plain = {
  put: (event) => plain.rows.put({ ...event, id: crypto.randomUUID() }),
  fill: (events) => plain.rows.bulkPut([...events]),
  open: async () => {
    const byEntity = new Map<string, LocalEvent[]>();
    for (const event of await plain.rows.toArray()) byEntity.set(event.entity_id, [...(byEntity.get(event.entity_id) ?? []), event]);
    return [...byEntity.values()].map((events) => window.refold(events.sort(compareEvents))).length;
  },
  post: async (events) => {
    const start = performance.now();
    for (let from = 0; from < events; from += 500) {
      const batch = Array.from({ length: 500 }, (_, n) => {
        const payload = from < 1000 ? { status: 'open', items: [] } : { item: { id: n, name: 'soup', price: '4.50' } };
        const entity_id = `00000000-0000-4000-9000-${String((from + n) % 1000).padStart(12, '0')}`;
        return { id: crypto.randomUUID(), event_type: from < 1000 ? 'order.created' : 'order.item_added', entity_type: 'order', entity_id, payload, timestamp: new Date().toISOString(), tenant_id: 'cafe' };
      });
      await fetch(`${parameters.get('url') ?? ''}/api/v1/events/batch`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ events: batch }) });
    }
    return (events * 1000) / (performance.now() - start);
  },
};
