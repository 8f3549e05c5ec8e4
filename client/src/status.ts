/** How syncing stands, and what the server refused: what the UI shows of the engine. */

import { tell } from './error.js';
import type { LocalEvent } from './event.js';
import type { Counts } from './store/outbox.js';
import { INITIAL_STATUS, type SharedStatus } from './sync/tabs.js';

/** How syncing stands, for the UI. The object stays the same until something changes. */
export interface SyncStatus extends SharedStatus {
  /** This tab sends and listens for all. */
  readonly isLeader: boolean;
  /** Own events that the server has not accepted yet. */
  readonly unsynced: number;
  /** Own events that it refused; see `rejectedEvents`. */
  readonly rejected: number;
  /** Three tries have failed in a row: time to tell the user. */
  readonly isFailing: boolean;
  /** `low`: little room is left on the device. `full`: nothing can be recorded until there is some. */
  readonly storage: Storage;
}

type Storage = 'ok' | 'low' | 'full';

/** A refused event, and what can be done. */
export interface RejectedEvent {
  readonly event: LocalEvent;
  /** Sends it anew, as a new event that happens now: once, however often it is called. */
  retry(): Promise<void>;
  /** Forgets it. */
  discard(): Promise<void>;
}

/** So many failures in a row before the user is told. */
const FAILURES_TO_TELL = 3;

export const INITIAL_SYNC_STATUS: SyncStatus = Object.freeze({ ...INITIAL_STATUS, isLeader: false, unsynced: 0, rejected: 0, isFailing: false, storage: 'ok' });
const NOTHING_UNSENT: Counts = Object.freeze({ unsynced: 0, rejected: 0 });
const NOTHING_REJECTED: readonly RejectedEvent[] = Object.freeze([]);

/** Puts the status together from what its parts say, and tells listeners when it changes. */
export class StatusBoard {
  shared: SharedStatus = INITIAL_STATUS;
  counts: Counts = NOTHING_UNSENT;
  storage: Storage = 'ok';
  rejected: readonly RejectedEvent[] = NOTHING_REJECTED;
  status: SyncStatus = INITIAL_SYNC_STATUS;
  private readonly listeners = new Set<() => void>();
  private readonly isLeader: () => boolean;

  constructor(isLeader: () => boolean) {
    this.isLeader = isLeader;
  }

  /** The session has ended. */
  clear(): void {
    this.set({ shared: INITIAL_STATUS, counts: NOTHING_UNSENT, storage: 'ok', rejected: NOTHING_REJECTED });
  }

  set(change: Partial<Pick<StatusBoard, 'shared' | 'counts' | 'storage'>> & { readonly rejected?: readonly RejectedEvent[] } = {}): void {
    const others = change.rejected !== undefined && change.rejected !== this.rejected;
    Object.assign(this, change);
    const next: SyncStatus = Object.freeze({
      ...this.shared,
      isLeader: this.isLeader(),
      unsynced: this.counts.unsynced,
      rejected: this.counts.rejected,
      isFailing: this.shared.failures >= FAILURES_TO_TELL,
      storage: this.storage,
    });
    const before = this.status;
    const same = (Object.keys(next) as (keyof SyncStatus)[]).every((key) => next[key] === before[key]);
    if (same && !others) return;
    this.status = next;
    tell(this.listeners);
  }

  subscribe(listener: () => void): () => void {
    const own = (): void => listener();
    this.listeners.add(own);
    return () => {
      this.listeners.delete(own);
    };
  }
}
