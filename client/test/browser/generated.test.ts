/**
 * What `headwater generate` makes of a running streamer, bundled, in Chromium against that streamer: written, synced, seen in SQL; and back.
 * Oracle: the row.
 */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFailed } from 'vitest';
import { Browsers, Place, until } from './place.js';

/** Within the client, where its Node packages are found. */
const FOLDER = new URL('../generated/out/live', import.meta.url).pathname;

const PAGE = `
import { createRoot } from 'react-dom/client';
import { StrictMode } from 'react';
import * as orders from './generated/index.js';

orders.configure({ url: new URLSearchParams(location.search).get('url') ?? '', tenantId: 'cafe', userId: 'ada' });

const id = new URLSearchParams(location.hash.slice(1)).get('id') ?? '11111111-2222-4333-8444-555555555555';

function Order() {
  const { data, isLoading } = orders.useOrder(id);
  const { created, itemAdded } = orders.useOrderMutations(id);
  const { unsynced } = orders.useSyncStatus();
  const { data: open } = orders.useOrders({ status: 'open' });
  return (
    <main>
      <p id="order">{isLoading ? 'loading' : data === null ? 'none' : JSON.stringify([data.table_number, data.status, data.items])}</p>
      <p id="open">{open.length}</p>
      <p id="unsynced">{unsynced}</p>
      <button id="create" onClick={() => created({ table_number: 7, status: 'open', items: [] })}>create</button>
      <button id="add" onClick={() => itemAdded({ item: { id: 1, name: 'soup' } })}>add</button>
    </main>
  );
}

createRoot(document.body).render(<StrictMode><Order /></StrictMode>);
Object.assign(window, { orders });
`;

let place: Place;
let browsers: Browsers;

beforeAll(async () => {
  place = await Place.start();
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  place.generate(join(FOLDER, 'generated'));
  writeFileSync(join(FOLDER, 'page.tsx'), PAGE);
  browsers = await Browsers.start(join(FOLDER, 'page.tsx'));
}, 60_000);

afterAll(async () => {
  await Promise.all([browsers.stop(), place.stop()]);
}, 60_000);

it('syncs in Chromium what the generated client records and shows what SQL changes', { timeout: 60_000 }, async () => {
  const device = await browsers.device(place);
  const page = await device.tab();
  onTestFailed(() => console.log(place.logs()));
  const id = '11111111-2222-4333-8444-555555555555';
  const text = (selector: string) => page.textContent(selector);
  const row = () => place.sql(`select table_number || ' ' || status || ' ' || items from orders where id = '${id}'`);
  await until('the order is read', async () => (await text('#order')) === 'none');
  await device.setOffline(true);
  await page.click('#create');
  await page.click('#add');
  expect(await text('#order')).toBe('[7,"open",[{"id":1,"name":"soup"}]]');
  await until('two events wait', async () => (await text('#unsynced')) === '2');
  expect(row()).toBe('');
  await device.setOffline(false);
  await until('the row is there', () => row() === '7 open [{"id": 1, "name": "soup"}]');
  await until('nothing waits', async () => (await text('#unsynced')) === '0');
  expect(await text('#open')).toBe('1');
  place.sql(`update orders set status = 'paid' where id = '${id}'`);
  await until('what SQL changed is shown', async () => (await text('#order')) === '[7,"paid",[{"id":1,"name":"soup"}]]');
  await until('and the list follows', async () => (await text('#open')) === '0');
  await device.context.close();
});
