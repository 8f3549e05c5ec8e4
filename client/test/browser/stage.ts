/** How the tests of a file begin and end: a place, and a browser. */

import { chromium, type Browser } from 'playwright-core';
import { afterAll, beforeAll } from 'vitest';
import { Browsers, CHROMIUM, Place } from './place.js';

const PATIENCE_MS = 60_000;

/** Starts both before the first test of a file or a block, the browsers with the page of the tests or another, and ends them after the last. */
export function stage(take: (made: { readonly place: Place; readonly browsers: Browsers }) => void, entry?: string): void {
  let made: { place: Place; browsers: Browsers } | undefined;
  beforeAll(async () => {
    const [place, browsers] = await Promise.all([Place.start(), Browsers.start(entry)]);
    take((made = { place, browsers }));
  }, PATIENCE_MS);
  afterAll(async () => {
    await Promise.all([made?.browsers.stop(), made?.place.stop()]);
  }, PATIENCE_MS);
}

/** Chromium by itself, for pages that a streamer serves. */
export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
}
