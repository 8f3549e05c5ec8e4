/** ElectricSQL's own client, as npm has it, against a real streamer and Postgres. Oracle: the table. */

import { Shape, ShapeStream, type Row, type ShapeStreamInterface } from '@electric-sql/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Place, until } from './place.js';

let place: Place;

beforeAll(async () => {
  place = await Place.start();
  place.sql('grant select on all tables in schema public to headwater_streamer');
}, 60_000);

afterAll(async () => {
  await place.stop();
}, 60_000);

/** A table of its own, published. */
function table(name: string): void {
  place.sql(
    `create table ${name} (id int primary key, title text, price numeric, tags text[], open bool, at bigint);
     grant select on ${name} to headwater_streamer; select headwater.publish('${name}');
     insert into ${name} select n, 'title ' || n, n / 4.0, array['a', null, '"b"'], n % 2 = 0, 9007199254740993 from generate_series(1, 50) n`,
  );
}

const titles = (name: string): string => place.sql(`select coalesce(string_agg(id || ' ' || title, ',' order by id), '') from ${name}`).trim();
const shown = (shape: Shape): string =>
  shape.currentRows
    .map((row) => row as { id: number; title: string })
    .sort((a, b) => a.id - b.id)
    .map((row) => `${row.id} ${row.title}`)
    .join(',');

function follow(name: string, options: Record<string, unknown> = {}): { shape: Shape; stream: ShapeStream; errors: unknown[]; end: () => void } {
  const ending = new AbortController();
  const errors: unknown[] = [];
  const stream = new ShapeStream<Row>({
    url: `${place.url}/v1/shape`,
    params: { table: name },
    signal: ending.signal,
    onError: (error) => {
      errors.push(error);
    },
    ...options,
  });
  // Its types were not written with exactOptionalPropertyTypes in mind.
  return { shape: new Shape(stream as unknown as ShapeStreamInterface<Row>), stream, errors, end: () => ending.abort() };
}

describe.each([
  { how: 'long polls', name: 'polled', options: {} },
  { how: 'Server-Sent Events', name: 'streamed', options: { liveSse: true } },
])('by $how', ({ name, options }) => {
  it('a Shape has what the table has', { timeout: 60_000 }, async () => {
    table(name);
    const { shape, errors, end } = follow(name, options);
    const rows = await shape.rows;
    expect(rows).toHaveLength(50);
    expect(rows.find((row) => row['id'] === 7)).toEqual({ id: 7, title: 'title 7', price: '1.7500000000000000', tags: ['a', null, '"b"'], open: false, at: 9007199254740993n });
    const same = (what: string): Promise<void> => until(what, () => shown(shape) === titles(name));
    for (let round = 0; round < 10; round += 1) {
      place.sql(`begin; update ${name} set title = 'round ${round}' where id % 5 = ${round % 5}; delete from ${name} where id = ${round + 1};
                 insert into ${name} (id, title) values (${100 + round}, 'new'); update ${name} set id = id + 1000 where id = ${30 + round}; commit`);
      await same(`round ${round}`);
    }
    // It goes on after a restart, and begins anew after a TRUNCATE.
    await place.stopStreamer('SIGKILL');
    place.sql(`update ${name} set title = 'while nobody served'`);
    await place.startStreamer();
    await same('after a restart');
    place.sql(`truncate ${name}; insert into ${name} (id, title) values (1, 'again')`);
    await same('after a TRUNCATE');
    place.sql(`alter table ${name} add column added int default 5; update ${name} set title = 'altered'`);
    await until('the new column', () => shape.currentRows.every((row) => row['added'] === 5));
    await same('after an ALTER');
    expect(errors).toEqual([]);
    end();
  });
});

it('changes come once each, in order, with their transaction', { timeout: 60_000 }, async () => {
  table('ordered');
  // Until the streamer has read these rows' transaction, `now` would lie before it.
  const first = follow('ordered');
  expect(await first.shape.rows).toHaveLength(50);
  first.end();
  const { stream, errors, end } = follow('ordered', { params: { table: 'ordered', replica: 'full' }, offset: 'now', log: 'changes_only' });
  const seen: string[] = [];
  let live = false;
  stream.subscribe((messages) => {
    for (const message of messages) {
      if ('value' in message) seen.push(`${message.headers.operation} ${String(message.value['id'])} ${String(message.old_value?.['title'])}`);
      else live ||= message.headers.control === 'up-to-date';
    }
  });
  await until('the stream is live', () => live);
  for (let n = 1; n <= 20; n += 1) place.sql(`update ordered set title = 'x${n}' where id = ${n}`);
  await until('all of them', () => seen.length >= 20);
  expect(seen).toEqual(Array.from({ length: 20 }, (_, n) => `update ${n + 1} title ${n + 1}`));
  expect(errors).toEqual([]);
  end();
});

it('rows come and go with the values of subqueries, for a Shape that knows nothing of them', { timeout: 60_000 }, async () => {
  table('leaves');
  place.sql(
    `create table branches (id int primary key, alive bool); grant select on branches to headwater_streamer; select headwater.publish('branches');
     insert into branches select n, n % 2 = 0 from generate_series(1, 10) n; alter table leaves add branch_id int; update leaves set branch_id = id % 12`,
  );
  const where = 'branch_id in (select id from branches where alive) or id = 1';
  for (const options of [{}, { liveSse: true }]) {
    const { shape, errors, end } = follow('leaves', { params: { table: 'leaves', where }, ...options });
    await shape.rows;
    const expected = (): string => place.sql(`select coalesce(string_agg(id || ' ' || title, ',' order by id), '') from leaves where ${where}`).trim();
    const same = (what: string): Promise<void> => until(what, () => shown(shape) === expected());
    await same('the first rows');
    for (let round = 1; round <= 6; round += 1) {
      place.sql(`begin; update branches set alive = not alive where id % 3 = ${round % 3}; update leaves set title = 'round ${round}' where id % 4 = ${round % 4};
                 delete from branches where id = ${round}; insert into branches values (${round + 10}, true) on conflict do nothing;
                 update leaves set branch_id = ${round + 10} where id = ${round + 20}; commit`);
      await same(`round ${round}`);
    }
    await place.stopStreamer('SIGKILL');
    place.sql(`update branches set alive = not alive`);
    await place.startStreamer();
    await same('after a restart');
    place.sql(`truncate branches; insert into branches select n, true from generate_series(1, 10) n`);
    await same('after a TRUNCATE of what the subquery reads');
    expect(errors).toEqual([]);
    end();
  }
});
