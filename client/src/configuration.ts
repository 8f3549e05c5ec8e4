/** What an application says when it starts the client, and what the browser brings. */

import type { Customs } from './fold.js';
import type { EngineOptions } from './sync/engine.js';
import type { TabPlatform } from './sync/tabs.js';
import type { GetToken, TransportOptions } from './sync/transport.js';
import type { Lifts } from './upcast.js';

/** Where the server is, and who uses the device. */
export interface Configuration {
  /** The server's address, as `http://127.0.0.1:4000`. */
  readonly url: string;
  readonly getToken?: GetToken;
  /** Of the token: each tenant and user has a database of its own on the device. */
  readonly tenantId?: string;
  readonly userId?: string;
  /** How long the server's events stay on the device one by one; older ones live on in the states. */
  readonly retentionDays?: number;
  /** How long own events stay, for a server that is restored from a backup and has lost them. Not less than `retentionDays`. */
  readonly ownRetentionDays?: number;
  /** `strict` has events of that type on the disk before they count as stored; `relaxed` (default) leaves that to the system. */
  readonly durability?: Readonly<Record<string, 'relaxed' | 'strict'>>;
  /** The application's merge functions, by the name in their rules. */
  readonly merges?: Customs | object;
  /** The application's steps of upcasts, by the name in their declaration. */
  readonly lifts?: Lifts;
  readonly sync?: EngineOptions;
  readonly transport?: Pick<TransportOptions, 'fetch' | 'WebSocket' | 'timeoutMs' | 'silenceMs'>;
  /** The device's clock in milliseconds, for tests. */
  readonly now?: () => number;
  /** The browser's parts, for tests. */
  readonly platform?: Platform;
}

/** The parts of the browser that the client uses. */
export interface Platform extends TabPlatform {
  readonly storage?: Pick<StorageManager, 'persist' | 'estimate'> | undefined;
  /** Where `online`, `focus` and `pageshow` are told. */
  readonly events?: Pick<EventTarget, 'addEventListener' | 'removeEventListener'> | undefined;
}

/** What this browser has. In Node (server-side rendering) most is missing, and is not missed. */
export function browser(): Platform {
  const { navigator, BroadcastChannel, addEventListener, removeEventListener } = globalThis as Partial<typeof globalThis>;
  return {
    locks: navigator?.locks,
    storage: navigator?.storage,
    BroadcastChannel,
    events: addEventListener === undefined || removeEventListener === undefined ? undefined : globalThis,
  };
}
