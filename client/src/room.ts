/** How much room is left on the device: looked at now and then, and again and again while there is none. */

import type { Platform } from './configuration.js';
import type { DebugLog } from './debugLog.js';
import type { StatusBoard } from './status.js';
import { Backoff, sleep, type BackoffOptions } from './sync/backoff.js';

/** Of the browser's quota. Above the first the user is warned, above the second nothing more is recorded. */
const STORAGE_LOW = 0.8;
const STORAGE_FULL = 0.95;

export interface RoomParts {
  readonly storage: Platform['storage'];
  readonly board: StatusBoard;
  readonly log: DebugLog;
  readonly backoff: BackoffOptions;
  /** The session has ended. */
  readonly signal: AbortSignal;
}

export class Room {
  private readonly parts: RoomParts;
  /** Own events that wait for some. */
  private waiting = 0;
  private isLooking = false;

  constructor(parts: RoomParts) {
    this.parts = parts;
  }

  /** Asks the browser how much there is, unless an event just found that there is none. */
  async look(): Promise<void> {
    const { storage, signal } = this.parts;
    const { usage = 0, quota = 0 }: StorageEstimate = (await storage?.estimate().catch(() => undefined)) ?? {};
    if (quota === 0 || signal.aborted || this.waiting > 0) return;
    this.set(usage > quota * STORAGE_FULL ? 'full' : usage > quota * STORAGE_LOW ? 'low' : 'ok');
  }

  /** An event found no room, and waits. The result is called when it has some, or has given up. */
  lacking(): () => void {
    this.waiting += 1;
    this.set('full');
    return () => {
      this.waiting -= 1;
      if (this.waiting === 0 && !this.parts.signal.aborted) this.set('ok');
    };
  }

  private set(storage: StatusBoard['storage']): void {
    const { board, log } = this.parts;
    if (storage !== board.storage) log.add('storage', { storage });
    board.set({ storage });
    if (storage === 'full' && !this.isLooking) void this.keepLooking();
  }

  /** While nothing may be recorded nothing else would look whether somebody has made room. */
  private async keepLooking(): Promise<void> {
    const { board, backoff, signal } = this.parts;
    this.isLooking = true;
    const wait = new Backoff(backoff);
    while (!signal.aborted && board.storage === 'full') {
      await sleep(wait.next(), signal);
      await this.look();
    }
    this.isLooking = false;
  }
}
