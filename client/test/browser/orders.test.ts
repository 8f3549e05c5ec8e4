/**
 * The orders example as `make demo` serves it: two people's browsers, one of them offline for a while; what is refused; the same table
 * through ElectricSQL's client; and nothing that keeps anybody from using it. Oracles: the rows, the other browser, axe.
 */

import { execFileSync } from 'node:child_process';
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Place, until } from './place.js';
import { launch } from './stage.js';

const APP = new URL('../../../examples/orders/app/', import.meta.url).pathname;

let place: Place;
let browser: Browser;
const troubles: string[] = [];

beforeAll(async () => {
  place = await Place.start();
  place.generate(`${APP}src/generated`);
  const run = (...command: string[]): void => void execFileSync('npx', command, { cwd: APP, stdio: 'pipe' });
  run('tsc', '--noEmit');
  run('vite', 'build', '--logLevel', 'warn', '--emptyOutDir', '--outDir', place.pages);
  browser = await launch();
}, 120_000);

afterAll(async () => {
  await browser.close();
  await place.stop();
}, 60_000);

/** A browser of somebody's own. */
async function visit(path = '', viewport = { width: 1280, height: 860 }): Promise<Page> {
  const context = await browser.newContext({ viewport, reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error') troubles.push(message.text());
  });
  page.on('pageerror', (error) => troubles.push(String(error)));
  await page.goto(`${place.url}/app/${path}`);
  return page;
}

const table = (page: Page, number: number) => page.getByRole('button', { name: new RegExp(`^${number} `) });
const order = async (page: Page, ...dishes: string[]): Promise<void> => {
  for (const dish of dishes) await page.getByRole('group', { name: 'Menu' }).getByRole('button', { name: dish }).click();
};
const items = (page: Page): Promise<string[]> => page.locator('.items li span:first-child').allTextContents();

it('brings two browsers together in the orders example that one of them used offline', { timeout: 120_000 }, async () => {
  const [ada, ben] = [await visit(), await visit()];
  await ada.getByText('Live', { exact: true }).waitFor();
  await ben.getByText('Live', { exact: true }).waitFor();

  await table(ada, 7).click();
  await ada.getByRole('button', { name: 'Open an order' }).click();
  await order(ada, 'Trout', 'Cider');
  await table(ben, 7).click();
  await until('Ben sees what Ada ordered', async () => (await items(ben)).join() === 'Trout,Cider');

  await ada.getByRole('switch', { name: 'Network' }).click();
  await order(ada, 'Espresso');
  await ada.getByText('Offline · 1 to send').waitFor();
  await order(ben, 'Apple tart');
  expect(await items(ada)).toEqual(['Trout', 'Cider', 'Espresso']);
  await ada.getByRole('switch', { name: 'Network' }).click();
  const all = 'Trout,Cider,Espresso,Apple tart';
  await until('Ada and Ben see the same', async () => (await items(ada)).join() === all && (await items(ben)).join() === all);
  await until('and so does the table', () => place.sql("select string_agg(item ->> 'name', ',' order by n) from orders, jsonb_array_elements(items) with ordinality as i(item, n)") === all);

  // What happened, in the order in which it happened, and what the order was in between.
  await until('the history is complete', async () => (await ada.locator('.events li').count()) === 6 && (await ada.getByText('not sent yet').count()) === 0);
  // Where what the table's defaults filled in stands among the rest, the server says.
  const past: string[] = [];
  for (let event = 0; event <= 6; event += 1) {
    await ada.getByRole('slider').fill(String(event));
    await ada.getByText(`After event ${event} of 6`).waitFor();
    past.push((await ada.locator('.then').textContent()) ?? '');
  }
  expect(past[0]).toBe('There was no order.');
  for (const then of ['0 items', '1 item, €18.90', '2 items, €23.70', '3 items', '4 items']) expect(past.join()).toContain(then);

  place.sql("update orders set status = 'served' where table_number = 7");
  await ben.getByRole('button', { name: 'Mark as paid' }).waitFor();
  expect(troubles).toEqual([]);
});

it('says of the past offline what it knows, and on a telephone shows what was chosen', { timeout: 60_000 }, async () => {
  place.sql("insert into orders (tenant_id, table_number, items) values ('cafe', 9, '[{\"id\": \"1\", \"name\": \"Trout\", \"cents\": 1890}]')");
  const page = await visit('', { width: 390, height: 844 });
  await page.getByText('Live', { exact: true }).waitFor();
  await table(page, 9).click();
  await until('the order is in view', () => page.getByRole('heading', { name: 'Table 9' }).evaluate((title) => {
    const { top, bottom } = title.getBoundingClientRect();
    return top >= 0 && bottom < innerHeight / 2;
  }));
  await page.getByRole('switch', { name: 'Network' }).click();
  await order(page, 'Cider');
  await page.getByText('Only what this device has').waitFor();
  // The device began with a state, and has one event.
  await page.getByText('2 items, €23.70').waitFor();
  await page.getByRole('slider').fill('0');
  await page.getByText('only the server can tell').waitFor();
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
});

it('can be used with the keyboard alone', { timeout: 60_000 }, async () => {
  const page = await visit();
  await page.getByText('Live', { exact: true }).waitFor();
  const press = async (button: ReturnType<Page['getByRole']>): Promise<void> => {
    await button.focus();
    await page.keyboard.press('Enter');
  };
  await press(table(page, 3));
  await press(page.getByRole('button', { name: 'Open an order' }));
  for (const dish of ['Trout', 'Cider']) await press(page.getByRole('group', { name: 'Menu' }).getByRole('button', { name: dish }));
  const focused = (): Promise<string> => page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.className ?? '');
  await press(page.getByRole('button', { name: 'Take Trout off' }));
  await until('one is left', async () => (await items(page)).join() === 'Cider');
  expect(await focused()).toBe('Take Cider off');
  await press(page.getByRole('button', { name: 'Cancel the order' }));
  await page.getByText('Nobody sits at table 3').waitFor();
  expect(await focused()).toBe('chosen');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Table 3' }).waitFor();
});

it('keeps what the table refuses until somebody decides', { timeout: 60_000 }, async () => {
  const page = await visit();
  await page.getByText('Live', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Send an order that the table refuses' }).click();
  const refused = page.getByRole('region', { name: 'Refused by the server' });
  await refused.getByText('invalid_payload').waitFor();
  await refused.getByRole('button', { name: 'Discard' }).click();
  await refused.waitFor({ state: 'detached' });
});

it('shows the same rows through the client of ElectricSQL', { timeout: 60_000 }, async () => {
  const page = await visit('shapes.html');
  await page.getByRole('cell', { name: '7', exact: true }).waitFor();
  place.sql("insert into orders (tenant_id, table_number) values ('cafe', 11)");
  await page.getByRole('cell', { name: '11', exact: true }).waitFor();
});

it('can be used by everybody, in light and dark', { timeout: 60_000 }, async () => {
  for (const path of ['', 'shapes.html']) {
    const page = await visit(path);
    if (path === '') {
      await page.getByText('Live', { exact: true }).waitFor();
      await table(page, 7).click();
    }
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      // Past the page's own policy, as the browser's tools are.
      await page.evaluate(axe.source);
      const found = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
      const serious = found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
      expect(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([]);
    }
  }
});
