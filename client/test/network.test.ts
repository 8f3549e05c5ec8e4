/** Networks at their worst: proxies that answer for the server, connections that stall, tokens that cannot be had. */

import 'fake-indexeddb/auto';
import { afterEach, expect, it, vi } from 'vitest';
import type { HeadwaterClient } from '../src/client.js';
import { equal } from '../src/json.js';
import type { Session } from '../src/session.js';
import { streamBySse } from '../src/sync/stream.js';
import { Transport } from '../src/sync/transport.js';
import { eventually, newDevice, order, QUICK, start } from './support/orders.js';
import { ModelServer } from './support/server.js';

const open: HeadwaterClient[] = [];

afterEach(async () => {
  vi.useRealTimers();
  await Promise.all(open.splice(0).map((client) => client.close()));
});

function device(server: ModelServer, more: Parameters<typeof start>[2] = {}): HeadwaterClient {
  const client = start(server, newDevice(), more);
  open.push(client);
  return client;
}

function record(client: HeadwaterClient, name: string, payload: Record<string, string> = {}) {
  return client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: 'o1', payload });
}

/** The server behind something that answers some requests itself. */
function behind(server: ModelServer, answer: (path: string) => Response | undefined): { transport: { fetch: typeof fetch } } {
  return { transport: { fetch: async (input, init) => answer(new URL(String(input)).pathname.replace('/api/v1', '')) ?? server.fetch(input, init) } };
}

const page = (status: number): Response => new Response('<html>default backend</html>', { status, headers: { 'content-type': 'text/html' } });

it.each([400, 404, 405, 410, 422])('takes no event for refused because a proxy says %i', async (status) => {
  const server = new ModelServer(order, { snapshots: true });
  let answers = 5;
  const client = device(server, behind(server, () => (answers-- > 0 ? page(status) : undefined)));
  record(client, 'created', { status: 'open' });
  await eventually('it tells what is wrong', () => client.syncStatus().error?.code === `http_${status}`);
  expect(client.syncStatus().error?.message).toContain('not by Headwater');
  await eventually('the server has it', () => server.events.length === 1 && client.syncStatus().unsynced === 0);
  expect(client.rejectedEvents()).toEqual([]);
});

it('does not believe a proxy that there is no such entity', async () => {
  const server = new ModelServer(order, { snapshots: true });
  server.capture('created', 'o1', { status: 'open' });
  let lies = 3;
  const client = device(server, behind(server, (path) => (path === '/entities/order/o1' && lies-- > 0 ? page(404) : undefined)));
  await eventually('it has the entity', async () => (await client.materialize('order', 'o1')) !== null);
  // It sorts before what the baseline has, so the server is asked.
  server.capture('updated', 'o1', { note: 'late' }, (server.events[0]?.timestamp ?? 0) - 1);
  server.capture('updated', 'o1', { status: 'paid' });
  const shown: unknown[] = [];
  client.views.subscribe(['order', 'o1'], () => shown.push(client.views.entity(['order', 'o1']).data));
  await eventually('what it is told in the end', () => lies < 0 && equal(client.views.entity(['order', 'o1']).data, { ...server.state('o1'), id: 'o1' }));
  expect(shown).not.toContain(null);
});

it('says so where an address is no Headwater', async () => {
  const client = device(new ModelServer(order), behind(new ModelServer(order), () => page(200)));
  record(client, 'created');
  await expect(client.sync()).rejects.toThrow("is this address Headwater's?");
});

it('asks for a snapshot again that stalls in the middle', async () => {
  const server = new ModelServer(order, { snapshots: true });
  for (const id of ['a', 'b', 'c']) server.capture('created', id, { status: 'open' });
  let stalls = 2;
  const stalled = (): Response => new Response(new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode('{"entity_id":"a","state":{},"position":1,"last":null}\n')) }));
  const { transport } = behind(server, (path) => (path.endsWith('/snapshot') && stalls-- > 0 ? stalled() : undefined));
  const client = device(server, { transport: { ...transport, silenceMs: 20 } });
  record(client, 'created', { status: 'mine' });
  await eventually('all is there', async () => (await client.views.states('order')).length === 4);
  await eventually('and the server has what was recorded', () => server.state('o1') !== null);
});

it('goes on where the first try to send everything again fails', async () => {
  const server = new ModelServer(order);
  const client = device(server, { sync: { ...QUICK, receive: 'polling' } });
  server.makeBackup();
  record(client, 'created', { status: 'open' });
  await client.sync();
  await eventually('it listens', () => client.syncStatus().connection === 'polling');
  const { outbox } = (client as unknown as { readonly session: Session }).session.store;
  vi.spyOn(outbox, 'resendAll').mockRejectedValueOnce(new DOMException('the disk is full', 'QuotaExceededError'));
  server.restoreBackup();
  await eventually('the server has it again', () => server.events.length === 1 && server.state('o1')?.['status'] === 'open');
  await eventually('and all is well', () => client.syncStatus().connection === 'polling' && client.syncStatus().isLeader);
});

it('says what to do where there is no room for what the server tells', async () => {
  const server = new ModelServer(order);
  const client = device(server);
  await eventually('it listens', () => client.syncStatus().connection === 'live');
  const { inbox } = (client as unknown as { readonly session: Session }).session.store;
  vi.spyOn(inbox, 'applyEvents').mockRejectedValueOnce(new DOMException('of the browser', 'QuotaExceededError'));
  const told: unknown[] = [];
  client.subscribeStatus(() => told.push(client.syncStatus().error?.code));
  server.capture('created', 'o1', { status: 'open' });
  await eventually('it comes nevertheless', async () => (await client.materialize('order', 'o1')) !== null);
  expect(told).toContain('storage_full');
});

it('tells when the application has no token to give', async () => {
  const server = new ModelServer(order);
  let failures = 4;
  const getToken = (): string => {
    if (failures-- > 0) throw new Error('the session is over');
    return 'secret';
  };
  const client = device(server, { getToken });
  record(client, 'created');
  await eventually('it is told', () => client.syncStatus().error?.code === 'no_token');
  expect(client.syncStatus().error?.message).toBe('getToken failed: the session is over');
  await eventually('it goes on with the next one', () => server.events.length === 1);
});

it('closes while the application is still getting a token', async () => {
  const client = device(new ModelServer(order), { getToken: () => new Promise<string>(() => undefined) });
  await record(client, 'created').stored;
  await client.close();
});

/** A stream of which the test says what comes when. */
function streamOf(pieces: ReadableStream<Uint8Array>, silenceMs: number) {
  const transport = new Transport({ url: 'http://a.test', fetch: () => Promise.resolve(new Response(pieces)), silenceMs });
  return streamBySse(transport, { entity_type: 'order' }, new AbortController().signal);
}

it('takes no reader that is slow for a server that is silent', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  let say: (text: string) => void = () => undefined;
  const stream = streamOf(new ReadableStream({
    start: (controller) => {
      say = (text) => controller.enqueue(new TextEncoder().encode(text));
    },
  }), 1000);
  for (let n = 1; n <= 5; n += 1) {
    say(`id: ${n}\n\n`);
    expect((await stream.next()).value).toMatchObject({ cursor: String(n) });
    // It writes into its store, while the server goes on speaking.
    await vi.advanceTimersByTimeAsync(800);
    say(`id: ${n}.5\n\n`);
    await vi.advanceTimersByTimeAsync(800);
    expect((await stream.next()).value).toMatchObject({ cursor: `${n}.5` });
  }
  const next = stream.next();
  const fallen = expect(next).rejects.toThrow('the stream fell silent');
  await vi.advanceTimersByTimeAsync(1100);
  await fallen;
});

it('reads no further ahead than its reader follows', async () => {
  let read = 0;
  const block = `data: ${JSON.stringify({ filler: 'x'.repeat(300_000) })}\n\n`;
  const pull = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
    read += 1;
    controller.enqueue(new TextEncoder().encode(block));
  };
  const pieces = new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 });
  const stream = streamOf(pieces, 60_000);
  const taken = async (): Promise<number> => {
    const next = await stream.next();
    return next.done === true ? 0 : next.value.events.length;
  };
  expect(await taken()).toBeGreaterThan(0);
  let before = -1;
  await eventually('it has stopped', async () => {
    await new Promise((resolve) => setTimeout(resolve, 0));
    const same = read === before;
    before = read;
    return same;
  });
  expect(read).toBeLessThan(15);
  for (let n = 0; n < 10; n += 1) expect(await taken()).toBeLessThan(8);
  await eventually('it reads on', () => read > before);
  await stream.return(undefined);
});
