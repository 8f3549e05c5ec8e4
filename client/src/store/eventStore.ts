/**
 * The device's event store. Every event of an entity that is not in its baseline lies here: the server's, and own ones
 * on their way. All writes are transactions; a crash between two leaves a store that syncs on.
 */

import { Dexie } from 'dexie';
import { asError, storageError } from '../error.js';
import type { EntityRef, LocalEvent } from '../event.js';
import type { EntityDefinition } from '../entity.js';
import { Database, readEntity, refKey, refOf, type StoredEntity } from './database.js';
import { FoldedStates } from './folded.js';
import { Inbox } from './inbox.js';
import { Outbox, WRITER, type Writer } from './outbox.js';
import { rowOf } from './row.js';

/** What a write changed, for whoever shows it. */
export interface Changes {
  /** Entities whose stored events or baseline changed. */
  readonly entities: readonly EntityRef[];
  /** Those of them of which an event came too late for its baseline: the server must be asked for their state. */
  readonly stale: readonly EntityRef[];
  /** All that changed, where it is events alone; without it, what is shown must be read anew. */
  readonly delta?: Delta;
}

/** Events that are new or say something else, such that only stand otherwise (the state stays as it is), and such that went. */
export interface Delta {
  readonly put: readonly LocalEvent[];
  readonly alike: readonly LocalEvent[];
  readonly gone: readonly LocalEvent[];
}

interface Waiting {
  readonly event: LocalEvent;
  readonly strict: boolean;
  readonly done: (error?: Error) => void;
}

export class EventStore {
  /** What is to be sent. */
  readonly outbox: Outbox;
  /** What comes from the server. */
  readonly inbox: Inbox;
  /** What the events make. */
  readonly states: FoldedStates;
  readonly database: Database;
  private writer: Writer | undefined;
  private waiting: Waiting[] = [];
  private writing: Promise<void> | undefined;
  private readonly name: string;

  constructor(name: string, definitions: ReadonlyMap<string, EntityDefinition>) {
    this.name = name;
    this.database = new Database(name);
    this.outbox = new Outbox(this.database);
    this.inbox = new Inbox(this.database, (type) => definitions.get(type)?.version ?? 1);
    this.states = new FoldedStates(this.database, definitions);
  }

  async open(): Promise<void> {
    await this.database.open();
    await this.states.adopt();
  }

  async close(): Promise<void> {
    await this.writing;
    this.database.close();
  }

  /** Removes the database from the device. */
  async destroy(): Promise<void> {
    await this.close();
    await Dexie.delete(this.name);
  }

  /**
   * Writes an own event. All that are waiting go in one transaction. Resolves when the event will survive a crash of the
   * tab; with `strict`, one of the machine.
   */
  append(event: LocalEvent, strict: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ event, strict, done: (error) => (error === undefined ? resolve() : reject(error)) });
      this.writing ??= this.drain();
    });
  }

  private async drain(): Promise<void> {
    await Promise.resolve();
    while (this.waiting.length > 0) {
      const group = this.waiting;
      this.waiting = [];
      try {
        await this.writeGroup(group);
        group.forEach(({ done }) => done());
      } catch (thrown) {
        const error = storageError(thrown);
        group.forEach(({ done }) => done(error));
      }
    }
    // At once: whoever was just told may append the next before anything else runs.
    this.writing = undefined;
  }

  /**
   * A mutation waits for this, so it goes past Dexie, whose transactions cost more than the writing; and the last number is
   * kept in memory. Two tabs that write in the same moment may give the same number: then either may be sent first.
   */
  private async writeGroup(group: readonly Waiting[]): Promise<void> {
    const { seq, stamp } = (this.writer ??= writerOf(await this.meta(WRITER)));
    const transaction = await this.begin(group.some(({ strict }) => strict) ? 'strict' : 'relaxed');
    const completed = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(asError(transaction.error ?? new Error('the transaction was aborted')));
    });
    const events = transaction.objectStore('events');
    group.forEach(({ event }, index) => events.put(rowOf({ ...event, client_seq: seq + index + 1 })));
    const unfolded = transaction.objectStore('unfolded');
    for (const [t, e] of new Map(group.map(({ event }) => [refKey(refOf(event)), refOf(event)])).values()) unfolded.put({ t, e });
    const writer = { seq: seq + group.length, stamp: group.reduce((last, { event }) => Math.max(last, event.timestamp), stamp) };
    transaction.objectStore('meta').put({ key: WRITER, value: writer });
    this.writer = writer;
    await completed;
  }

  /** Another tab may have made Dexie close, to bring the tables up to date; and browsers close by themselves, as Safari in the background. */
  private async begin(durability: IDBTransactionDurability): Promise<IDBTransaction> {
    const tables = ['events', 'meta', 'unfolded'];
    if (!this.database.isOpen()) await this.database.open();
    try {
      return this.database.backendDB().transaction(tables, 'readwrite', { durability });
    } catch (thrown) {
      if (asError(thrown).name !== 'InvalidStateError') throw thrown;
      this.database.close({ disableAutoOpen: false });
      await this.database.open();
      return this.database.backendDB().transaction(tables, 'readwrite', { durability });
    }
  }

  /** Another tab may have written, or the last stamp is another: both are to be read. */
  readNumbersAgain(): void {
    this.writer = undefined;
  }

  /** The last stamp that an own event got in a former run. */
  async lastStamp(): Promise<number> {
    return writerOf(await this.meta(WRITER)).stamp;
  }

  async meta<T>(key: string): Promise<T | undefined> {
    return (await this.database.meta.get(key))?.value as T | undefined;
  }

  async setMeta(key: string, value: unknown): Promise<void> {
    await this.database.meta.put({ key, value });
  }

  /** The value under `key`; `make` gives the first. Two tabs that ask at once get the same. */
  async metaOrMake<T>(key: string, make: () => T): Promise<T> {
    return this.database.transaction('rw', this.database.meta, async () => {
      const row = await this.database.meta.get(key);
      if (row !== undefined) return row.value as T;
      const value = make();
      await this.database.meta.put({ key, value });
      return value;
    });
  }

  /** Entities as they are stored, all from one moment. */
  async readEntities(refs: readonly EntityRef[]): Promise<StoredEntity[]> {
    const { events, baselines } = this.database;
    return this.database.transaction('r', events, baselines, () => Promise.all(refs.map((ref) => readEntity(this.database, ref))));
  }

  /** Every entity of a type, by id. */
  readType(type: string): Promise<Map<string, StoredEntity>> {
    return this.states.readType(type);
  }
}

function writerOf(value: unknown): Writer {
  return (value as Writer | undefined) ?? { seq: 0, stamp: 0 };
}
