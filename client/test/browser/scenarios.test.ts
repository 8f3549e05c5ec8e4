/**
 * What happens to people in a working day, in Chromium against a real streamer and Postgres: devices without a network, browsers and
 * servers that are killed, an hour in a tunnel, a table that moves over while it is used. Oracle: the row, and the event table.
 */

import { createHash, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { expect, it, onTestFinished } from 'vitest';
import { explain, record, shown, shows, status, synced, type Payload } from './acts.js';
import { until, Wire, type Browsers, type Place } from './place.js';
import { stage } from './stage.js';

let place: Place;
let browsers: Browsers;

stage((made) => ({ place, browsers } = made));

const ids = (count: number): string[] => Array.from({ length: count }, () => randomUUID());
const items = (count: number, name = 'item'): Payload[] => Array.from({ length: count }, (_, n) => ({ id: `${name} ${n}` }));

/** When an order's events of clients happened, microseconds by event id: at the server; on a device; and as a device tells it with the server's help. */
const stampsAtServer = (id: string): Record<string, number> =>
  JSON.parse(place.sql(`select coalesce(jsonb_object_agg(id, (extract(epoch from occurred_at) * 1000000)::int8), '{}') from headwater.event where entity_id = '${id}' and source = 'client'`)) as Record<string, number>;
const stampsOn = (page: Page, id: string, how: 'getEventsForEntity' | 'history' = 'getEventsForEntity'): Promise<Record<string, number>> =>
  page.evaluate(async ([id, how]) => Object.fromEntries((await window.client[how]('order', id)).filter((event) => event.source === 'client').map((event) => [event.id, event.timestamp])), [id, how] as const);

/** A way to the server that can be cut, to the test's end. */
async function wired(): Promise<Wire> {
  const wire = await Wire.to(place);
  onTestFinished(() => wire.end());
  return wire;
}

async function cut(wire: Wire, page: Page): Promise<void> {
  wire.cut(true);
  await until('the device is offline', async () => (await status(page)).connection === 'offline');
}

async function reconnect(wire: Wire, page: Page): Promise<void> {
  wire.cut(false);
  await page.evaluate(() => window.client.sync().catch(() => undefined));
  await synced(page);
}

it('two devices see each other when one comes back from offline and every time stays as it was', { timeout: 60_000 }, async () => {
  const wire = await wired();
  const [offline, online] = [await browsers.device(wire, { user: 'ada' }), await browsers.device(place, { user: 'bob' })];
  const [a, b] = [await offline.tab(), await online.tab()];
  explain(place, a, b);
  await until('A listens', async () => (await status(a)).connection === 'live');
  const [mine, theirs] = ids(2) as [string, string];
  await cut(wire, a);
  await record(a, 'created', mine, { table_number: 1, status: 'open', items: [] });
  for (const item of items(3)) await record(a, 'item_added', mine, { item });
  const before = await stampsOn(a, mine);
  await record(b, 'created', theirs, { table_number: 2, status: 'open', items: [] });
  await synced(b);
  expect(place.row(mine)).toBeNull();
  expect(await shown(a, theirs)).toBeNull();

  await reconnect(wire, a);
  for (const page of [a, b]) {
    await shows(page, mine, { table_number: 1, status: 'open', items: items(3) });
    await shows(page, theirs, { table_number: 2, status: 'open', items: [] });
  }
  expect(Object.keys(before)).toHaveLength(4);
  expect(stampsAtServer(mine)).toEqual(before);
  expect(await stampsOn(b, mine, 'history')).toEqual(before);
  expect(place.row(mine)).toMatchObject({ table_number: 1, items: items(3) });
  await Promise.all([offline.context.close(), online.context.close()]);
});

it('what was written offline outlives the browser that is killed', { timeout: 90_000 }, async () => {
  const profile = mkdtempSync(join(tmpdir(), 'headwater-profile-'));
  const wire = await wired();
  let browser = await browsers.process(wire, profile);
  onTestFinished(async () => {
    await browser.kill();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  let page = await browser.device.tab();
  explain(place, page);
  await until('it listens', async () => (await status(page)).connection === 'live');
  await cut(wire, page);
  const id = randomUUID();
  await record(page, 'created', id, { table_number: 5, status: 'open', items: [] });
  for (const item of items(5)) await record(page, 'item_added', id, { item });
  const before = await stampsOn(page, id);
  await browser.kill();

  browser = await browsers.process(wire, profile);
  page = await browser.device.tab();
  explain(place, page);
  await shows(page, id, { table_number: 5, status: 'open', items: items(5) });
  expect((await status(page)).unsynced).toBe(6);
  for (const item of items(2, 'later')) await record(page, 'item_added', id, { item });
  expect(place.row(id)).toBeNull();
  await reconnect(wire, page);
  const all = [...items(5), ...items(2, 'later')];
  await shows(page, id, { items: all });
  expect(place.row(id)).toMatchObject({ table_number: 5, status: 'open', items: all });
  expect(place.eventsOf(id)).toBe(8);
  expect(stampsAtServer(id)).toMatchObject(before);
});

it('after an hour offline a device goes on with a new token and its old stamps', { timeout: 60_000 }, async () => {
  await place.stopStreamer();
  await place.startStreamer({ origin: browsers.origin });
  onTestFinished(async () => {
    await place.stopStreamer();
    await place.startStreamer();
  });
  const HOUR_MS = 3_600_000;
  const TOLERANCE_S = 30;
  const wire = await wired();
  const device = await browsers.device(wire, { token: 'yes' });
  const asked: boolean[] = [];
  // Some die while the device listens, and one in the tunnel.
  let lifeS = 5 - TOLERANCE_S;
  let token = place.token('ada', 3 - TOLERANCE_S);
  await device.context.exposeFunction('token', (refresh: boolean) => {
    asked.push(refresh);
    if (refresh) token = place.token('ada', lifeS);
    return token;
  });
  const page = await device.context.newPage();
  explain(place, page);
  // The device begins an hour ago, so that it is right when the hour is over.
  await page.clock.install({ time: Date.now() - HOUR_MS });
  await device.load(page);
  await until('it listens', async () => (await status(page)).connection === 'live');
  await until('the server ended the stream with the token, and the device got another', () => asked.includes(true));
  const id = randomUUID();
  await record(page, 'created', id, { status: 'open', items: [] });
  await synced(page);
  await until('it listens again', async () => (await status(page)).connection === 'live');
  place.sql(`update orders set table_number = 9 where id = '${id}'`);
  await shows(page, id, { table_number: 9 });
  await cut(wire, page);
  for (const item of items(2, 'early')) await record(page, 'item_added', id, { item });
  // Meanwhile others go on, and the token dies.
  place.sql(`update orders set status = 'paid' where id = '${id}'`);
  const refused = async (): Promise<boolean> => (await fetch(`${place.url}/api/v1/events/since`, { headers: { authorization: `Bearer ${token}` } })).status === 401;
  await until('the token has expired', refused);
  lifeS = 600;
  const askedBefore = asked.filter((refresh) => refresh).length;
  await page.clock.fastForward(HOUR_MS);
  await record(page, 'item_added', id, { item: { id: 'late' } });
  const stamps = await stampsOn(page, id);
  const spread = Math.max(...Object.values(stamps)) - Math.min(...Object.values(stamps));
  expect(spread).toBeGreaterThanOrEqual(HOUR_MS * 1000);

  await reconnect(wire, page);
  expect(asked.filter((refresh) => refresh).length).toBeGreaterThan(askedBefore);
  const all = [...items(2, 'early'), { id: 'late' }];
  await shows(page, id, { status: 'paid', items: all });
  expect(place.row(id)).toMatchObject({ status: 'paid', items: all, tenant_id: 'cafe' });
  expect((await status(page)).rejected).toBe(0);
  expect(stampsAtServer(id)).toEqual(stamps);
  expect(place.sql(`select distinct user_id from headwater.event where entity_id = '${id}' and source = 'client'`)).toBe('ada');
  await device.context.close();
});

it('a server killed under two writing devices has every event once and both devices show what it has', { timeout: 120_000 }, async () => {
  const EVENTS = 150;
  const devices = [await browsers.device(place, { user: 'ada' }), await browsers.device(place, { user: 'bob' })] as const;
  const pages = [await devices[0].tab(), await devices[1].tab()] as const;
  explain(place, ...pages);
  const shared = ids(4);
  for (const id of shared) await record(pages[0], 'created', id, { status: 'open', items: [] });
  await synced(pages[0]);
  await Promise.all(shared.map((id) => shows(pages[1], id, { status: 'open' })));

  let writing = 2;
  const recorded = Promise.all(
    pages.map(async (page, who) => {
      const written = await page.evaluate(
        async ([orders, count, who]) => {
          const written: string[] = [];
          for (let n = 0; n < count; n += 1) {
            const id = orders[n % orders.length] ?? '';
            const draft = n % 10 === 9 ? window.record('state_changed', id, { status: `by ${who} ${n}` }) : window.record('item_added', id, { item: { id: `${who} ${n}` } });
            written.push(draft.event.id);
            await draft.stored;
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
          return written;
        },
        [shared, EVENTS, who] as const,
      );
      writing -= 1;
      return written;
    }),
  );
  const known = `from headwater.event where source = 'client' and entity_id in (${shared.map((id) => `'${id}'`).join(', ')})`;
  const count = (): number => Number(place.sql(`select count(*) ${known}`));
  for (const enough of [30, 90]) {
    await until(`the server has ${enough}`, () => count() >= enough);
    expect(writing, 'they still write').toBe(2);
    await place.stopStreamer('SIGKILL');
    await until('somebody noticed', async () => (await Promise.all(pages.map(status))).some(({ connection }) => connection !== 'live'));
    await place.startStreamer();
  }
  const all = [...(await recorded).flat()].sort();
  await Promise.all(pages.map((page) => page.evaluate(() => window.client.sync().catch(() => undefined))));
  await Promise.all(pages.map(synced));
  expect(place.sql(`select id ${known} and event_type <> 'order.created' order by id`).split('\n')).toEqual(all);
  for (const id of shared) {
    const { status: last, items: held } = place.row(id) ?? {};
    expect(new Set((held as Payload[]).map((item) => item['id'])).size).toBe((held as Payload[]).length);
    await Promise.all(pages.map((page) => shows(page, id, { status: last, items: held })));
  }
  await Promise.all(devices.map((device) => device.context.close()));
});

/** `HEADWATER_TEST_MIGRATION_ROWS=1000000` makes it long. */
const ROWS = Number(process.env['HEADWATER_TEST_MIGRATION_ROWS'] ?? 50_000);
const MIGRATION_MS = 120_000 + ROWS;

it('a large table moves over while it is used and a device has all of it', { timeout: MIGRATION_MS }, async () => {
  place.sql(
    `create table accounts (id int primary key, branch int not null, balance numeric(12, 2) not null default 0, note text);
     insert into accounts select n, n % 100, n / 4.0, case when n % 3 = 0 then 'account ' || n end from generate_series(1, ${ROWS}) n;
     create table before as select * from accounts`,
  );
  const load = place.pgbench(
    `\\set id random(1, ${ROWS})
\\set other random(${ROWS + 1}, ${ROWS * 4})
\\set amount random(-5000, 5000)
begin;
update accounts set balance = balance + :amount / 100.0 where id = :id;
insert into accounts (id, branch, note) values (:other, :other % 100, 'new') on conflict (id) do update set note = 'again';
delete from accounts where id = :id + 7 and id % 5 = 0;
commit;
`,
    // Slow enough to leave the machine's two cores something, fast enough that no batch of the backfill is alone.
    ['-c', '4', '-T', '3600', '--rate', '200', '--random-seed', '7'],
  );
  onTestFinished(() => load.stop());
  await until('pgbench writes', () => Number(place.sql('select count(*) from accounts where id > ' + String(ROWS))) > 0);
  const started = Date.now();
  place.sql(`select headwater.enable('accounts', entity => 'account', events => '{"created": {"rule": "create"}, "noted": {"rule": "set", "fields": ["note"]}, "deleted": {"rule": "delete"}}')`);
  const enabled = Date.now();
  place.sql(`call headwater.backfill('accounts')`);
  const backfilled = Date.now();
  expect(load.isWell, load.printed).toBe(true);

  const device = await browsers.device(place, { entity: 'account' });
  const page = await device.tab();
  explain(place, page);
  await until('the first download is complete', async () => (await status(page)).ready, MIGRATION_MS);
  const downloaded = Date.now();
  expect(load.isWell, load.printed).toBe(true);
  // The table is as any other now: a client's event changes a row.
  await page.evaluate(() => window.client.recordEvent({ event_type: 'account.noted', entity_type: 'account', entity_id: '3', payload: { note: 'by a device' } }).stored);
  await page.evaluate(() => window.client.sync());
  expect(place.sql('select note from accounts where id = 3')).toBe('by a device');
  expect(load.isWell, load.printed).toBe(true);
  await load.stop();

  const digest = (): string => place.sql(`select encode(sha256(convert_to(string_agg(concat_ws('|', id, branch, balance, coalesce(note, '-')), E'\\n' order by id), 'UTF8')), 'hex') from accounts`);
  const truth = digest();
  const onDevice = async (): Promise<string> => {
    const lines = await page.evaluate(async () => {
      const states = (await window.client.views.states('account')).map(({ data }) => data);
      states.sort((a, b) => Number(a['id']) - Number(b['id']));
      return states.map(({ id, branch, balance, note }) => [id, branch, balance, note ?? '-'].join('|')).join('\n');
    });
    return createHash('sha256').update(lines).digest('hex');
  };
  await until('the device has what the table has', async () => (await onDevice()) === truth, MIGRATION_MS / 2);
  console.log(`${ROWS} rows: enable ${enabled - started} ms, backfill ${backfilled - enabled} ms, first download ${downloaded - backfilled} ms; ${place.sql("select count(*) from headwater.event where entity_type = 'account'")} changes meanwhile`);
  // What was there before is known for that time: the baselines are the copy.
  const lost = place.sql(
    `select count(*) from before b tablesample system (${Math.min(100, 2_000_000 / ROWS)})
     where headwater.materialize('account', b.id::text, (select enabled_at from headwater.entity where entity_type = 'account'))->>'branch' is distinct from b.branch::text
       and not exists (select from headwater.event e where e.entity_type = 'account' and e.entity_id = b.id::text and e.event_type = 'account.deleted')
       and exists (select from accounts a where a.id = b.id)`,
  );
  expect(lost).toBe('0');
  expect(place.sql('select count(*) from headwater.check(true) where problem ~ \'account|baseline|snapshot\'')).toBe('0');
  await device.context.close();
});
