/** A list that opens from folded states shows what the events make, and goes on from there. */

import 'fake-indexeddb/auto';
import { Dexie } from 'dexie';
import { afterEach, expect, it } from 'vitest';
import { HeadwaterClient } from '../src/client.js';
import { isConfirmed } from '../src/event.js';
import { compareEvents } from '../src/fold.js';
import { equal, type JsonObject } from '../src/json.js';
import { parseRules } from '../src/rules.js';
import { Database, databaseName, putEvents, unfold } from '../src/store/database.js';
import { eventOf } from '../src/store/row.js';
import { locks } from './support/locks.js';
import { eventually, newDevice, order, QUICK, start } from './support/orders.js';
import { ModelServer } from './support/server.js';

const open: { close: () => unknown }[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});

function device(server: ModelServer, url: string, definition = order): HeadwaterClient {
  const client = definition === order ? start(server, url) : new HeadwaterClient([definition]);
  if (definition !== order) client.configure({ url, transport: { fetch: server.fetch } });
  open.push(client);
  return client;
}

function record(client: HeadwaterClient, name: string, payload: Record<string, unknown> = {}) {
  return client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: 'o1', payload: payload as never });
}

/** The device's database, seen beside the client. */
function databaseOf(url: string): Database {
  const database = new Database(databaseName(url, null, null));
  open.push(database);
  return database;
}

const folded = (database: Database): Promise<void> =>
  eventually('all is folded', async () => (await database.unfolded.count()) === 0 && (await database.folded.count()) > 0);

/** A device that has recorded an order with two items offline, and was closed when all was folded. */
async function closedDevice(server: ModelServer): Promise<{ url: string; database: Database }> {
  const url = newDevice();
  const client = device(server, url);
  server.fault = () => 'lost';
  record(client, 'created', { status: 'open', items: [] });
  record(client, 'item_added', { item: 1 });
  await record(client, 'item_added', { item: 2 }).stored;
  const database = databaseOf(url);
  await folded(database);
  await client.close();
  return { url, database };
}

const list = async (client: HeadwaterClient) => (await client.views.states('order')).map(({ data }) => data);

it('reads states alone, and events when somebody asks for them', async () => {
  const { url, database } = await closedDevice(new ModelServer(order));
  // Only so can be seen that it was not folded anew.
  const [row] = await database.folded.toArray();
  if (row !== undefined) await database.folded.put({ ...row, d: row.d.replace('open', 'as it was written down') });
  const client = device(new ModelServer(order), url);
  expect(await list(client)).toEqual([{ id: 'o1', status: 'as it was written down', items: [1, 2] }]);
  expect((await client.getEventsForEntity('order', 'o1')).map(({ event_type }) => event_type)).toEqual(['order.created', 'order.item_added', 'order.item_added']);
  expect(await list(client)).toEqual([{ id: 'o1', status: 'open', items: [1, 2] }]);
});

it('folds what comes on top at once, and what sorts among the unread ones where it belongs', async () => {
  const server = new ModelServer(order);
  const { url } = await closedDevice(server);
  const client = device(server, url);
  await list(client);
  const { event } = record(client, 'item_added', { item: 3 });
  expect(client.views.list('order').data[0]?.data).toEqual({ id: 'o1', status: 'open', items: [1, 2, 3] });
  server.fault = () => 'none';
  await client.sync();
  const truth = (): JsonObject => ({ ...server.state('o1'), id: 'o1' });
  const shows = (what: string) => eventually(what, () => equal(client.views.list('order').data[0]?.data ?? null, truth()));
  await shows('own events count once when the server has them');
  const [created] = server.events;
  server.capture('updated', 'o1', { status: 'late', items: [0] }, (created?.timestamp ?? 0) + 1);
  await shows('a late one stands beneath the items');
  expect(truth()).toMatchObject({ status: 'late', items: [0, 1, 2, 3] });
  server.capture('updated', 'o1', { status: 'paid' }, event.timestamp + 1);
  await shows('a new one on top');
  expect((await client.getEventsForEntity('order', 'o1')).every(isConfirmed)).toBe(true);
});

it('takes a refused event out of a state that was folded with it', async () => {
  const server = new ModelServer(order, { judge: (event) => ((event['payload'] as { item?: number }).item === 2 ? 'constraint_violation' : undefined) });
  const { url, database } = await closedDevice(server);
  const client = device(server, url);
  expect(await list(client)).toEqual([{ id: 'o1', status: 'open', items: [1, 2] }]);
  server.fault = () => 'none';
  await eventually('it is refused and gone', async () => JSON.stringify((await list(client))[0]?.['items']) === '[1]' && client.rejectedEvents().length === 1);
  await folded(database);
  await client.close();
  server.fault = () => 'lost';
  const again = device(server, url);
  expect(await list(again)).toEqual([{ id: 'o1', status: 'open', items: [1] }]);
  await eventually('it is told again', () => again.rejectedEvents().length === 1);
  await again.rejectedEvents()[0]?.discard();
  expect(await list(again)).toEqual([{ id: 'o1', status: 'open', items: [1] }]);
  await folded(database);
  await again.close();
  expect(await list(device(server, url))).toEqual([{ id: 'o1', status: 'open', items: [1] }]);
});

it('puts an own event where it belongs when its clock is behind what was folded', async () => {
  const server = new ModelServer(order);
  const { url } = await closedDevice(server);
  server.fault = () => 'none';
  const online = device(server, url);
  // Further ahead than a device follows.
  server.capture('updated', 'o1', { status: 'theirs' }, Date.now() * 1000 + 120_000_000);
  await online.sync();
  await eventually('it has all', async () => (await online.getEventsForEntity('order', 'o1')).length === 4);
  await folded(databaseOf(url));
  await online.close();
  server.fault = () => 'lost';
  const client = device(server, url);
  expect(await list(client)).toMatchObject([{ status: 'theirs' }]);
  const recorded = record(client, 'state_changed', { status: 'mine' });
  await eventually('it stands beneath theirs', () => client.views.list('order').data[0]?.data['status'] === 'theirs');
  await recorded.stored;
  expect((await client.getEventsForEntity('order', 'o1')).map(({ payload }) => payload['status'] ?? null)).toEqual(['open', null, null, 'mine', 'theirs']);
  expect(await list(client)).toMatchObject([{ status: 'theirs' }]);
});

it('counts an own event once when it is stamped anew behind the state that has it', async () => {
  const server = new ModelServer(order);
  const url = newDevice();
  const offline = { platform: { locks, BroadcastChannel }, sync: { ...QUICK, batchEvents: 1 } };
  server.fault = () => 'lost';
  // One after the other: the first one's clock was an hour ahead, and was put right before the second recorded.
  const [wrong, right] = [start(server, url, { ...offline, now: () => Date.now() + 3_600_000 }), start(server, url, offline)];
  open.push(wrong, right);
  const add = (client: HeadwaterClient, id: string, name: string, payload: JsonObject) => client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload }).stored;
  await add(wrong, 'o1', 'created', {});
  await add(right, 'o2', 'created', {});
  await add(right, 'o2', 'tipped', { amount: '1.50' });
  await folded(databaseOf(url));
  await Promise.all([wrong.close(), right.close()]);
  server.fault = () => 'none';
  const client = start(server, url, { sync: { ...QUICK, debounceMs: 50, batchEvents: 1 } });
  open.push(client);
  expect(await list(client)).toMatchObject([{ id: 'o1' }, { id: 'o2', tip: '1.50' }]);
  await client.sync();
  expect(server.events).toHaveLength(3);
  await eventually('all is confirmed', async () => (await client.getEventsForEntity('order', 'o1')).every(isConfirmed));
  expect(client.views.list('order').data[1]?.data).toEqual({ id: 'o2', tip: '1.50' });
});

it('shows all that was stored when it leads after a tab that died before it could tell', async () => {
  const server = new ModelServer(order);
  const url = newDevice();
  // Tabs that hear nothing of each other.
  const [leading, waiting] = [device(server, url), device(server, url)];
  server.capture('created', 'o1', { status: 'open' });
  await eventually('the leading one has it', () => leading.views.list('order').data.length === 1);
  await eventually('the other one too', async () => (await list(waiting)).length === 1);
  expect(await waiting.materialize('order', 'o2')).toBe(null);
  server.capture('updated', 'o1', { status: 'paid' });
  server.capture('created', 'o2', { status: 'open' });
  await eventually('the leading one has all', () => leading.views.list('order').data.length === 2);
  await folded(databaseOf(url));
  expect(waiting.views.list('order').data).toMatchObject([{ data: { status: 'open' } }]);
  server.fault = () => 'lost';
  await leading.close();
  await eventually('the other one shows all', () => equal(waiting.views.list('order').data.map(({ data }) => data), [{ id: 'o1', status: 'paid' }, { id: 'o2', status: 'open' }]));
});

it('shows what another tab stored and could not tell of before it died', async () => {
  const server = new ModelServer(order);
  const { url } = await closedDevice(server);
  const client = device(server, url);
  expect(await list(client)).toEqual([{ id: 'o1', status: 'open', items: [1, 2] }]);
  const database = databaseOf(url);
  const [last] = (await database.events.toArray()).map(eventOf).sort(compareEvents).slice(-1);
  if (last === undefined) throw new Error('nothing is stored');
  // Newer than all, and in the middle.
  const dead = [last.timestamp + 1, last.timestamp].map((timestamp, n) => ({ ...last, id: `00000000-0000-7000-8000-00000000000${n}`, payload: { item: `of the dead ${n}` }, timestamp, client_seq: 10 + n }));
  await database.transaction('rw', database.events, database.unfolded, async () => {
    await putEvents(database, dead);
    await unfold(database, [['order', 'o1']]);
  });
  server.fault = () => 'none';
  await eventually('all of it is shown', () => ((client.views.list('order').data[0]?.data['items'] ?? []) as unknown[]).length === 4);
  await client.sync();
  await eventually('as the server has it', () => equal(client.views.list('order').data[0]?.data ?? null, { ...server.state('o1'), id: 'o1' }));
});

it('folds anew when the application comes with other rules', async () => {
  const server = new ModelServer(order);
  const { url } = await closedDevice(server);
  const prepending = { ...order, rules: { ...order.rules, ...parseRules({ item_added: { rule: 'set' } }) } };
  expect(await list(device(server, url, prepending))).toEqual([{ id: 'o1', status: 'open', items: [], item: 2 }]);
});

it('is not folded ahead where the application merges with functions of its own', async () => {
  const server = new ModelServer(order);
  const url = newDevice();
  const rules = { ...order.rules, ...parseRules({ state_changed: { rule: 'custom', function: 'app.state' } }) };
  const merging = (mark: string): HeadwaterClient => device(server, url, { ...order, rules, customs: { 'app.state': (state) => ({ ...state, mark }) } });
  const first = merging('as it was');
  record(first, 'created', {});
  await record(first, 'state_changed', { status: 'paid' }).stored;
  expect(await list(first)).toEqual([{ id: 'o1', mark: 'as it was' }]);
  await first.sync();
  await first.close();
  expect(await list(merging('as it is now'))).toEqual([{ id: 'o1', mark: 'as it is now' }]);
});

it('knows the entities of a database from before there were folded states', async () => {
  const server = new ModelServer(order);
  const { url, database } = await closedDevice(server);
  const [events, meta] = await Promise.all([database.events.toArray(), database.meta.filter(({ key }) => !key.startsWith('folded:')).toArray()]);
  await database.delete();
  const older = new Dexie(database.name);
  older.version(1).stores({ events: '[t+e+i], u, x, r', baselines: '[entity_type+entity_id]', meta: 'key' });
  await older.table('events').bulkAdd(events);
  await older.table('meta').bulkAdd(meta);
  older.close();
  const client = device(server, url);
  expect(await list(client)).toEqual([{ id: 'o1', status: 'open', items: [1, 2] }]);
  await folded(databaseOf(url));
});
