/**
 * TanStack DB on ElectricSQL's collections, and ElectricSQL's React hook, as npm has them, against a real streamer and Postgres, in Node and in
 * Chromium. Oracle: the same question asked in SQL.
 */

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BTreeIndex, and, coalesce, concat, createCollection, createLiveQueryCollection, eq, gt, gte, ilike, inArray, isNull, length, like, lower, lt, lte, not, or, upper } from '@tanstack/db';
import { electricCollectionOptions } from '@tanstack/electric-db-collection';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { app, type App, type Sale, type Write } from './electricApp.js';
import { Browsers, Place, until } from './place.js';

let place: Place;
let browsers: Browsers;

beforeAll(async () => {
  [place, browsers] = await Promise.all([Place.start(), Browsers.start(new URL('./electricApp.tsx', import.meta.url).pathname)]);
}, 60_000);

afterAll(async () => {
  await Promise.all([browsers.stop(), place.stop()]);
}, 60_000);

const BUYERS = 20;
const SALES = 200;

const text = (value: string): string => `'${value.replaceAll("'", "''")}'`;
const json = (sql: string): unknown => JSON.parse(place.sql(`select coalesce(json_agg(r order by id), '[]') from (${sql}) r`));

/** Two tables of a test's own, published. */
function tables(name: string): { sales: string; buyers: string } {
  const [sales, buyers] = [`${name}_sales`, `${name}_buyers`];
  place.sql(
    `create table ${buyers} (id int primary key, name text not null);
     create table ${sales} (id int primary key, buyer int not null, title text not null check (title <> 'forbidden'), open boolean not null);
     grant select on ${buyers}, ${sales} to headwater_streamer; select headwater.publish('${buyers}'), headwater.publish('${sales}');
     insert into ${buyers} select n, 'buyer ' || n from generate_series(1, ${BUYERS}) n;
     insert into ${sales} select n, 1 + n % ${BUYERS}, 'sale ' || n, n % 4 = 0 from generate_series(1, ${SALES}) n`,
  );
  return { sales, buyers };
}

/** The application's own server: writes to the table, and answers with the transaction's id, as ElectricSQL's guide has it. */
async function backend(table: string): Promise<{ url: string; server: Server }> {
  const statement = (write: Write): string => {
    if ('insert' in write) return `insert into ${table} select * from jsonb_populate_record(null::${table}, ${text(JSON.stringify(write.insert))})`;
    if ('update' in write) return `update ${table} set title = ${text(write.title)} where id = ${write.update}`;
    return `delete from ${table} where id = ${write.delete}`;
  };
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      response.setHeader('access-control-allow-origin', '*');
      try {
        const txid = place.sql(`${statement(JSON.parse(body) as Write)}; select pg_current_xact_id()::xid::text`);
        response.end(JSON.stringify({ txid: Number(txid) }));
      } catch {
        response.writeHead(422).end('the database refuses it');
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

/** The application in this process, or in a page. */
async function started(where: 'Node' | 'Chromium'): Promise<{ app: App; end: () => Promise<void> }> {
  if (where === 'Node') return { app, end: () => app.close() };
  const device = await browsers.device(place);
  const page = await device.tab();
  const failures: string[] = [];
  page.on('pageerror', (error) => failures.push(String(error)));
  onTestFailed(() => console.log(failures, place.logs()));
  const call =
    (name: keyof App) =>
    (...values: unknown[]): Promise<unknown> =>
      page.evaluate(([name, values]) => (window.app[name] as (...values: unknown[]) => Promise<unknown>)(...values), [name, values] as const);
  const remote = Object.fromEntries((Object.keys(app) as (keyof App)[]).map((name) => [name, call(name)])) as unknown as App;
  return { app: remote, end: () => device.context.close() };
}

const WHERE = ['Node', 'Chromium'] as const;
const MODES = ['eager', 'on-demand', 'progressive'] as const;

describe.each(WHERE.flatMap((where) => MODES.map((mode) => ({ where, mode }))))('$mode in $where', ({ where, mode }) => {
  it('TanStack DB has what the tables have and confirms writes by their transaction', { timeout: 90_000 }, async () => {
    const { sales, buyers } = tables(`${mode.replace('-', '_')}_${where.toLowerCase()}`);
    const { url, server } = await backend(sales);
    const { app, end } = await started(where);
    const joined = (): unknown => json(`select s.id, title, name from ${sales} s join ${buyers} b on b.id = s.buyer where open`);
    const newest = (): unknown => json(`select id, title from ${sales} order by id desc limit 5`);
    const same = (what: string): Promise<void> =>
      until(what, async () => JSON.stringify([await app.joined(), await app.newest()]) === JSON.stringify([joined(), newest()])).catch(async (error: unknown) => {
        expect([await app.joined(), await app.newest()], String(error)).toEqual([joined(), newest()]);
      });

    await app.open({ url: place.url, backend: url, sales, buyers, mode });
    expect(await app.joined()).toEqual(joined());
    expect(await app.newest()).toEqual(newest());
    if (mode !== 'on-demand') await until('all of the table is there', async () => (await app.held()) === SALES);

    await app.turnTo(30);
    expect(await app.newest()).toEqual(json(`select * from (select id, title from ${sales} order by id desc limit 5 offset 30) s`));
    await app.turnTo(0);

    // A write is shown at once, and confirmed by its transaction's id in the stream; what the database refuses is taken back.
    const row: Sale = { id: 1000, buyer: 3, title: "O'Hara's", open: true };
    const inserted = await app.insert(row);
    expect(inserted.end).toBe('confirmed');
    expect(inserted.atOnce).toContainEqual({ id: 1000, title: "O'Hara's", name: 'buyer 3' });
    expect(joined()).toContainEqual({ id: 1000, title: "O'Hara's", name: 'buyer 3' });
    await same('after an insert');
    expect(await app.rename(1000, 'renamed')).toMatchObject({ end: 'confirmed', atOnce: expect.arrayContaining([{ id: 1000, title: 'renamed', name: 'buyer 3' }]) as unknown });
    await same('after an update');
    const refused = await app.rename(1000, 'forbidden');
    expect(refused.end).toContain('refused');
    expect(refused.atOnce).toContainEqual({ id: 1000, title: 'forbidden', name: 'buyer 3' });
    await same('after a refusal');
    expect((await app.remove(1000)).end).toBe('confirmed');
    await same('after a deletion');

    // What others do.
    for (let round = 0; round < 4; round += 1) {
      place.sql(
        `begin; update ${sales} set title = 'round ${round}' where id % 5 = ${round}; delete from ${sales} where id = ${8 + 4 * round};
         update ${sales} set open = not open where id % 7 = ${round}; update ${sales} set id = id + 500 where id = ${100 + 4 * round};
         update ${buyers} set name = 'renamed in ${round}' where id = ${5 + round}; update ${sales} set buyer = 2 where id = ${120 + round};
         insert into ${sales} values (${2000 + round}, ${1 + round}, 'new', true); commit`,
      );
      await same(`round ${round}`);
    }

    await place.stopStreamer('SIGKILL');
    place.sql(`update ${sales} set title = 'while nobody served' where id % 3 = 0; delete from ${sales} where id = 16`);
    await place.startStreamer();
    await same('after a restart');
    expect((await app.insert({ ...row, id: 1001 })).end).toBe('confirmed');
    await same('after an insert behind the restart');

    // The client must fetch all anew.
    place.sql(`truncate ${sales}; insert into ${sales} select n, 1 + n % ${BUYERS}, 'again ' || n, n % 2 = 0 from generate_series(1, 30) n`);
    await same('after a TRUNCATE');
    expect((await app.insert({ ...row, id: 1002 })).end).toBe('confirmed');
    await same('after an insert behind the TRUNCATE');
    await end();
    server.close();
  });
});

it('TanStack DB gets from the server what a query needs and no more', { timeout: 60_000 }, async () => {
  place.sql(
    `create table asked (id int primary key, name text, price numeric(8, 2), size float8, at timestamptz, open boolean, tag uuid, big int8);
     grant select on asked to headwater_streamer; select headwater.publish('asked');
     insert into asked select n, case when n % 7 > 0 then (array['Anna', 'bob', 'O''Hara', 'Zoë', '50%', 'a_b'])[1 + n % 6] end, n / 4.0, n / 8.0, '2026-01-01'::timestamptz + n * interval '1 hour',
       case when n % 5 > 0 then n % 2 = 0 end, ('00000000-0000-4000-8000-' || lpad((n % 9)::text, 12, '0'))::uuid, 9007199254740993 + n from generate_series(1, 100) n`,
  );
  interface Asked {
    readonly [column: string]: string | number | boolean | bigint | null;
    readonly id: number;
    readonly name: string | null;
    readonly price: string;
    readonly size: number;
    readonly at: string;
    readonly open: boolean | null;
    readonly tag: string;
    readonly big: bigint;
  }
  const tag = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
  // Each as TanStack DB writes it and as SQL does.
  const questions = [
    [({ a }) => eq(a.name, "O'Hara"), "name = 'O''Hara'"],
    [({ a }) => and(gt(a.id, 10), lte(a.size, 4.5)), 'id > 10 and size <= 4.5'],
    [({ a }) => or(lt(a.id, 5), gte(a.id, 95), eq(a.tag, tag(3))), `id < 5 or id >= 95 or tag = '${tag(3)}'`],
    [({ a }) => and(or(eq(a.name, 'bob'), isNull(a.name)), not(eq(a.open, true))), "(name = 'bob' or name is null) and not (open = true)"],
    [({ a }) => isNull(a.open), 'open is null'],
    [({ a }) => not(isNull(a.name)), 'name is not null'],
    [({ a }) => inArray(a.id, [1, 2, 77]), 'id = any(array[1, 2, 77])'],
    [({ a }) => inArray(a.name, ["O'Hara", '50%', 'a"b']), "name in ('O''Hara', '50%')"],
    [({ a }) => inArray(a.tag, [tag(1), tag(2)]), `tag in ('${tag(1)}', '${tag(2)}')`],
    [({ a }) => like(a.name, 'O%'), "name like 'O%'"],
    [({ a }) => ilike(a.name, 'b_B'), "name ilike 'b_B'"],
    [({ a }) => eq(upper(a.name), 'BOB'), "upper(name) = 'BOB'"],
    [({ a }) => eq(lower(a.name), 'anna'), "lower(name) = 'anna'"],
    [({ a }) => eq(coalesce(a.name, 'nobody'), 'nobody'), "coalesce(name, 'nobody') = 'nobody'"],
    [({ a }) => eq(concat(a.name, '!'), 'bob!'), "concat(name, '!') = 'bob!'"],
    [({ a }) => eq(length(a.name), 3), 'length(name) = 3'],
    [({ a }) => eq(a.big, 9007199254740994n), 'big = 9007199254740994'],
    [({ a }) => eq(a.open, false), 'open = false'],
    [({ a }) => lt(a.open, true), 'open < true'],
  ] as readonly (readonly [(refs: { a: Asked }) => ReturnType<typeof eq>, string])[];
  for (const [n, [question, sql]] of questions.entries()) {
    const asked = createCollection(
      electricCollectionOptions<Asked>({ id: `asked-${n}`, syncMode: 'on-demand', shapeOptions: { url: `${place.url}/v1/shape`, params: { table: 'asked' } }, getKey: ({ id }) => id, autoIndex: 'eager', defaultIndexType: BTreeIndex }),
    );
    const answer = createLiveQueryCollection((query) => query.from({ a: asked }).where(question as never).orderBy(({ a }) => a.id));
    await answer.preload();
    const ids = (rows: readonly { id: number }[]): number[] => rows.map(({ id }) => id);
    expect(ids(answer.toArray), sql).toEqual(ids(json(`select id from asked where ${sql}`) as { id: number }[]));
    expect(asked.size, `no more than ${sql} asks for`).toBe(answer.size);
    expect(answer.size, sql).toBeGreaterThan(0);
    await answer.cleanup();
    await asked.cleanup();
  }
});

describe.each([
  { how: 'long polls', liveSse: false },
  { how: 'Server-Sent Events', liveSse: true },
])('by $how', ({ liveSse }) => {
  it('useShape shows in Chromium what the table has', { timeout: 60_000 }, async () => {
    const { buyers } = tables(`hook_${liveSse ? 'streamed' : 'polled'}`);
    const device = await browsers.device(place);
    const page = await device.tab();
    await page.evaluate(([url, table, liveSse]) => window.app.show(url, table, liveSse), [place.url, buyers, liveSse] as const);
    const truth = (): string => place.sql(`select coalesce(json_agg(json_build_array(id, name) order by id), '[]')::jsonb from ${buyers}`).replaceAll(', ', ',');
    const same = (what: string): Promise<void> => until(what, async () => (await page.textContent('#shape')) === truth());
    await same('the rows are shown');
    place.sql(`update ${buyers} set name = 'other' where id < 5; delete from ${buyers} where id = 6; update ${buyers} set id = 100 where id = 7`);
    await same('changes are shown');
    await place.stopStreamer('SIGKILL');
    place.sql(`insert into ${buyers} values (200, 'while nobody served')`);
    await place.startStreamer();
    await same('what happened meanwhile is shown');
    place.sql(`truncate ${buyers}; insert into ${buyers} values (1, 'again')`);
    await same('a TRUNCATE is shown');
    await device.context.close();
  });
});

it('useShape renders on a server what the table has', { timeout: 60_000 }, async () => {
  const { buyers } = tables('rendered');
  const html = await app.render(place.url, buyers);
  expect(html.replaceAll('&quot;', '"')).toBe(`<p id="shape">${JSON.stringify(Array.from({ length: BUYERS }, (_, n) => [n + 1, `buyer ${n + 1}`]))}</p>`);
});

it('TanStack DB follows the values of subqueries by their tags', { timeout: 60_000 }, async () => {
  const { sales, buyers } = tables('subquery');
  const where = `buyer in (select id from ${buyers} where name like 'buyer 1%') or buyer not in (select id from ${buyers} where name <> 'gone' or id > 5)`;
  const truth = (): number[] => (json(`select id from ${sales} where ${where}`) as { id: number }[]).map(({ id }) => id);
  const collection = createCollection(
    electricCollectionOptions<Sale>({ id: sales, syncMode: 'eager', shapeOptions: { url: `${place.url}/v1/shape`, params: { table: sales, where } }, getKey: ({ id }) => id }),
  );
  await collection.preload();
  const same = (what: string): Promise<void> => until(what, () => JSON.stringify(collection.toArray.map(({ id }) => id).sort((a, b) => a - b)) === JSON.stringify(truth()));
  await same('the first rows');
  for (let round = 1; round <= 6; round += 1) {
    place.sql(`begin; update ${buyers} set name = case when name like 'buyer 1%' then 'other' else 'buyer 1' end where id % 4 = ${round % 4}; update ${buyers} set name = 'gone' where id = ${round};
               update ${sales} set buyer = ${round + 2} where id % 9 = ${round}; delete from ${sales} where id = ${round * 10}; commit`);
    await same(`round ${round}`);
  }
  await place.stopStreamer('SIGKILL');
  place.sql(`update ${buyers} set name = 'buyer 1' where id = 3; delete from ${buyers} where id = 4`);
  await place.startStreamer();
  await same('after a restart');
  place.sql(`truncate ${buyers}`);
  await same('after a TRUNCATE of what the subqueries read');
  await collection.cleanup();
});
