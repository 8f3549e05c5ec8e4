/** What a test does with the page of `page.ts`, and sees there. */

import type { Page } from 'playwright-core';
import { onTestFailed } from 'vitest';
import { until, type Place } from './place.js';

export type Payload = Record<string, unknown>;

/** Records an event; when it is stored, and what the view shows then. */
export function record(page: Page, name: string, id: string, payload: Payload = {}): Promise<unknown> {
  return page.evaluate(
    async ([name, id, payload]) => {
      const { stored } = window.client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload: payload as never });
      const shown = window.client.views.entity(['order', id]).data;
      await stored;
      return shown;
    },
    [name, id, payload] as const,
  );
}

export const shown = (page: Page, id: string): Promise<Payload | null> => page.evaluate((id) => window.client.materialize('order', id), id);
export const status = (page: Page) => page.evaluate(() => window.client.syncStatus());
export const synced = (page: Page): Promise<void> => until('the device is synced', async () => (await status(page)).unsynced === 0);

/** Waits until the page shows these members of an order. */
export async function shows(page: Page, id: string, members: Payload): Promise<void> {
  let last: unknown;
  await until(`the page shows ${JSON.stringify(members)}`, async () => {
    const data = await shown(page, id);
    last = data;
    return data !== null && Object.entries(members).every(([name, value]) => JSON.stringify(data[name]) === JSON.stringify(value));
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}, not ${JSON.stringify(last)}`);
  });
}

/** What to look at when a test fails. */
export function explain(place: Place, ...pages: Page[]): void {
  onTestFailed(async () => {
    for (const page of pages) {
      if (!page.isClosed()) console.log(await page.evaluate(() => window.client.exportDebugLog()));
    }
    console.log(place.logs());
  });
}
