/** Own events on their way to the server: what is unsent, in the order in which it was recorded, and what the server said of it. */

import type { LocalEvent, Rejection } from '../event.js';
import { getEvents, keyOf, putEvents, refsOf, unfold, type Database } from './database.js';
import type { Changes } from './eventStore.js';
import { eventOf } from './row.js';

/** How many own events are in which state. */
export interface Counts {
  /** Not yet accepted. */
  readonly unsynced: number;
  readonly rejected: number;
}

/** A server's judgement of one batch. */
export interface Verdicts {
  readonly accepted: readonly string[];
  readonly rejected: readonly { readonly id: string; readonly rejection: Rejection }[];
}

/** The last `client_seq` and the last stamp that own events got. */
export interface Writer {
  readonly seq: number;
  readonly stamp: number;
}

/** Under this key they stand. */
export const WRITER = 'writer';
/** Under this key stands the `client_seq` up to which events were posted: one value, for writing it into every event would hold sending up. */
const POSTED = 'posted';

export class Outbox {
  private readonly database: Database;
  /** As this tab has written it. */
  private postedThrough: number | undefined;

  constructor(database: Database) {
    this.database = database;
  }

  async counts(): Promise<Counts> {
    const { events } = this.database;
    const [unsynced, rejected] = await Promise.all([events.orderBy('u').count(), events.orderBy('x').count()]);
    return { unsynced, rejected };
  }

  /** What the server refused, in recorded order. */
  async rejected(): Promise<LocalEvent[]> {
    return (await this.database.events.orderBy('x').toArray()).map(eventOf);
  }

  /** The next own events to send, in the order in which they were recorded: the first ones, or those behind `after`. */
  async next(limit: number, after = 0): Promise<LocalEvent[]> {
    return (await this.database.events.where('u').above(after).limit(limit).toArray()).map(eventOf);
  }

  /** These are about to be posted: from now on the server may have them. */
  async posting(batch: readonly LocalEvent[]): Promise<void> {
    const through = batch.reduce((last, { client_seq }) => Math.max(last, client_seq), 0);
    if (through <= (this.postedThrough ??= await this.readPosted())) return;
    await this.database.meta.put({ key: POSTED, value: through });
    this.postedThrough = through;
  }

  private async readPosted(): Promise<number> {
    return ((await this.database.meta.get(POSTED))?.value as number | undefined) ?? 0;
  }

  /** Writes the server's judgement of a batch down. An event whose copy has come from the server meanwhile stays as it came. */
  async settle(batch: readonly LocalEvent[], { accepted, rejected }: Verdicts): Promise<Changes> {
    const verdicts = new Map<string, Rejection | null>(accepted.map((id) => [id, null]));
    for (const { id, rejection } of rejected) verdicts.set(id, rejection);
    const { events, unfolded } = this.database;
    return this.database.transaction('rw', events, unfolded, async () => {
      const stored = await getEvents(this.database, batch.filter(({ id }) => verdicts.has(id)).map(keyOf));
      const judged = stored.flatMap((event): LocalEvent[] => {
        const rejection = verdicts.get(event.id);
        if (rejection === undefined || event.status === 'accepted') return [];
        // Restored from a backup, the server may know the event under its former stamp.
        const known = rejection === null || (rejection.code === 'conflict' && event.again === 'restored');
        return [known ? { ...event, status: 'accepted', rejection: null } : { ...event, status: 'rejected', rejection }];
      });
      await putEvents(this.database, judged);
      const put = judged.filter(({ status }) => status === 'rejected');
      await unfold(this.database, refsOf(put));
      return { entities: refsOf(judged), stale: [], delta: { put, alike: judged.filter(({ status }) => status !== 'rejected'), gone: [] } };
    });
  }

  /** Gives unsent events new stamps, in their order; `restamp` makes one. Those that had one already are left. */
  async restamp(rejectedIds: readonly string[], restamp: () => number): Promise<Changes> {
    const { events, meta, unfolded } = this.database;
    return this.database.transaction('rw', events, meta, unfolded, async () => {
      const rejected = new Set(rejectedIds);
      const posted = await this.readPosted();
      // What was posted and was not just refused may be at the server with its old stamp.
      const put = (await events.orderBy('u').toArray())
        .map(eventOf)
        .filter((event) => event.again === null && (event.client_seq > posted || rejected.has(event.id)))
        .map((event) => ({ ...event, timestamp: restamp(), status: 'pending' as const, again: 'restamped' as const }));
      await putEvents(this.database, put);
      await unfold(this.database, refsOf(put));
      // Or the next start would go on behind the wrong stamps.
      const writer = (await meta.get(WRITER))?.value as Writer | undefined;
      const last = put.at(-1);
      if (writer !== undefined && last !== undefined) await meta.put({ key: WRITER, value: { ...writer, stamp: last.timestamp } });
      return { entities: refsOf(put), stale: [], delta: { put, alike: [], gone: [] } };
    });
  }

  /** Whether it is refused still. */
  async isRefused(event: LocalEvent): Promise<boolean> {
    return (await getEvents(this.database, [keyOf(event)]))[0]?.status === 'rejected';
  }

  /** Takes a refused event out, unless it is refused no more: the server may have told otherwise meanwhile. */
  async discard(event: LocalEvent): Promise<Changes> {
    const { events, unfolded } = this.database;
    return this.database.transaction('rw', events, unfolded, async () => {
      const [stored] = await getEvents(this.database, [keyOf(event)]);
      if (stored?.status !== 'rejected') return { entities: [], stale: [] };
      await events.delete(keyOf(event));
      await unfold(this.database, refsOf([event]));
      return { entities: refsOf([event]), stale: [], delta: { put: [], alike: [], gone: [stored] } };
    });
  }

  /** The server lost history (a restored backup): every own event that is still here will be sent again. How many those are. */
  async resendAll(clientId: string): Promise<number> {
    const { events, meta } = this.database;
    return this.database.transaction('rw', events, meta, async () => {
      const own = (await events.toArray()).map(eventOf).filter((event) => event.status === 'accepted' && event.client_seq > 0 && event.client_id === clientId);
      await putEvents(this.database, own.map((event) => ({ ...event, status: 'sent', again: 'restored' })));
      await meta.bulkDelete(['cursor', 'sent_cursor']);
      return own.length;
    });
  }

  /**
   * The server accepted events while there is no cursor yet: by this one of its answer it can be told later whether it
   * still has that history. The first is kept, for a later one may be of the next history.
   */
  async noteAccepted(cursor: string): Promise<void> {
    const { meta } = this.database;
    await this.database.transaction('rw', meta, async () => {
      const known = await meta.bulkGet(['cursor', 'sent_cursor']);
      if (known.every((row) => row === undefined)) await meta.put({ key: 'sent_cursor', value: cursor });
    });
  }
}
