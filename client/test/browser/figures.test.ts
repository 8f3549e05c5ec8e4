/**
 * How fast the client is in Chromium: printed, never asserted. Runs with HEADWATER_CLIENT_FIGURES=1 only.
 * A call is timed from `recordEvent` to its return, when the view shows it; durable when `stored` resolves; opening is a reload
 * of a page until the list of all entities is there.
 */

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Browsers, Place, until } from './place.js';

describe.skipIf(process.env['HEADWATER_CLIENT_FIGURES'] === undefined)('figures', () => {
  let place: Place;
  let browsers: Browsers;

  beforeAll(async () => {
    [place, browsers] = await Promise.all([Place.start(), Browsers.start()]);
  }, 60_000);

  afterAll(async () => {
    await Promise.all([browsers.stop(), place.stop()]);
  }, 60_000);

  it('prints them', { timeout: 300_000 }, async () => {
    const device = await browsers.device(place);
    const page = await device.tab();
    await device.setOffline(true);
    const writing = await page.evaluate(async (id) => {
      const quantile = (values: number[], q: number): number => [...values].sort((a, b) => a - b)[Math.floor(values.length * q)] ?? NaN;
      const record = (name: string, entity_id: string, payload: Record<string, never>) =>
        window.client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id, payload });
      await record('created', id, { status: 'open', items: [] } as never).stored;
      await window.client.materialize('order', id);
      const calls: number[] = [];
      const durable: number[] = [];
      for (let n = 0; n < 500; n += 1) {
        const start = performance.now();
        const { stored } = record('item_added', `${id}-${n % 50}`, { item: { id: n, name: 'soup', price: '4.50' } } as never);
        calls.push(performance.now() - start);
        await stored;
        durable.push(performance.now() - start);
      }
      return { call_p50_ms: quantile(calls, 0.5), call_p95_ms: quantile(calls, 0.95), durable_p50_ms: quantile(durable, 0.5), durable_p95_ms: quantile(durable, 0.95) };
    }, randomUUID());
    const folding = await page.evaluate(async (id) => {
      for (let n = 0; n < 100; n += 1) {
        const payload = n === 0 ? { items: [] } : { item: { id: n, name: 'soup' } };
        window.client.recordEvent({ event_type: n === 0 ? 'order.created' : 'order.item_added', entity_type: 'order', entity_id: id, payload: payload });
      }
      await window.client.materialize('order', id);
      window.refold(id);
      await window.client.getEventsForEntity('order', id);
      const times: number[] = [];
      for (let n = 0; n < 200; n += 1) {
        const start = performance.now();
        window.refold(id);
        times.push(performance.now() - start);
      }
      return { fold_of_100_p95_ms: times.sort((a, b) => a - b)[190] };
    }, randomUUID());
    const before = await page.evaluate(async () => (await navigator.storage.estimate()).usage ?? 0);
    const recording = await page.evaluate(async () => {
      const start = performance.now();
      const writes: Promise<void>[] = [];
      for (let n = 0; n < 20_000; n += 1) {
        const payload = n < 1000 ? { status: 'open', items: [] } : { item: { id: n, name: 'soup', price: '4.50' } };
        const entity_id = `00000000-0000-4000-8000-${String(n % 1000).padStart(12, '0')}`;
        writes.push(window.client.recordEvent({ event_type: n < 1000 ? 'order.created' : 'order.item_added', entity_type: 'order', entity_id, payload: payload }).stored);
        if (n % 100 === 99) await Promise.all(writes.splice(0));
      }
      return { recorded_per_s: 20_000_000 / (performance.now() - start) };
    });
    const after = await page.evaluate(async () => (await navigator.storage.estimate()).usage ?? 0);
    await page.close();
    const again = await device.tab();
    const opening = await again.evaluate(async () => {
      const start = performance.now();
      const { length } = await window.client.views.states('order');
      return { open_20k_events_ms: performance.now() - start, entities: length };
    });
    const start = Date.now();
    await device.setOffline(false);
    await again.evaluate(() => window.client.sync().catch(() => undefined));
    await until('all is sent', async () => (await again.evaluate(() => window.client.syncStatus())).unsynced === 0, 120_000);
    const seconds = (Date.now() - start) / 1000;
    const sent = Number(place.sql("select count(*) from headwater.event where source = 'client'"));
    console.log({ ...writing, ...folding, ...recording, mb_per_1000_events: (after - before) / 20_000 / 1000, ...opening, synced_per_s: sent / seconds });
    expect(sent).toBeGreaterThan(20_000);
  });
});
