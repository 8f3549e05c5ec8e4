/**
 * The operators' console in Chromium: the door, what it shows of a real streamer, time travel, dead letters that are replayed and discarded,
 * problems that are mended by what it says; and nothing that keeps anybody from using it. Oracles: the rows, axe, the browser's console.
 */

import axe from 'axe-core';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Place, until } from './place.js';
import { launch } from './stage.js';

const SECRET = 'the secret of these tests';
const ORDER = '00000000-0000-4000-8000-000000000001';

let place: Place;
let browser: Browser;
const troubles: string[] = [];

beforeAll(async () => {
  place = await Place.start('orders', { HEADWATER_ADMIN_SECRET: SECRET, HEADWATER_CONSOLE_WRITES: 'true' });
  place.sql(`
    insert into orders (id, tenant_id, table_number) values ('${ORDER}', 'cafe', 7);
    update orders set status = 'served';
    create table menu (dish text primary key, price numeric(8, 2), allergens jsonb);
    select headwater.enable('menu', entity => 'menu', notification => 'noop');
    insert into menu values ('<img src=x onerror=alert(1)>', 12.5, '{"nuts": true}'), ('Trout', 18.90, '{"fish": true}');
    alter table orders add constraint no_such_table check (table_number < 100);`);
  browser = await launch();
}, 120_000);

afterAll(async () => {
  await browser.close();
  await place.stop();
}, 60_000);

async function open(context: BrowserContext): Promise<Page> {
  const page = await context.newPage();
  page.on('console', (message) => {
    // A refused secret is an answer of status 401, which Chromium calls an error.
    if (message.type() === 'error' && !message.text().includes('401')) troubles.push(message.text());
  });
  page.on('pageerror', (error) => troubles.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(place.url)) troubles.push(`asks elsewhere: ${request.url()}`);
    if (request.url().includes(encodeURIComponent(SECRET))) troubles.push('the secret stands in an address');
  });
  await page.goto(`${place.url}/console`);
  return page;
}

async function signedIn(options: Parameters<Browser['newContext']>[0] = {}): Promise<Page> {
  const page = await open(await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options }));
  await page.getByLabel('Administrators’ secret').fill(SECRET);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  return page;
}

const go = async (page: Page, view: string): Promise<void> => {
  await page.getByRole('navigation').getByRole('link', { name: view }).click();
  await page.getByRole('heading', { name: view, level: 1 }).waitFor();
};

/** An event that the table refuses, as a client sends it. */
async function refused(): Promise<void> {
  const event = { id: crypto.randomUUID(), event_type: 'order.created', entity_type: 'order', entity_id: crypto.randomUUID(), tenant_id: 'cafe', timestamp: new Date().toISOString(), payload: { table_number: 1000 } };
  const answer = await fetch(`${place.url}/api/v1/events/batch`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ events: [event] }) });
  expect(((await answer.json()) as { rejected: { code: string }[] }).rejected[0]?.code).toBe('constraint_violation');
}

it('the console opens to who knows the secret, and stays closed to others', { timeout: 60_000 }, async () => {
  const page = await open(await browser.newContext());
  await page.getByLabel('Administrators’ secret').fill('a guess');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').getByText('That is not the secret').waitFor();
  await page.getByLabel('Administrators’ secret').fill(SECRET);
  await page.keyboard.press('Enter');
  await page.getByText('Following the write-ahead log').waitFor();
  await page.reload();
  await page.getByText('Following the write-ahead log').waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
  expect(troubles).toEqual([]);
});

it('the console shows what is enabled, and events as they come', { timeout: 60_000 }, async () => {
  const page = await signedIn();
  await page.getByRole('cell', { name: 'headwater_default' }).waitFor();
  await go(page, 'Entities');
  const menu = page.getByRole('article', { name: 'menu' });
  await menu.getByText('noop').waitFor();
  await page.getByRole('article', { name: 'order' }).getByText('Rules of 5 events').click();
  await page.getByText('appends the payload’s').waitFor();

  await menu.getByRole('link', { name: 'Watch its events' }).click();
  await page.getByText('Live', { exact: true }).waitFor();
  const rows = page.locator('.tail li');
  expect(await rows.count()).toBe(2);
  place.sql("insert into menu values ('Cider', 4.80, null); insert into orders (tenant_id, table_number) values ('bar', 3)");
  await rows.filter({ hasText: 'Cider' }).waitFor();
  expect(await rows.count(), 'orders are not asked for').toBe(3);
  // What an event holds is text, whatever it looks like.
  await rows.filter({ hasText: 'onerror' }).first().waitFor();
  expect(await page.locator('.tail img').count()).toBe(0);

  await page.getByRole('button', { name: 'Pause' }).click();
  place.sql("delete from menu where dish = 'Cider'");
  await page.getByText('Paused · 1 new').waitFor();
  await page.getByRole('button', { name: 'Go on' }).click();
  await rows.filter({ hasText: 'deleted' }).waitFor();

  await page.locator('#tail-type').selectOption('');
  await until('those of all entities and tenants are shown', async () => (await rows.count()) > 5);
  await page.getByLabel('Tenant').fill('cafe');
  await page.keyboard.press('Enter');
  await until('only the tenant’s events stand there', async () => (await rows.count()) === 2);
  place.sql("insert into orders (tenant_id, table_number) values ('bar', 4), ('cafe', 5)");
  await rows.filter({ hasText: '"table_number":5' }).waitFor();
  expect(await rows.count(), 'nor come others').toBe(3);

  await page.getByLabel('Source').selectOption('client');
  await page.getByText('No such event yet').waitFor();
  expect(troubles).toEqual([]);
});

it('the console travels through the time of an entity', { timeout: 60_000 }, async () => {
  const page = await signedIn();
  await go(page, 'Timeline');
  await page.getByLabel('Entity', { exact: true }).fill('order');
  await page.getByLabel('Id', { exact: true }).fill(ORDER);
  await page.getByRole('button', { name: 'Show' }).click();
  await page.getByText('after event 2 of 2').waitFor();
  await page.locator('.fields .changed').filter({ hasText: 'status' }).getByText('"served"').waitFor();
  await page.getByRole('slider').press('ArrowLeft');
  await page.getByText('after event 1 of 2').waitFor();
  await page.locator('.fields div').filter({ hasText: 'status' }).getByText('"open"').waitFor();
  await page.getByRole('slider').press('ArrowLeft');
  await page.getByText('It did not exist').waitFor();
  expect(troubles).toEqual([]);
});

it('dead letters are seen once that was granted, replayed and discarded', { timeout: 60_000 }, async () => {
  const page = await signedIn();
  await refused();
  await go(page, 'Dead letters');
  const statement = page.locator('.statement code');
  expect(await statement.textContent()).toBe('grant headwater_admin to headwater_streamer;');
  place.sql((await statement.textContent()) ?? '');
  const letter = page.getByRole('article', { name: 'order.created, refused' });
  await letter.getByText('constraint_violation').waitFor();
  await letter.getByRole('button', { name: 'Replay' }).click();
  await page.getByText('order.created was refused again').waitFor();
  place.sql('alter table orders drop constraint no_such_table');
  await letter.getByRole('button', { name: 'Replay' }).click();
  await page.getByText('order.created was accepted').waitFor();
  expect(place.sql('select count(*) from orders where table_number = 1000')).toBe('1');
  await page.getByText('No dead letters').waitFor();

  place.sql('delete from orders where table_number = 1000; alter table orders add constraint no_such_table check (table_number < 100)');
  await refused();
  await letter.getByRole('button', { name: 'Discard', exact: true }).click();
  await letter.getByRole('button', { name: 'Discard for good' }).click();
  await page.getByText('order.created was discarded').waitFor();
  expect(place.sql('select count(*) from headwater.rejected_event')).toBe('0');
  expect(troubles).toEqual([]);
});

it('problems of the set-up are mended by the statement that stands beside them', { timeout: 60_000 }, async () => {
  const page = await signedIn();
  await go(page, 'Set-up');
  await page.getByText('All is well').waitFor();
  place.sql('alter table menu disable trigger headwater_update');
  await page.getByRole('button', { name: 'Look again' }).click();
  const problem = page.locator('.problem');
  await problem.getByText('not captured').waitFor();
  place.sql((await problem.locator('code').textContent()) ?? '');
  await page.getByRole('button', { name: 'Look again' }).click();
  await page.getByText('All is well').waitFor();
  expect(troubles).toEqual([]);
});

it('everybody can use the console, on a phone too, in light and dark', { timeout: 120_000 }, async () => {
  // What axe does to look is more than the page's own policy allows.
  const page = await signedIn({ bypassCSP: true });
  for (const view of ['Overview', 'Entities', 'Live events', 'Timeline', 'Dead letters', 'Set-up']) {
    await go(page, view);
    await page.waitForLoadState('networkidle').catch(() => undefined);
    for (const [colorScheme, width] of [['light', 1280], ['dark', 1280], ['light', 360]] as const) {
      await page.setViewportSize({ width, height: 800 });
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.evaluate(axe.source);
      const found = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
      const serious = found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
      expect(serious.map(({ id, nodes }) => `${view}, ${colorScheme}, ${width}: ${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(wider, `${view} fits into ${width}`).toBe(0);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
  }
});

it('the console says that the streamer is away, and goes on when it is back', { timeout: 60_000 }, async () => {
  const page = await open(await browser.newContext());
  await page.getByLabel('Administrators’ secret').fill(SECRET);
  await page.keyboard.press('Enter');
  await page.getByText('Following the write-ahead log').waitFor();
  await place.stopStreamer();
  await page.getByText('The streamer is not reached').waitFor();
  await place.startStreamer();
  await until('the page is back', async () => (await page.getByText('Following the write-ahead log').count()) === 1);
});
