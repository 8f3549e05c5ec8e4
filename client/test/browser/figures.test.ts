/**
 * How fast the client is in Chromium: printed, never asserted; `make bench ARGS=client` runs it against release builds. Runs only with
 * HEADWATER_CLIENT_FIGURES, the path of a file for the figures.
 *
 * A call is timed from `recordEvent` to its return, when the view shows it; durable when `stored` resolves; opening is a reload
 * of a page until the list of all entities is there, when what was recorded had been folded (which a second's rest does); syncing from
 * the end of a time offline until the server has accepted all. Beside them what a page does by itself: the same rows in Dexie, the same events posted in batches.
 */

import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { until, type Browsers, type Place } from './place.js';
import { stage } from './stage.js';

const FILE = process.env['HEADWATER_CLIENT_FIGURES'];
const EVENTS = 20_000;

describe.skipIf(FILE === undefined)('figures', () => {
  let place: Place;
  let browsers: Browsers;

  stage((made) => ({ place, browsers } = made));

  it('prints them', { timeout: 600_000 }, async () => {
    const device = await browsers.device(place);
    const page = await device.tab();
    await until('the first download is complete', () => page.evaluate(() => window.client.syncStatus().ready));
    await device.setOffline(true);
    const writing = await page.evaluate(async () => {
      const p95 = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length * 0.95)] ?? NaN;
      const ids = Array.from({ length: 50 }, () => crypto.randomUUID());
      for (const id of ids) await window.record('created', id, { status: 'open', items: [] }).stored;
      const [calls, durable, peer]: [number[], number[], number[]] = [[], [], []];
      for (let n = 0; n < 500; n += 1) {
        const start = performance.now();
        const { stored } = window.record('item_added', ids[n % 50] ?? '', { item: { id: n, name: 'soup', price: '4.50' } });
        calls.push(performance.now() - start);
        await stored;
        durable.push(performance.now() - start);
        const { event } = window.record('item_added', ids[n % 50] ?? '', { item: { id: n, name: 'soup', price: '4.50' } });
        const before = performance.now();
        await window.plain.put(event);
        peer.push(performance.now() - before);
      }
      return { call_p95_us: p95(calls) * 1000, durable_p95_us: p95(durable) * 1000, dexie_put_p95_us: p95(peer) * 1000 };
    });
    const folding = await page.evaluate(async (id) => {
      for (let n = 0; n < 100; n += 1) {
        if (n === 0) window.record('created', id, { items: [] });
        else window.record('item_added', id, { item: { id: n, name: 'soup' } });
      }
      const events = await window.client.getEventsForEntity('order', id);
      const times: number[] = [];
      for (let n = 0; n < 200; n += 1) {
        const start = performance.now();
        window.refold(events);
        times.push(performance.now() - start);
      }
      return { fold_of_100_p95_us: (times.sort((a, b) => a - b)[190] ?? NaN) * 1000 };
    }, randomUUID());
    const usage = () => page.evaluate(async () => (await navigator.storage.estimate()).usage ?? 0);
    const before = await usage();
    const recording = await page.evaluate(async (events) => {
      const start = performance.now();
      const writes: Promise<void>[] = [];
      for (let n = 0; n < events; n += 1) {
        const id = `00000000-0000-4000-8000-${String(n % 1000).padStart(12, '0')}`;
        const { stored } = n < 1000 ? window.record('created', id, { status: 'open', items: [] }) : window.record('item_added', id, { item: { id: n, name: 'soup', price: '4.50' } });
        writes.push(stored);
        if (n % 100 === 99) await Promise.all(writes.splice(0));
      }
      return { recorded_per_s: (events * 1000) / (performance.now() - start) };
    }, EVENTS);
    const kb_per_1000_events = (await usage() - before) / EVENTS;
    await page.evaluate(async () => {
      for (const { id } of await window.client.views.states('order')) await window.plain.fill(await window.client.getEventsForEntity('order', id));
    });
    await until('what the events make is written down', () => page.evaluate(() => window.folded()));
    await page.close();
    const opened: number[] = [];
    const plainly: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const again = await device.tab();
      opened.push(await again.evaluate(async () => {
        const start = performance.now();
        await window.client.views.states('order');
        return performance.now() - start;
      }));
      plainly.push(await again.evaluate(async () => {
        const start = performance.now();
        await window.plain.open();
        return performance.now() - start;
      }));
      await again.close();
    }
    const middle = (values: number[]): number => values.sort((a, b) => a - b)[1] ?? NaN;
    const last = await device.tab();
    await last.evaluate(() => window.client.views.states('order'));
    const count = () => Number(place.sql("select count(*) from headwater.event where source = 'client'"));
    const start = Date.now();
    await device.setOffline(false);
    await last.evaluate(() => window.client.sync().catch(() => undefined));
    await until('all is sent', async () => (await last.evaluate(() => window.client.syncStatus())).unsynced === 0, 240_000);
    const synced_per_s = count() / ((Date.now() - start) / 1000);
    const sent = count();
    const posted_per_s = await last.evaluate(() => window.plain.post(10_000));
    const figures = { ...writing, ...folding, ...recording, kb_per_1000_events, open_20k_ms: middle(opened), dexie_open_20k_ms: middle(plainly), synced_per_s, posted_per_s };
    console.log(figures);
    writeFileSync(FILE ?? '/dev/null', JSON.stringify(figures));
    expect(sent).toBeGreaterThan(EVENTS);
  });
});
