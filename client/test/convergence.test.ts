/**
 * Random scripts: devices that record events, close, crash and come back; others who write in SQL; a network that loses, repeats
 * and delays; streams that break; a server restored from a backup. Oracle: when all is quiet again, every device shows exactly
 * what the server's fold gives, and the server has every event that a device called stored, unless it was refused.
 * HEADWATER_CLIENT_SCRIPTS sets how many.
 */

import 'fake-indexeddb/auto';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { HeadwaterClient } from '../src/client.js';
import { isConfirmed } from '../src/event.js';
import { equal, type JsonObject } from '../src/json.js';
import type { EventStore } from '../src/store/eventStore.js';
import { eventually, newDevice, order, start, within } from './support/orders.js';
import { ModelServer, type Fault } from './support/server.js';

const SCRIPTS = Number(process.env['HEADWATER_CLIENT_SCRIPTS'] ?? 40);
const ENTITIES = ['a', 'b', 'c'] as const;

type Step =
  | { readonly do: 'record'; readonly device: number; readonly id: string; readonly name: string; readonly payload: JsonObject }
  | { readonly do: 'capture'; readonly id: string; readonly name: string; readonly payload: JsonObject; readonly agoMicros: number }
  | { readonly do: 'crash'; readonly device: number }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'network'; readonly faults: readonly Fault[] }
  | { readonly do: 'break streams' }
  | { readonly do: 'backup' }
  | { readonly do: 'restore' };

const device = fc.nat({ max: 1 });
const id = fc.constantFrom(...ENTITIES);
const payloads = fc.oneof(
  fc.record({ name: fc.constantFrom('created', 'state_changed'), payload: fc.record({ status: fc.constantFrom('open', 'paid', 'void') }) }),
  fc.record({ name: fc.constant('item_added'), payload: fc.record({ item: fc.record({ id: fc.nat({ max: 3 }) }) }) }),
  fc.record({ name: fc.constant('item_removed'), payload: fc.record({ item_id: fc.nat({ max: 3 }) }) }),
  fc.record({ name: fc.constant('tipped'), payload: fc.record({ amount: fc.constantFrom('0.10', '-1', '2.5') }) }),
  fc.record({ name: fc.constant('deleted'), payload: fc.constant({}) }),
);

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(device, id, payloads).map(([device, id, event]): Step => ({ do: 'record', device, id, ...event })) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(id, fc.constantFrom('created', 'updated', 'deleted'), fc.constantFrom('open', 'paid'), fc.nat({ max: 50_000 }))
      .map(([id, name, status, agoMicros]): Step => ({ do: 'capture', id, name, payload: { status }, agoMicros })),
  },
  { weight: 1, arbitrary: device.map((device): Step => ({ do: 'crash', device })) },
  { weight: 2, arbitrary: fc.nat({ max: 15 }).map((ms): Step => ({ do: 'wait', ms })) },
  {
    weight: 3,
    arbitrary: fc
      .array(fc.constantFrom<Fault>('none', 'lost', 'answer lost', 'twice', 'slow', 'unavailable'), { minLength: 1, maxLength: 5 })
      .map((faults): Step => ({ do: 'network', faults })),
  },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'break streams' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'backup' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'restore' }) },
);

const script = fc.record({
  snapshots: fc.boolean(),
  polling: fc.boolean(),
  refuses: fc.boolean(),
  /** Devices fold what they know into baselines whenever they come back. Without states from the server, late events could not be mended then. */
  compacts: fc.boolean(),
  steps: fc.array(step, { minLength: 5, maxLength: 40 }),
});

const storeOf = (client: HeadwaterClient): EventStore => (client as unknown as { readonly session: { readonly store: EventStore } }).session.store;

async function run({ snapshots, polling, refuses, compacts, steps }: typeof script extends fc.Arbitrary<infer T> ? T : never): Promise<void> {
  const server = new ModelServer(order, {
    snapshots,
    judge: (event) => (refuses && (event['payload'] as JsonObject)['status'] === 'void' ? 'constraint_violation' : undefined),
  });
  const urls = [newDevice(), newDevice()];
  const more = { sync: { debounceMs: 1, backoff: { baseMs: 1, maxMs: 5 }, pollMs: 3, restMs: 3, receive: polling ? 'polling' : 'auto' }, retentionDays: compacts && snapshots ? 0 : 7 } as const;
  const clients: HeadwaterClient[] = urls.map((url) => start(server, url, more));
  const stored = new Set<string>();
  const open = (client: HeadwaterClient): void => void client.views.list('order');
  const crashed: Promise<void>[] = [];
  clients.forEach(open);
  try {
    for (const one of steps) {
      const client = 'device' in one ? clients[one.device] : undefined;
      switch (one.do) {
        case 'record': {
          const recorded = client?.recordEvent({ event_type: `order.${one.name}`, entity_type: 'order', entity_id: one.id, payload: one.payload });
          void recorded?.stored.then(
            () => stored.add(recorded.event.id),
            () => undefined,
          );
          break;
        }
        case 'capture':
          server.capture(one.name, one.id, one.name === 'deleted' ? {} : one.payload, Date.now() * 1000 - one.agoMicros);
          break;
        case 'crash': {
          if (client !== undefined) crashed.push(client.close());
          const next = start(server, urls[one.device] ?? '', more);
          clients[one.device] = next;
          open(next);
          break;
        }
        case 'wait':
          await new Promise((resolve) => setTimeout(resolve, one.ms));
          break;
        case 'network': {
          let turn = 0;
          server.fault = () => one.faults[turn++ % one.faults.length] ?? 'none';
          break;
        }
        case 'break streams':
          server.breakStreams();
          break;
        case 'backup':
          server.makeBackup();
          break;
        case 'restore':
          server.restoreBackup();
          break;
      }
    }
    server.fault = () => 'none';
    await within('devices that crashed are closed', Promise.all(crashed));
    await Promise.all(clients.map((client) => eventually('sent', async () => client.sync().then(() => true, () => false))));
    const truth = () => ENTITIES.flatMap((id) => {
      const data = server.state(id);
      return data === null ? [] : [{ id, data: { ...data, id } }];
    });
    const shown = (client: HeadwaterClient) => JSON.parse(JSON.stringify(client.views.list('order').data)) as never;
    const settled = async (): Promise<string | undefined> => {
      for (const client of clients) {
        // An empty list may be one that nobody has filled yet.
        if (!client.syncStatus().ready) return 'a device has not heard of the server';
        const { inbox } = storeOf(client);
        // What makes no difference to what is shown may make one to what is written down.
        if ((await inbox.cursor()) !== server.head() || (await inbox.stale()).length > 0) return 'a device has not heard everything';
        if (!equal(shown(client), truth())) return 'a device shows something else';
        for (const entity of ENTITIES) {
          const own = (await client.getEventsForEntity('order', entity)).filter((event) => event.status !== 'rejected');
          if (!own.every(isConfirmed)) return 'an event is unconfirmed';
        }
      }
      const known = new Set(server.events.map((event) => event.id));
      for (const client of clients) for (const { event } of client.rejectedEvents()) known.add(event.id);
      return [...stored].every((one) => known.has(one)) ? undefined : 'the server lacks an event';
    };
    let last: string | undefined;
    await eventually('all is settled', async () => (last = await settled()) === undefined).catch((error: unknown) => {
      const shows = clients.map((client) => JSON.stringify(shown(client))).join('\n      ');
      throw new Error(`${String(error)}: ${last}\nserver ${JSON.stringify(truth())}\nshown ${shows}\n${clients.map((client) => client.exportDebugLog()).join('\n--\n')}`);
    });
    expect(new Set(server.events.map((event) => event.id)).size).toBe(server.events.length);
    // What was written down shows the same without the server, folded or not.
    server.fault = () => 'lost';
    await within('devices are closed', Promise.all(clients.map((client) => client.close())));
    for (const [index, url] of urls.entries()) {
      const client = start(server, url, more);
      clients[index] = client;
      const list = await within('what was written down is read', client.views.states('order'));
      expect(JSON.parse(JSON.stringify(list))).toEqual(truth());
    }
  } finally {
    await within('devices are closed in the end', Promise.all(clients.map((client) => client.close())));
  }
}

it('brings every device to what the server has whatever the network does', { timeout: 1_200_000 }, async () => {
  await fc.assert(fc.asyncProperty(script, run), { numRuns: SCRIPTS, endOnFailure: process.env['HEADWATER_CLIENT_SHRINK'] === undefined });
});
