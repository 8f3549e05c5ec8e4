/** The client on a model of the server: what a device shows, sends, keeps and mends. */

import 'fake-indexeddb/auto';
import { afterEach, describe, expect, it } from 'vitest';
import { HeadwaterClient } from '../src/client.js';
import { isConfirmed } from '../src/event.js';
import { equal } from '../src/json.js';
import { Database, databaseName } from '../src/store/database.js';
import { parseUpcasts } from '../src/upcast.js';
import { locks } from './support/locks.js';
import { eventually, newDevice, order, QUICK, start } from './support/orders.js';
import { ModelServer, type ServerOptions } from './support/server.js';

const open: HeadwaterClient[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((client) => client.close()));
});

function device(server: ModelServer, url = newDevice(), more: Parameters<typeof start>[2] = {}): HeadwaterClient {
  const client = start(server, url, more);
  open.push(client);
  return client;
}

function record(client: HeadwaterClient, name: string, payload: Record<string, unknown> = {}, id = 'o1') {
  return client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload: payload as never });
}

const view = (client: HeadwaterClient, id = 'o1') => client.views.entity(['order', id]);

describe.each([{ snapshots: false }, { snapshots: true }])('with %j', (options: ServerOptions) => {
  it('shows a mutation at once and the server has it soon', async () => {
    const server = new ModelServer(order, options);
    const client = device(server);
    record(client, 'created', { status: 'open' });
    expect(view(client).data).toEqual({ id: 'o1', status: 'open' });
    record(client, 'item_added', { item: { id: 1 } });
    expect(view(client).data).toEqual({ id: 'o1', status: 'open', items: [{ id: 1 }] });
    await client.sync();
    expect(server.state('o1')).toEqual({ status: 'open', items: [{ id: 1 }] });
    await eventually('the stream brings the server copies', async () => (await client.getEventsForEntity('order', 'o1')).every(isConfirmed));
    expect(view(client).data).toEqual({ id: 'o1', status: 'open', items: [{ id: 1 }] });
  });

  it('keeps what was written offline over a restart', async () => {
    const server = new ModelServer(order, options);
    server.fault = () => 'lost';
    const url = newDevice();
    const first = device(server, url);
    await record(first, 'created', { status: 'open' }).stored;
    await record(first, 'tipped', { amount: '0.10' }).stored;
    await eventually('the user is told', () => first.syncStatus().isFailing);
    expect(first.syncStatus()).toMatchObject({ unsynced: 2, connection: 'offline' });
    await first.close();
    const second = device(server, url);
    expect(await second.materialize('order', 'o1')).toEqual({ id: 'o1', status: 'open', tip: '0.10' });
    server.fault = () => 'none';
    await eventually('all is sent', () => server.events.length === 2);
    await eventually('the status says so', () => second.syncStatus().unsynced === 0 && second.syncStatus().failures === 0);
    expect(server.state('o1')).toEqual({ status: 'open', tip: '0.10' });
  });

  it('sends nothing twice in effect when answers are lost', async () => {
    const server = new ModelServer(order, options);
    let batches = 0;
    // No stream until the batch was sent again: it would bring the events, and there would be nothing to send.
    server.fault = () => {
      const request = server.requests.at(-1);
      if (request === '/events/batch') return ++batches % 2 === 1 ? 'answer lost' : 'twice';
      return request === '/events/stream' && batches < 2 ? 'lost' : 'none';
    };
    const client = device(server);
    record(client, 'created', { items: [] });
    for (let n = 0; n < 20; n += 1) record(client, 'item_added', { item: n });
    await eventually('all is sent', () => client.syncStatus().unsynced === 0 && server.events.length === 21);
    expect(server.posted.length).toBeGreaterThan(21);
    expect(server.state('o1')?.['items']).toEqual(Array.from({ length: 20 }, (_, n) => n));
    await eventually('and shown', () => equal(view(client).data?.['items'] ?? null, Array.from({ length: 20 }, (_, n) => n)));
  });

  it('takes a refused event out of the state and keeps it for the user', async () => {
    const refused = new Set<string>();
    const server = new ModelServer(order, {
      ...options,
      judge: (event) => (event['event_type'] === 'order.state_changed' && !refused.has('off') ? 'constraint_violation' : undefined),
    });
    const client = device(server);
    record(client, 'created', { status: 'open' });
    record(client, 'state_changed', { status: 'paid' });
    expect(view(client).data).toMatchObject({ status: 'paid' });
    await eventually('the refusal is shown', () => client.rejectedEvents().length === 1);
    await eventually('and the state is without it', () => view(client).data?.['status'] === 'open');
    expect(client.syncStatus()).toMatchObject({ rejected: 1, unsynced: 0 });
    const [rejected] = client.rejectedEvents();
    expect(rejected?.event.rejection).toMatchObject({ code: 'constraint_violation' });
    refused.add('off');
    await rejected?.retry();
    await eventually('it is sent anew', () => server.state('o1')?.['status'] === 'paid');
    await eventually('and gone from the list', () => client.rejectedEvents().length === 0);
    refused.clear();
    record(client, 'state_changed', { status: 'void' });
    await eventually('another is refused', () => client.rejectedEvents().length === 1);
    await client.rejectedEvents()[0]?.discard();
    await eventually('and discarded', () => client.rejectedEvents().length === 0);
    expect(view(client).data).toMatchObject({ status: 'paid' });
  });

  it('brings two devices together', async () => {
    const server = new ModelServer(order, options);
    const [a, b] = [device(server), device(server)];
    await record(a, 'created', { status: 'open', items: [] }).stored;
    await a.sync();
    await eventually('b has it', async () => (await b.materialize('order', 'o1')) !== null);
    server.fault = () => 'lost';
    server.breakStreams();
    for (let n = 0; n < 5; n += 1) {
      record(a, 'item_added', { item: { id: `a${n}` } });
      record(b, 'item_added', { item: { id: `b${n}` } });
    }
    record(b, 'item_removed', { item_id: 'b0' });
    record(a, 'state_changed', { status: 'paid' });
    record(b, 'state_changed', { status: 'void' });
    server.fault = () => 'none';
    await eventually('both show what the server has', () => {
      const truth = { ...server.state('o1'), id: 'o1' };
      return server.events.length === 14 && equal(view(a).data, truth) && equal(view(b).data, truth);
    });
  });

  it('shows lists, and what others write', async () => {
    const server = new ModelServer(order, options);
    server.capture('created', 'x', { status: 'open' });
    const client = device(server);
    expect(client.views.list('order')).toMatchObject({ isLoading: true });
    let told = 0;
    client.views.subscribeList('order', () => (told += 1));
    await eventually('x is listed', () => client.views.list('order').data.length === 1);
    server.capture('created', 'y', { status: 'open' });
    record(client, 'created', { status: 'mine' }, 'z');
    expect(client.views.list('order').data.map(({ id }) => id)).toContain('z');
    await eventually('y too', () => client.views.list('order').data.length === 3);
    expect(client.views.list('order')).toBe(client.views.list('order'));
    server.capture('deleted', 'x', {});
    await eventually('x is gone', () => client.views.list('order').data.map(({ id }) => id).join('') === 'yz');
    expect(told).toBeGreaterThan(2);
  });

  it('sends again what a restored server has lost', async () => {
    const server = new ModelServer(order, options);
    const [a, b] = [device(server), device(server)];
    await record(a, 'created', { status: 'open', items: [] }).stored;
    await a.sync();
    server.makeBackup();
    record(a, 'item_added', { item: 1 });
    record(b, 'item_added', { item: 2 });
    server.capture('updated', 'o1', { status: 'paid' });
    await Promise.all([a.sync(), b.sync()]);
    await eventually('both have all', () => [a, b].every((client) => equal(view(client).data, { ...server.state('o1'), id: 'o1' })));
    await eventually('confirmed', async () => (await a.getEventsForEntity('order', 'o1')).every(isConfirmed));
    server.restoreBackup();
    // Both happened in the same millisecond: their ids decide who is first.
    const both = () => [...((server.state('o1')?.['items'] ?? []) as number[])].sort().join() === '1,2';
    await eventually('the devices brought their own events back', both);
    await eventually('and show what the server has now', () =>
      [a, b].every((client) => equal(view(client).data, { ...server.state('o1'), id: 'o1' })),
    );
    expect(server.state('o1')?.['status']).toBe('open');
    expect(a.rejectedEvents()).toEqual([]);
  });

  it('stamps its events anew when its clock was wrong by an hour', async () => {
    const server = new ModelServer(order, options);
    const client = device(server, newDevice(), { now: () => Date.now() + 3_600_000 });
    record(client, 'created', { status: 'open' });
    record(client, 'state_changed', { status: 'paid' });
    await eventually('all is taken', () => server.events.length === 2);
    expect(Math.abs((server.events[0]?.timestamp ?? 0) - Date.now() * 1000)).toBeLessThan(60_000_000);
    expect(server.state('o1')).toEqual({ status: 'paid' });
    record(client, 'state_changed', { status: 'closed' });
    await eventually('later events are right at once', () => server.events.length === 3);
    expect(server.posted.length).toBe(5);
    expect(client.rejectedEvents()).toEqual([]);
  });

  it('keeps the order of what waits in several batches when the clock was wrong', async () => {
    const server = new ModelServer(order, options);
    const client = device(server, newDevice(), { now: () => Date.now() + 3_600_000, sync: { ...QUICK, batchEvents: 2 } });
    record(client, 'created', { items: [] });
    for (let item = 1; item <= 9; item += 1) record(client, 'item_added', { item });
    await eventually('all is taken', () => server.events.length === 10);
    expect(server.state('o1')).toEqual({ items: [1, 2, 3, 4, 5, 6, 7, 8, 9] });
    expect(client.rejectedEvents()).toEqual([]);
  });

  it('reads and settles while a batch is on its way and never sends two at a time', async () => {
    let posting = 0;
    let most = 0;
    const server = new ModelServer(order, options);
    const fetch: typeof globalThis.fetch = async (input, init) => {
      const isBatch = String(input).endsWith('/events/batch');
      if (isBatch) most = Math.max(most, (posting += 1));
      try {
        return await server.fetch(input, init);
      } finally {
        if (isBatch) posting -= 1;
      }
    };
    const client = device(server, newDevice(), { transport: { fetch }, sync: { ...QUICK, batchEvents: 3 } });
    record(client, 'created', { items: [] });
    const items = Array.from({ length: 30 }, (_, item) => item);
    for (const item of items) record(client, 'item_added', { item });
    await client.sync();
    expect(most).toBe(1);
    expect(server.events).toHaveLength(31);
    expect(server.state('o1')).toEqual({ items });
  });

  it('forgets an entity that the server has erased, its own events and states included', async () => {
    const server = new ModelServer(order, { ...options, judge: (event) => (JSON.stringify(event['payload']).includes('void') ? 'constraint_violation' : undefined) });
    const url = newDevice();
    const client = device(server, url);
    server.capture('created', 'o1', { guest: 'Ada' });
    record(client, 'state_changed', { status: 'Ada paid' });
    record(client, 'state_changed', { status: 'Ada void' });
    record(client, 'created', { status: 'open' }, 'o2');
    await client.sync();
    const database = new Database(databaseName(url, null, null));
    const text = async (): Promise<string> => JSON.stringify(await Promise.all([database.events.toArray(), database.baselines.toArray(), database.folded.toArray()]));
    await eventually('both are listed', async () => (await client.views.states('order')).map(({ id }) => id).join() === 'o1,o2');
    await eventually('states are folded, one is refused', async () => (await database.folded.count()) === 2 && client.rejectedEvents().length === 1);
    expect(await text()).toContain('Ada');
    server.fault = () => (server.requests.at(-1) === '/events/batch' ? 'unavailable' : 'none');
    await record(client, 'state_changed', { status: 'Ada once more' }).stored;
    server.capture('erased', 'o1', {});
    await eventually('it is gone', () => view(client).data === null && !view(client).isLoading);
    expect(await text()).not.toContain('Ada');
    await eventually('nothing of it is refused or unsent', () => client.rejectedEvents().length === 0 && client.syncStatus().unsynced === 0);
    server.fault = () => 'none';
    // The same key may be used once more.
    server.capture('created', 'o1', { guest: 'Bea' });
    await eventually('another has its key', () => view(client).data?.['guest'] === 'Bea');
    expect(client.views.list('order').data.map(({ id }) => id)).toEqual(['o1', 'o2']);
    database.close();
  });

  it('asks for a new token when one has expired', async () => {
    let valid = 'one';
    const server = new ModelServer(order, { ...options, admits: (authorization) => authorization === `Bearer ${valid}` });
    let token = 'one';
    const asked: boolean[] = [];
    const getToken = ({ refresh }: { refresh: boolean }): string => {
      asked.push(refresh);
      if (refresh) token = valid;
      return token;
    };
    const client = device(server, newDevice(), { getToken });
    await record(client, 'created', { status: 'open' }).stored;
    await client.sync();
    valid = 'two';
    record(client, 'state_changed', { status: 'paid' });
    await eventually('it was sent with the new token', () => server.events.length === 2);
    expect(asked).toContain(true);
  });

  it('goes on with a new token when one expires in the middle of a stream', async () => {
    let valid = 'one';
    const server = new ModelServer(order, { ...options, admits: (authorization) => authorization === `Bearer ${valid}` });
    const asked: boolean[] = [];
    const getToken = ({ refresh }: { refresh: boolean }): string => {
      asked.push(refresh);
      return refresh ? valid : 'one';
    };
    const client = device(server, newDevice(), { getToken });
    await eventually('it listens', () => client.syncStatus().connection === 'live');
    expect(asked).not.toContain(true);
    valid = 'two';
    server.expireStreams();
    server.capture('created', 'o1', { status: 'open' });
    await eventually('what happened meanwhile comes', async () => (await client.materialize('order', 'o1')) !== null);
    expect(asked).toContain(true);
    expect(client.syncStatus().failures).toBe(0);
  });

  it('sends own events from before its retention again to a server that was restored', async () => {
    const DAY = 24 * 3600 * 1000;
    let now = Date.now();
    const server = new ModelServer(order, { ...options, now: () => now * 1000 });
    const url = newDevice();
    const more = { now: () => now };
    const first = device(server, url, more);
    server.makeBackup();
    record(first, 'created', { status: 'open', items: [] });
    for (let n = 0; n < 5; n += 1) record(first, 'item_added', { item: n });
    await first.sync();
    // A snapshot that came later would hold what others did, without its event.
    await eventually('it listens', () => first.syncStatus().connection === 'live');
    now += 1000;
    server.capture('updated', 'o1', { note: 'of others' });
    await eventually('all is confirmed', async () => (await first.getEventsForEntity('order', 'o1')).filter(isConfirmed).length === 7);
    await first.close();
    now += 8 * DAY;
    const second = device(server, url, more);
    await eventually('it was compacted', () => second.exportDebugLog().includes('"compacted"'));
    expect((await second.getEventsForEntity('order', 'o1')).map(({ source }) => source)).toEqual(Array(6).fill('client'));
    expect(await second.materialize('order', 'o1')).toEqual({ id: 'o1', status: 'open', items: [0, 1, 2, 3, 4], note: 'of others' });
    record(second, 'item_added', { item: 5 });
    await second.sync();
    server.restoreBackup();
    await eventually('the server has the own ones again', () => equal(server.state('o1'), { status: 'open', items: [0, 1, 2, 3, 4, 5] }));
    await eventually('and that is shown', () => equal(view(second).data, { ...server.state('o1'), id: 'o1' }));
    await second.sync();
    await second.close();
    now += 31 * DAY;
    const third = device(server, url, more);
    await eventually('a month later they are gone', async () => (await third.getEventsForEntity('order', 'o1')).length === 0);
    expect(await third.materialize('order', 'o1')).toEqual({ id: 'o1', status: 'open', items: [0, 1, 2, 3, 4, 5] });
    expect(third.rejectedEvents()).toEqual([]);
  });

  it('compacts what is old and still shows and mends the state', async () => {
    let now = Date.now();
    const server = new ModelServer(order, { ...options, now: () => now * 1000 });
    const url = newDevice();
    const more = { now: () => now, retentionDays: 7, ownRetentionDays: 7 };
    const first = device(server, url, more);
    record(first, 'created', { status: 'open', items: [] });
    for (let n = 0; n < 10; n += 1) record(first, 'item_added', { item: n });
    await first.sync();
    await eventually('confirmed', async () => (await first.getEventsForEntity('order', 'o1')).every(isConfirmed));
    await first.close();
    now += 8 * 24 * 3600 * 1000;
    server.capture('updated', 'o1', { status: 'paid' });
    const second = device(server, url, more);
    await eventually('old events are gone', async () => (await second.getEventsForEntity('order', 'o1')).length <= 1)
    await eventually('the state is whole', () => equal(view(second).data, { id: 'o1', status: 'paid', items: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] }));
    if (options.snapshots !== true) return;
    // An event that happened before what is in the baseline: the server is asked.
    server.capture('updated', 'o1', { note: 'late', status: 'draft' }, (server.events[0]?.timestamp ?? 0) + 1);
    await eventually('the late event took its place', () => equal(view(second).data, { ...server.state('o1'), id: 'o1' }) && view(second).data?.['note'] === 'late');
  });
});

describe('recording', () => {
  it('refuses at once what the server would refuse', () => {
    const client = device(new ModelServer(order));
    expect(() => record(client, 'eaten')).toThrow('"order.eaten" is no event of "order"');
    expect(() => record(client, 'item_added')).toThrow('lacks "item"');
    expect(() => record(client, 'created', { at: new Date() })).toThrow('payload.at is a Date');
    expect(() => record(client, 'created', { n: NaN })).toThrow('NaN');
    expect(() => record(client, 'created', { s: 'a\0' })).toThrow('u0000');
    expect(() => record(client, 'created', { s: '\ud800' })).toThrow('surrogate');
    expect(() => record(client, 'created', { s: 'x'.repeat(1024 * 1024) })).toThrow('at most');
    expect(() => client.recordEvent({ event_type: 'cup.created', entity_type: 'cup', entity_id: '1', payload: {} })).toThrow('no entity type');
  });

  it('copies the payload', () => {
    const client = device(new ModelServer(order));
    const item = { id: 1 };
    record(client, 'item_added', { item });
    const { event } = record(client, 'created', { items: [item] });
    item.id = 2;
    expect(event.payload).toEqual({ items: [{ id: 1 }] });
  });

  it('polls where streams do not come through', async () => {
    const server = new ModelServer(order);
    const noStreams = ((input: string, init?: RequestInit) =>
      input.includes('/events/stream') ? Promise.resolve(new Response(null, { status: 501 })) : server.fetch(input, init)) as typeof fetch;
    const client = device(server, newDevice(), { transport: { fetch: noStreams } });
    await eventually('it polls', () => client.syncStatus().connection === 'polling');
    server.capture('created', 'x', { status: 'open' });
    await eventually('x comes', async () => (await client.materialize('order', 'x')) !== null);
  });

  it('polls for what the server does not push', async () => {
    const server = new ModelServer(order, { pushesNothing: true });
    server.capture('created', 'before', { status: 'open' });
    const client = device(server);
    await eventually('it polls', () => client.syncStatus().connection === 'polling');
    server.capture('created', 'x', { status: 'open' });
    await eventually('x comes', async () => (await client.materialize('order', 'x')) !== null);
  });

  it('listens over a WebSocket where streams stay mute', async () => {
    const server = new ModelServer(order);
    // A proxy that holds streams back: they open, and nothing comes.
    const mute = ((input: string, init?: RequestInit) =>
      input.includes('/events/stream') ? Promise.resolve(new Response(new ReadableStream())) : server.fetch(input, init)) as typeof fetch;
    const subscribed: string[] = [];
    class Socket extends EventTarget {
      onopen: (() => void) | null = null;
      onmessage: ((message: { data: string }) => void) | null = null;
      onclose: ((close: { code: number; reason: string }) => void) | null = null;
      private readonly stop = new AbortController();
      constructor() {
        super();
        queueMicrotask(() => this.onopen?.());
      }
      send(text: string): void {
        subscribed.push(text);
        const { cursor } = JSON.parse(text) as { cursor: string };
        void (async () => {
          const answer = await server.fetch(`http://server.test/api/v1/events/stream?cursor=${cursor}`, { signal: this.stop.signal });
          for await (const piece of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) this.onmessage?.({ data: piece });
          this.onclose?.({ code: 1000, reason: '' });
        })().catch(() => undefined);
      }
      close(): void {
        this.stop.abort();
      }
    }
    const transport = { fetch: mute, WebSocket: Socket as unknown as typeof WebSocket, silenceMs: 15 };
    const client = device(server, newDevice(), { transport, getToken: () => 'secret' });
    await eventually('it listens', () => client.syncStatus().connection === 'live');
    expect(JSON.parse(subscribed[0] ?? '')).toMatchObject({ type: 'subscribe', token: 'secret', entity_type: 'order' });
    server.capture('created', 'x', { status: 'open' });
    await eventually('x comes', async () => (await client.materialize('order', 'x')) !== null);
  });

  it('lifts the states of an older application and asks for them anew', async () => {
    const server = new ModelServer(order, { snapshots: true });
    server.capture('created', 'x', { status: 'open' });
    const url = newDevice();
    const first = device(server, url);
    await eventually('x is there', async () => (await first.materialize('order', 'x')) !== null);
    await first.close();
    server.fault = () => 'lost';
    const renamed = { ...order, version: 2, upcasts: parseUpcasts({ state: { 1: [{ step: 'rename', field: 'status', to: 'phase' }] } }) };
    const second = new HeadwaterClient([renamed]);
    open.push(second);
    second.configure({ url, transport: { fetch: server.fetch }, sync: QUICK, platform: { locks } });
    expect(await second.materialize('order', 'x')).toEqual({ id: 'x', phase: 'open' });
    server.capture('updated', 'x', { phase: 'closed' });
    server.fault = () => 'none';
    const asked = server.requests.length;
    await eventually('what the server has now is shown', async () => (await second.materialize('order', 'x'))?.['phase'] === 'closed');
    expect(server.requests.slice(asked)).toContain('/entities/order/snapshot');
  });

  it('finds the one event that spoils a request', async () => {
    const server = new ModelServer(order);
    const picky = (async (input: string, init: RequestInit = {}) => {
      const packed = new Headers(init.headers).get('content-encoding') === 'gzip';
      const text = new Response(packed ? (new Response(init.body ?? '').body?.pipeThrough(new DecompressionStream('gzip')) ?? null) : (init.body ?? ''));
      if (input.includes('/events/batch') && (await text.text()).includes('huge')) return new Response('{"code":"too_large"}', { status: 413 });
      return server.fetch(input, init);
    }) as typeof fetch;
    const client = device(server, newDevice(), { transport: { fetch: picky } });
    for (let n = 0; n < 9; n += 1) record(client, 'created', { note: n === 4 ? 'huge' : 'small' }, `o${n}`);
    await eventually('the others are taken', () => server.events.length === 8);
    await eventually('it alone is refused', () => client.rejectedEvents().length === 1);
    expect(client.rejectedEvents()[0]?.event).toMatchObject({ entity_id: 'o4', rejection: { code: 'too_large' } });
  });
});
