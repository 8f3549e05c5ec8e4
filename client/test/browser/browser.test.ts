/** The client in real Chromium, against a real streamer and Postgres. Oracle: the row, and the event table. */

import { randomUUID } from 'node:crypto';
import type { Page } from 'playwright-core';
import { expect, it } from 'vitest';
import { explain as explainBy, record, shows, status, synced, type Payload } from './acts.js';
import { until, type Browsers, type Place } from './place.js';
import { stage } from './stage.js';

let place: Place;
let browsers: Browsers;

stage((made) => ({ place, browsers } = made));

const row = (id: string): Payload | null => place.row(id);
const eventsOf = (id: string): number => place.eventsOf(id);
const explain = (...pages: Page[]): void => explainBy(place, ...pages);

it('keeps in Chromium what was written offline over a reload and syncs it', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const page = await device.tab();
  explain(page);
  const id = randomUUID();
  await device.setOffline(true);
  await record(page, 'created', id, { table_number: 7, status: 'open' });
  expect(await record(page, 'item_added', id, { item: { id: 1 } })).toEqual({ id, table_number: 7, status: 'open', items: [{ id: 1 }] });
  await device.load(page);
  await shows(page, id, { table_number: 7, items: [{ id: 1 }] });
  expect(row(id)).toBeNull();
  await device.setOffline(false);
  await page.evaluate(() => window.client.sync());
  expect(row(id)).toMatchObject({ table_number: 7, status: 'open', items: [{ id: 1 }], tenant_id: 'cafe' });
  await until('the stream brings the server copies', () => page.evaluate(async (id) => (await window.client.getEventsForEntity('order', id)).every((event) => event.server_position !== null), id));
  // What others do to the row comes too.
  place.sql(`update orders set status = 'paid' where id = '${id}'`);
  await shows(page, id, { status: 'paid', items: [{ id: 1 }], tenant_id: 'cafe' });
  await device.context.close();
});

it('sends from one tab and shows in all', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const [first, second] = [await device.tab(), await device.tab()];
  explain(first, second);
  const senders = new Set<Page>();
  for (const page of [first, second]) {
    page.on('request', (request) => {
      if (request.url().endsWith('/events/batch')) senders.add(page);
    });
  }
  await until('one tab leads', async () => [await status(first), await status(second)].filter(({ isLeader }) => isLeader).length === 1);
  const id = randomUUID();
  await record(second, 'created', id, { status: 'open' });
  await shows(first, id, { status: 'open' });
  await record(first, 'item_added', id, { item: 'soup' });
  await shows(second, id, { items: ['soup'] });
  await Promise.all([synced(first), synced(second)]);
  await until('the row is there', () => JSON.stringify(row(id)?.['items']) === '["soup"]');
  expect(senders.size).toBe(1);
  await device.context.close();
});

it('hands the lead on when the leader closes in the middle of sending', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const [first, second] = [await device.tab(), await device.tab()];
  explain(first, second);
  await until('one tab leads', async () => [await status(first), await status(second)].some(({ isLeader }) => isLeader));
  const [leader, other] = (await status(first)).isLeader ? [first, second] : [second, first];
  const id = randomUUID();
  // The server takes the batch, and the answer never reaches the tab.
  let taken: () => void = () => undefined;
  const wasTaken = new Promise<void>((resolve) => (taken = resolve));
  await leader.route('**/events/batch', async (route) => {
    await route.fetch();
    taken();
  });
  await record(other, 'created', id, { status: 'open' });
  for (let n = 0; n < 5; n += 1) await record(other, 'item_added', id, { item: n });
  await wasTaken;
  const closed = Date.now();
  await leader.close();
  await until('the other leads', async () => (await status(other)).isLeader);
  expect(Date.now() - closed).toBeLessThan(1000);
  await synced(other);
  expect(eventsOf(id)).toBe(6);
  expect(row(id)?.['items']).toEqual([0, 1, 2, 3, 4]);
  await shows(other, id, { items: [0, 1, 2, 3, 4] });
  await device.context.close();
});

it('brings two devices together in Chromium that edited the same order offline', { timeout: 60_000 }, async () => {
  const devices = [await browsers.device(place, { user: 'ada' }), await browsers.device(place, { user: 'bob' })] as const;
  const [a, b] = [await devices[0].tab(), await devices[1].tab()];
  explain(a, b);
  const id = randomUUID();
  await record(a, 'created', id, { status: 'open', items: [] });
  await shows(b, id, { status: 'open' });
  await Promise.all(devices.map((device) => device.setOffline(true)));
  for (let n = 0; n < 3; n += 1) {
    await record(a, 'item_added', id, { item: { id: `a${n}` } });
    await record(b, 'item_added', id, { item: { id: `b${n}` } });
  }
  await record(a, 'state_changed', id, { status: 'paid' });
  await record(b, 'item_removed', id, { item_id: 'b1' });
  await Promise.all(devices.map((device) => device.setOffline(false)));
  await Promise.all([a, b].map((page) => page.evaluate(() => window.client.sync().catch(() => undefined))));
  await Promise.all([synced(a), synced(b)]);
  const truth = row(id);
  expect(truth).toMatchObject({ status: 'paid', items: ['a0', 'b0', 'a1', 'a2', 'b2'].map((id) => ({ id })) });
  await Promise.all([a, b].map((page) => shows(page, id, { status: 'paid', items: truth?.['items'] })));
  await Promise.all(devices.map((device) => device.context.close()));
});

it('shows in Chromium what the table itself refused', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const page = await device.tab();
  explain(page);
  place.sql("alter table orders add constraint no_void check (status <> 'void')");
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open' });
  await record(page, 'state_changed', id, { status: 'void' });
  await until('the refusal is shown', async () => (await status(page)).rejected === 1);
  await shows(page, id, { status: 'open' });
  const rejection = await page.evaluate(() => window.client.rejectedEvents()[0]?.event.rejection);
  expect(rejection).toMatchObject({ code: 'constraint_violation', constraint: 'no_void' });
  place.sql('alter table orders drop constraint no_void');
  await page.evaluate(() => window.client.rejectedEvents()[0]?.retry());
  await until('it is taken', () => row(id)?.['status'] === 'void');
  await until('and gone from the list', async () => (await status(page)).rejected === 0);
  // What nobody wants any more is discarded, and stays so over a reload.
  place.sql("alter table orders add constraint no_gift check (status <> 'gift')");
  await record(page, 'state_changed', id, { status: 'gift' });
  await until('the next refusal is shown', async () => (await status(page)).rejected === 1);
  await page.evaluate(() => window.client.rejectedEvents()[0]?.discard());
  await until('it is gone', async () => (await status(page)).rejected === 0);
  await device.load(page);
  await shows(page, id, { status: 'void' });
  expect((await status(page)).rejected).toBe(0);
  expect(row(id)?.['status']).toBe('void');
  place.sql('alter table orders drop constraint no_gift');
  await device.context.close();
});

it('mends in Chromium a clock that is an hour ahead', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place, { ahead_ms: '3600000' });
  const page = await device.tab();
  explain(page);
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open' });
  await record(page, 'state_changed', id, { status: 'paid' });
  await until('the row is there', () => row(id)?.['status'] === 'paid');
  expect((await status(page)).rejected).toBe(0);
  expect(Number(place.sql(`select count(*) from headwater.event where entity_id = '${id}' and occurred_at > now()`))).toBe(0);
  await device.context.close();
});

it('survives in Chromium a streamer that is killed', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const page = await device.tab();
  explain(page);
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open', items: [] });
  await synced(page);
  await place.stopStreamer('SIGKILL');
  await record(page, 'item_added', id, { item: 1 });
  place.sql(`update orders set status = 'paid' where id = '${id}'`);
  await until('the page knows that it is offline', async () => (await status(page)).connection === 'offline');
  await place.startStreamer();
  await shows(page, id, { status: 'paid', items: [1] });
  await synced(page);
  expect(row(id)).toMatchObject({ status: 'paid', items: [1] });
  await device.context.close();
});

it('brings in Chromium its events back to a server restored from a backup', { timeout: 120_000 }, async () => {
  const device = await browsers.device(place);
  const page = await device.tab();
  explain(page);
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open', items: [] });
  await synced(page);
  await place.backup();
  await record(page, 'item_added', id, { item: 'kept' });
  await until('it is at the server', () => JSON.stringify(row(id)?.['items']) === '["kept"]');
  place.sql(`update orders set status = 'paid' where id = '${id}'`);
  await shows(page, id, { status: 'paid', items: ['kept'] });
  await place.restore();
  await until('the device brought its event back', () => JSON.stringify(row(id)?.['items']) === '["kept"]', 60_000);
  await shows(page, id, { status: 'open', items: ['kept'] });
  expect((await status(page)).rejected).toBe(0);
  await device.context.close();
});

it('says in Chromium that the device is full and keeps what it took', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const page = await device.context.newPage();
  const cdp = await device.context.newCDPSession(page);
  // Before the database is opened: Chromium remembers how much room there was.
  await cdp.send('Storage.overrideQuotaForOrigin', { origin: device.origin, quotaSize: 3_000_000 });
  await device.load(page);
  explain(page);
  await until('the first download is complete', async () => (await status(page)).ready);
  await device.setOffline(true);
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open', items: [] });
  const { taken, code } = await page.evaluate(async (id) => {
    const stored: Promise<void>[] = [];
    Object.assign(window, { stored });
    for (let n = 1; n <= 300; n += 1) {
      try {
        stored.push(window.client.recordEvent({ event_type: 'order.item_added', entity_type: 'order', entity_id: id, payload: { item: { n, text: Array.from({ length: 1000 }, () => crypto.randomUUID()).join('') } } }).stored);
      } catch (thrown) {
        return { taken: n - 1, code: (thrown as { code?: string }).code };
      }
      await Promise.race([stored.at(-1), new Promise((resolve) => setTimeout(resolve, 50))]);
    }
    return { taken: 300, code: 'none' };
  }, id);
  expect(code).toBe('storage_full');
  expect(taken).toBeGreaterThan(10);
  expect((await status(page)).storage).toBe('full');
  await cdp.send('Storage.overrideQuotaForOrigin', { origin: device.origin });
  // What was taken while there was no room waits in memory, and is written now.
  await page.evaluate(() => Promise.all((window as unknown as { stored: Promise<void>[] }).stored));
  await until('there is room', async () => (await status(page)).storage === 'ok');
  await device.setOffline(false);
  await page.evaluate(() => window.client.sync().catch(() => undefined));
  await synced(page);
  expect(eventsOf(id)).toBe(taken + 1);
  await device.context.close();
});

it('listens in Chromium over a WebSocket where streams do not come through', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  await device.context.route('**/events/stream**', (route) => route.fulfill({ status: 501 }));
  const page = await device.context.newPage();
  const sockets: string[] = [];
  page.on('websocket', (socket) => sockets.push(socket.url()));
  await device.load(page);
  explain(page);
  await until('it listens', async () => (await status(page)).connection === 'live');
  expect(sockets).toEqual([expect.stringMatching(/^ws:.*\/events\/ws$/)]);
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open', items: [] });
  await synced(page);
  place.sql(`update orders set status = 'paid' where id = '${id}'`);
  await shows(page, id, { status: 'paid', items: [] });
  await device.context.close();
});
