/** What is unsent and what was refused, for the status: counted again whenever the store has changed, and not more often than an eye can see. */

import type { DebugLog } from './debugLog.js';
import { forPeople, type EntityDefinition } from './entity.js';
import { asError, closed } from './error.js';
import type { LocalEvent } from './event.js';
import type { RejectedEvent, StatusBoard } from './status.js';
import type { Changes } from './store/eventStore.js';
import type { Outbox } from './store/outbox.js';
import { sleep } from './sync/backoff.js';

/** Counting holds up writes; so often is enough for an eye. */
const COUNT_EVERY_MS = 50;
/** And so many times as long as it took is not counted again: 20,000 that wait take a while. */
export const COUNT_REST = 5;

export interface TallyParts {
  readonly outbox: Outbox;
  readonly definitions: ReadonlyMap<string, EntityDefinition>;
  readonly board: StatusBoard;
  readonly log: DebugLog;
  /** Own events that are being written. */
  readonly unstored: () => number;
  /** Records a refused event anew. */
  readonly retry: (event: LocalEvent) => Promise<void>;
  readonly onChanges: (changes: Changes) => void;
  /** The session has ended. */
  readonly signal: AbortSignal;
}

export class Tally {
  private readonly parts: TallyParts;
  private isCounting = false;
  private again = false;

  constructor(parts: TallyParts) {
    this.parts = parts;
  }

  /** Counts; calls that come meanwhile are served by one more count. */
  count(): void {
    this.again = true;
    if (!this.isCounting) void this.keepCounting();
  }

  private async keepCounting(): Promise<void> {
    const { outbox, board, log, unstored, signal } = this.parts;
    this.isCounting = true;
    while (this.again && !signal.aborted) {
      this.again = false;
      const began = performance.now();
      try {
        const counts = await outbox.counts();
        const rejected = counts.rejected > 0 || board.rejected.length > 0 ? await outbox.rejected() : [];
        if (!signal.aborted) board.set({ counts: { ...counts, unsynced: counts.unsynced + unstored() }, rejected: this.rejectedOf(rejected) });
      } catch (thrown) {
        if (!signal.aborted) log.add('counting failed', { message: asError(thrown).message });
      }
      await sleep(Math.max(COUNT_EVERY_MS, COUNT_REST * (performance.now() - began)), signal);
    }
    this.isCounting = false;
  }

  /** The same array while it holds the same. */
  private rejectedOf(events: readonly LocalEvent[]): readonly RejectedEvent[] {
    const { rejected } = this.parts.board;
    const known = new Map(rejected.map((one) => [one.event.id, one]));
    if (events.length === known.size && events.every((event) => known.has(event.id))) return rejected;
    return events.map((event) => known.get(event.id) ?? this.refused(event));
  }

  /** A refused event in its present form, for it may be older than the application. */
  private refused(stored: LocalEvent): RejectedEvent {
    const { outbox, definitions, onChanges, signal } = this.parts;
    const definition = definitions.get(stored.entity_type);
    const event = definition === undefined ? stored : forPeople(stored, definition);
    let again: Promise<void> | undefined;
    // The next session may be another user's.
    const check = (): void => {
      if (signal.aborted) throw closed();
    };
    const discard = async (): Promise<void> => {
      check();
      onChanges(await outbox.discard(event));
    };
    const anew = async (): Promise<void> => {
      check();
      const isRefused = await outbox.isRefused(event);
      check();
      if (isRefused) await this.parts.retry(event);
    };
    const retry = async (): Promise<void> => {
      // Two clicks are one wish.
      again ??= anew();
      await again.catch((thrown: unknown) => {
        again = undefined;
        throw thrown;
      });
      await discard();
    };
    return { event, retry, discard };
  }
}
