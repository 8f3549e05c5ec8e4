/** The orders example, and devices that use it. */

import { HeadwaterClient } from '../../src/client.js';
import type { Configuration } from '../../src/configuration.js';
import { locks } from './locks.js';
import { order } from './order.js';
import type { ModelServer } from './server.js';

export { order };

let devices = 0;

/** An address that no other device has: each has a database of its own, and all reach the same server. */
export function newDevice(): string {
  devices += 1;
  return `http://device-${devices}.test`;
}

/** Fast, for tests. */
export const QUICK = { debounceMs: 1, backoff: { baseMs: 2, maxMs: 10 }, pollMs: 5, restMs: 1 } as const;

export function start(server: ModelServer, url: string, more: Partial<Configuration> = {}): HeadwaterClient {
  const client = new HeadwaterClient([order]);
  client.configure({ url, transport: { fetch: server.fetch }, sync: QUICK, platform: { locks }, ...more });
  return client;
}

/** Waits for a condition, judged again whenever the event loop comes round. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>, patienceMs = 5000): Promise<void> {
  const end = Date.now() + patienceMs;
  while (!(await within(what, Promise.resolve(holds())))) {
    if (Date.now() > end) throw new Error(`this did not come true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** What `promise` brings; an error that says so where it does not come in time. */
export async function within<T>(what: string, promise: Promise<T>, patienceMs = 20_000): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`this did not end: ${what}`)), patienceMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
