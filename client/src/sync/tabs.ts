/** The tabs of one device: one of them leads (it alone sends and listens), all hear of changes. */

import type { EntityRef } from '../event.js';
import { HeadwaterError } from '../error.js';

/** What tabs tell each other. */
export type TabMessage =
  /** What is stored of these entities; and the latest stamp of that tab's clock: the others' go on behind it. The leader's correction goes for all. */
  | { readonly kind: 'changed'; readonly entities: readonly EntityRef[]; readonly stamp: number; readonly offset?: number }
  /** There is something to send, or somebody who waits. */
  | { readonly kind: 'wake'; readonly now: boolean }
  | { readonly kind: 'status'; readonly status: SharedStatus }
  /** A tab that has just opened wants to know the status. */
  | { readonly kind: 'hello' };

/** What the leader knows and all tabs show. */
export interface SharedStatus {
  readonly connection: 'connecting' | 'live' | 'polling' | 'offline';
  readonly sending: boolean;
  /** Failures in a row, of sending or of receiving. */
  readonly failures: number;
  readonly error: { readonly code: string; readonly message: string } | null;
  /** The first download is complete. */
  readonly ready: boolean;
  /** When the server was last heard, milliseconds since 1970. */
  readonly heardAt: number | null;
}

/** Before anything is known. */
export const INITIAL_STATUS: SharedStatus = { connection: 'connecting', sending: false, failures: 0, error: null, ready: false, heardAt: null };

/** The parts of the browser that tabs need; tests bring their own. */
export interface TabPlatform {
  readonly locks?: Pick<LockManager, 'request'> | undefined;
  readonly BroadcastChannel?: (new (name: string) => BroadcastChannel) | undefined;
}

/** Talks to the other tabs of this database. */
export class TabChannel {
  private readonly channel: BroadcastChannel | undefined;

  constructor(name: string, platform: TabPlatform, receive: (message: TabMessage) => void) {
    this.channel = platform.BroadcastChannel === undefined ? undefined : new platform.BroadcastChannel(name);
    if (this.channel !== undefined) {
      this.channel.onmessage = ({ data }: MessageEvent<TabMessage>) => receive(data);
      // In Node an open channel would keep the process alive.
      (this.channel as { unref?: () => void }).unref?.();
    }
  }

  send(message: TabMessage): void {
    this.channel?.postMessage(message);
  }

  close(): void {
    this.channel?.close();
  }
}

/**
 * Waits until this tab leads, then runs `lead` until `signal` aborts; `took` says that another tab led before it. The browser hands the lock
 * on at once when a tab closes or crashes. Where there are no locks this tab leads: sending twice is harmless, for the server knows each event.
 */
export async function whenLeading(name: string, platform: TabPlatform, signal: AbortSignal, lead: (took: boolean) => Promise<void>): Promise<void> {
  const { locks } = platform;
  if (locks === undefined) return lead(false);
  try {
    const isFirst = await locks.request(name, { ifAvailable: true }, async (lock) => {
      if (lock === null) return false;
      await lead(false);
      return true;
    });
    if (!isFirst) await locks.request(name, { signal }, () => lead(true));
  } catch (thrown) {
    if (!signal.aborted) throw new HeadwaterError('no_lock', 'this tab cannot wait to lead', { cause: thrown });
  }
}
