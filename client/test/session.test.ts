/** What outlives a moment: sessions that end, refused events, full devices, clocks that are put right, connections that close. */

import 'fake-indexeddb/auto';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { HeadwaterClient } from '../src/client.js';
import type { Configuration } from '../src/configuration.js';
import { isConfirmed } from '../src/event.js';
import { parseRules } from '../src/rules.js';
import type { Session } from '../src/session.js';
import { INITIAL_SYNC_STATUS } from '../src/status.js';
import { databaseName } from '../src/store/database.js';
import { parseUpcasts } from '../src/upcast.js';
import { locks } from './support/locks.js';
import { eventually, newDevice, order, QUICK, start, within } from './support/orders.js';
import { ModelServer } from './support/server.js';

const open: HeadwaterClient[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((client) => client.close()));
  vi.unstubAllGlobals();
});

function device(server: ModelServer, url = newDevice(), more: Partial<Configuration> = {}, definition = order): HeadwaterClient {
  const client = new HeadwaterClient([definition]);
  client.configure({ url, transport: { fetch: server.fetch }, sync: QUICK, platform: { locks, BroadcastChannel }, ...more });
  open.push(client);
  return client;
}

function record(client: HeadwaterClient, name: string, payload: Record<string, unknown> = {}, id = 'o1') {
  return client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload: payload as never });
}

const sessionOf = (client: HeadwaterClient): Session => (client as unknown as { readonly session: Session }).session;
const view = (client: HeadwaterClient, id = 'o1') => client.views.entity(['order', id]);

it('shows nothing any more of a session that has ended', async () => {
  const server = new ModelServer(order);
  const client = device(server);
  await client.sync();
  server.fault = () => 'slow';
  record(client, 'created');
  await eventually('it is sending', () => client.syncStatus().sending);
  await client.close();
  expect(client.syncStatus()).toEqual(INITIAL_SYNC_STATUS);
  await expect(client.sync()).rejects.toThrow('call configure');
});

it('is ready when it leads after another tab that was', async () => {
  const server = new ModelServer(order);
  const url = newDevice();
  const [leading, waiting] = [device(server, url), device(server, url)];
  await eventually('one leads, and both are ready', () => leading.syncStatus().isLeader && leading.syncStatus().ready && waiting.syncStatus().ready);
  const seen: boolean[] = [];
  waiting.subscribeStatus(() => seen.push(waiting.syncStatus().ready));
  server.fault = () => 'lost';
  await leading.close();
  await eventually('the other one leads, and has noticed', () => waiting.syncStatus().isLeader && waiting.syncStatus().connection === 'offline');
  expect(seen).not.toContain(false);
});

it('tells who waits for sending that it was closed', async () => {
  const server = new ModelServer(order);
  server.fault = () => 'slow';
  const client = device(server);
  await record(client, 'created').stored;
  const sent = expect(client.sync()).rejects.toMatchObject({ code: 'closed' });
  await eventually('it is sending', () => client.syncStatus().sending);
  await client.close();
  await sent;
});

describe('a refused event', () => {
  const judge = (event: { readonly [name: string]: unknown }): string | undefined => (JSON.stringify(event['payload']).includes('void') ? 'constraint_violation' : undefined);

  async function refused(server: ModelServer, url = newDevice(), definition = order) {
    const client = device(server, url, {}, definition);
    record(client, 'created', { status: 'open' });
    record(client, 'tipped', { amount: '1', note: 'void' });
    await eventually('it is refused', () => client.rejectedEvents().length === 1);
    const [one] = client.rejectedEvents();
    if (one === undefined) throw new Error('nothing is refused');
    return { client, one };
  }

  it('is sent anew once by two clicks', async () => {
    const options = { judge };
    const server = new ModelServer(order, options);
    const { client, one } = await refused(server);
    options.judge = () => undefined;
    await Promise.all([one.retry(), one.retry()]);
    await one.retry();
    await client.sync();
    await eventually('the list is empty', () => client.rejectedEvents().length === 0);
    expect(server.events.map(({ name }) => name)).toEqual(['created', 'tipped']);
  });

  it('belongs to its session alone', async () => {
    const server = new ModelServer(order, { judge });
    const { client, one } = await refused(server);
    client.configure({ url: newDevice(), userId: 'bob', transport: { fetch: server.fetch }, sync: QUICK, platform: { locks } });
    await expect(one.retry()).rejects.toMatchObject({ code: 'closed' });
    await expect(one.discard()).rejects.toMatchObject({ code: 'closed' });
    expect(await client.getEventsForEntity('order', 'o1')).toEqual([]);
  });

  it('stays when the server turns out to have it, whatever somebody still wants to do with it', async () => {
    const server = new ModelServer(order, { judge });
    const { client, one } = await refused(server);
    await eventually('it listens, and the other one is confirmed', async () => client.syncStatus().connection === 'live' && (await client.getEventsForEntity('order', 'o1')).some(isConfirmed));
    const [wire] = server.events.map((event) => event.wire);
    const { id, event_type, payload } = one.event;
    await sessionOf(client).store.inbox.applyEvents([{ ...wire, id, event_type, payload, position: 1000 } as never], null);
    await one.discard();
    await one.retry();
    const events = await sessionOf(client).store.readEntities([['order', 'o1']]);
    expect(events[0]?.events.map((event) => [event.event_type, event.status])).toEqual([['order.created', 'accepted'], ['order.tipped', 'accepted']]);
    expect(server.posted).toHaveLength(2);
  });

  it('is sent anew in the present form when the application was updated', async () => {
    const options = { judge };
    const server = new ModelServer(order, options);
    const url = newDevice();
    const { client } = await refused(server, url);
    await client.close();
    options.judge = () => undefined;
    const upcasts = parseUpcasts({ events: { tipped: { 1: [{ step: 'rename', field: 'note', to: 'remark' }] } } });
    const second = device(server, url, {}, { ...order, version: 2, versions: { tipped: 2 }, upcasts });
    await eventually('it is told of', () => second.rejectedEvents().length === 1);
    expect(second.rejectedEvents()[0]?.event.payload).toEqual({ amount: '1', remark: 'void' });
    await second.rejectedEvents()[0]?.retry();
    await second.sync();
    expect(server.events.at(-1)?.wire).toMatchObject({ schema_version: 2, payload: { amount: '1', remark: 'void' } });
  });
});

it('closes without waiting for the tab that leads', async () => {
  const server = new ModelServer(order);
  const url = newDevice();
  const leading = device(server, url);
  await eventually('it leads', () => leading.syncStatus().isLeader);
  const waiting = device(server, url);
  await waiting.materialize('order', 'o1');
  await within('a tab that waited to lead is closed', waiting.close(), 2000);
  await within('a tab that had not opened its database is closed', device(server, url).close(), 2000);
  expect(leading.syncStatus().isLeader).toBe(true);
});

it('records again in every tab once somebody has made room', async () => {
  let usage = 99;
  const storage = { persist: () => Promise.resolve(true), estimate: () => Promise.resolve({ usage, quota: 100 }) };
  const server = new ModelServer(order);
  const url = newDevice();
  const tabs = [1, 2].map(() => device(server, url, { platform: { locks, BroadcastChannel, storage } }));
  for (const [n, tab] of tabs.entries()) {
    await record(tab, 'created', {}, `o${n}`).stored;
    await eventually('it is full', () => tab.syncStatus().storage === 'full');
    expect(() => record(tab, 'created')).toThrow('no room');
  }
  usage = 10;
  for (const tab of tabs) {
    await eventually('there is room', () => tab.syncStatus().storage === 'ok');
    await record(tab, 'created').stored;
  }
});

describe('an error of the application', () => {
  it('in a listener keeps nothing from being stored and nobody from being told', async () => {
    const reported: unknown[] = [];
    vi.stubGlobal('reportError', (thrown: unknown) => reported.push(thrown));
    const client = device(new ModelServer(order));
    let told = 0;
    const fail = (): never => {
      throw new Error('of the page');
    };
    for (const subscribe of [client.views.subscribe.bind(client.views, ['order', 'o1']), client.views.subscribeList.bind(client.views, 'order'), client.subscribeStatus.bind(client)]) {
      subscribe(fail);
      subscribe(() => (told += 1));
    }
    await record(client, 'created', { status: 'open' }).stored;
    await client.sync();
    expect(told).toBeGreaterThan(2);
    expect(reported).toContainEqual(new Error('of the page'));
  });

  it('in a merge function is told as the error of that entity, and its event is stored and sent', async () => {
    const rules = { ...order.rules, ...parseRules({ state_changed: { rule: 'custom', function: 'app.state' } }) };
    const customs = {
      'app.state': () => {
        throw new Error('of the merge function');
      },
    };
    const definition = { ...order, rules, customs };
    const server = new ModelServer({ ...definition, customs: { 'app.state': (state) => state } });
    const url = newDevice();
    const client = device(server, url, {}, definition);
    record(client, 'created', {}, 'o1');
    record(client, 'created', {}, 'o2');
    await client.views.states('order');
    await record(client, 'state_changed', { status: 'paid' }).stored;
    expect(view(client).error?.message).toBe('of the merge function');
    expect(client.views.list('order')).toMatchObject({ data: [{ id: 'o2' }], error: { message: 'of the merge function' } });
    await expect(client.materialize('order', 'o1')).rejects.toThrow('of the merge function');
    await client.sync();
    expect(server.events).toHaveLength(3);
    await eventually('all is confirmed', async () => (await client.getEventsForEntity('order', 'o2')).every(isConfirmed));
    // Nor does it keep others from being compacted.
    await client.close();
    const later = device(server, url, { retentionDays: 0, ownRetentionDays: 0 }, definition);
    await eventually('the other one is compacted', async () => (await later.getEventsForEntity('order', 'o2')).length === 0);
    expect(await later.materialize('order', 'o2')).toEqual({ id: 'o2' });
  });
});

describe('a clock', () => {
  const HOUR = 3_600_000;

  it('that was corrected stays so over a restart', async () => {
    const server = new ModelServer(order);
    const url = newDevice();
    const ahead = { now: () => Date.now() + HOUR };
    const first = device(server, url, ahead);
    record(first, 'created');
    await first.sync();
    expect(server.posted).toHaveLength(2);
    await first.close();
    const second = device(server, url, ahead);
    await second.materialize('order', 'o1');
    const { event } = record(second, 'state_changed', { status: 'paid' });
    expect(Math.abs(event.timestamp / 1000 - Date.now())).toBeLessThan(60_000);
    await second.sync();
    expect(server.posted).toHaveLength(3);
  });

  it('that is put right is not taken for an hour behind for ever', async () => {
    let wrong = HOUR;
    const server = new ModelServer(order);
    const url = newDevice();
    const client = device(server, url, { now: () => Date.now() + wrong });
    record(client, 'created');
    await client.sync();
    await eventually('it is confirmed', async () => (await client.getEventsForEntity('order', 'o1')).every(isConfirmed));
    wrong = 0;
    server.capture('updated', 'o1', { status: 'paid' });
    await eventually('it has heard of the time', () => client.exportDebugLog().includes('the clock is right again'));
    expect(Math.abs(record(client, 'state_changed', { status: 'open' }).event.timestamp / 1000 - Date.now())).toBeLessThan(60_000);
    await client.close();
    const again = device(server, url);
    await again.materialize('order', 'o1');
    expect(Math.abs(record(again, 'state_changed', { status: 'open' }).event.timestamp / 1000 - Date.now())).toBeLessThan(60_000);
  });

  it('is corrected in all tabs', async () => {
    const server = new ModelServer(order);
    const url = newDevice();
    const ahead = { now: () => Date.now() + HOUR };
    const [leading, waiting] = [device(server, url, ahead), device(server, url, ahead)];
    await eventually('one leads', () => leading.syncStatus().isLeader);
    await record(waiting, 'created').stored;
    await eventually('it is sent', () => server.events.length === 1);
    await eventually('the other tab has heard', () => Math.abs(sessionOf(waiting).clock.time() / 1000 - Date.now()) < 60_000);
    await record(waiting, 'state_changed', { status: 'paid' }).stored;
    await waiting.sync();
    expect(server.posted).toHaveLength(3);
  });
});

describe('where a connection to the database is closed', () => {
  it('by another tab that brings the tables up to date, events are stored', async () => {
    const url = newDevice();
    const client = device(new ModelServer(order), url);
    await record(client, 'created').stored;
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    await new Promise<void>((resolve, reject) => {
      const opening = indexedDB.open(databaseName(url, null, null), 1000);
      opening.onsuccess = () => {
        opening.result.close();
        resolve();
      };
      opening.onerror = () => reject(new Error(opening.error?.message));
    });
    await record(client, 'state_changed', { status: 'paid' }).stored;
    expect((await client.getEventsForEntity('order', 'o1')).length).toBe(2);
  });

  it('by the browser, events are stored', async () => {
    const client = device(new ModelServer(order));
    await record(client, 'created').stored;
    sessionOf(client).store.database.backendDB().close();
    await record(client, 'state_changed', { status: 'paid' }).stored;
    expect((await client.getEventsForEntity('order', 'o1')).length).toBe(2);
  });
});

it('works in pages by plain HTTP, where browsers give no crypto.randomUUID and no locks', async () => {
  const real = globalThis.crypto;
  vi.stubGlobal('crypto', { getRandomValues: (bytes: Uint8Array<ArrayBuffer>) => real.getRandomValues(bytes) });
  const server = new ModelServer(order);
  const client = device(server, newDevice(), { platform: {} });
  record(client, 'created');
  await client.sync();
  expect(server.events[0]?.wire['client_id']).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

it('takes an address with and without a slash for the same server, and says what an address is', async () => {
  const server = new ModelServer(order);
  server.fault = () => 'lost';
  const url = newDevice();
  const first = start(server, url);
  await record(first, 'created').stored;
  await first.close();
  const second = device(server, `${url}/`);
  expect(await second.materialize('order', 'o1')).not.toBeNull();
  expect(() => second.configure({ url: 'localhost:4000' })).toThrow('begins with http:// or https://');
});

it('says at once what is wrong with an id', () => {
  const client = device(new ModelServer(order));
  const at = (id: unknown) => () => client.recordEvent({ event_type: 'order.created', entity_type: 'order', entity_id: id as string, payload: {} });
  expect(at('')).toThrow('entity_id is empty');
  expect(at(undefined)).toThrow('entity_id must be a string, not undefined');
  expect(at(7)).toThrow('entity_id must be a string, not number');
  expect(at('a\0')).toThrow('u0000');
  expect(at('é'.repeat(513))).toThrow('has 1026 bytes; at most 1024');
});

it('asks for a state as of a time to the microsecond', async () => {
  const asked: string[] = [];
  const fetch: typeof globalThis.fetch = (input) => {
    asked.push(new URL(String(input)).searchParams.get('as_of') ?? '');
    return Promise.resolve(Response.json({ state: { status: 'open' } }));
  };
  const client = new HeadwaterClient([order]);
  open.push(client);
  client.configure({ url: newDevice(), transport: { fetch }, sync: { ...QUICK, receive: 'polling' }, platform: { locks } });
  for (const asOf of ['2026-01-02T03:04:05.678901Z', '2026-01-02', new Date('2026-01-02T03:04:05.678Z')]) await client.fetchState('order', 'o1', { asOf });
  expect(asked.filter((one) => one !== '')).toEqual(['2026-01-02T03:04:05.678901Z', '2026-01-02T00:00:00.000000Z', '2026-01-02T03:04:05.678000Z']);
  await expect(client.fetchState('order', 'o1', { asOf: 'yesterday' })).rejects.toMatchObject({ code: 'invalid_time' });
});
