/**
 * One configured server, tenant and user: its store, its tabs, its engine, and everything that ends with the next `configure`.
 * Shows what changes in the views and on the status board.
 */

import { HybridClock } from './clock.js';
import { browser, type Configuration, type Platform } from './configuration.js';
import type { DebugLog } from './debugLog.js';
import type { EntityDefinition } from './entity.js';
import { asError, closed, HeadwaterError } from './error.js';
import type { EntityRef, LocalEvent } from './event.js';
import { Room } from './room.js';
import type { StatusBoard } from './status.js';
import { compact, type Horizon } from './store/compact.js';
import { databaseName } from './store/database.js';
import { EventStore, type Changes } from './store/eventStore.js';
import { Backoff, DEFAULT_BACKOFF, sleep } from './sync/backoff.js';
import { DEFAULTS, SyncEngine } from './sync/engine.js';
import { TabChannel, whenLeading, type TabMessage } from './sync/tabs.js';
import { Transport } from './sync/transport.js';
import { COUNT_REST, Tally } from './tally.js';
import { randomId } from './uuid.js';
import type { Views } from './views.js';

/** What a session works on. */
export interface SessionParts {
  readonly definitions: ReadonlyMap<string, EntityDefinition>;
  readonly views: Views;
  readonly board: StatusBoard;
  readonly log: DebugLog;
  /** Sends a refused event anew. */
  readonly retry: (event: LocalEvent) => Promise<void>;
}

const DEFAULT_RETENTION_DAYS = 7;
/** Few people go back to a backup that is older. */
const DEFAULT_OWN_RETENTION_DAYS = 30;
/** How often `sync` looks whether all is sent when nothing tells it. */
const SYNC_CHECK_MS = 200;
/** Without a rest of `restMs`, states are folded after so many times as long. */
const LONGEST_RESTLESS = 30;
const COMPACT_EVERY_MS = 3600 * 1000;
const DAY_MICROS = 24 * 3600 * 1_000_000;
/** The estimate is asked for once in so many events: it costs a millisecond. */
const EVENTS_PER_ESTIMATE = 200;

export class Session {
  readonly configuration: Configuration;
  readonly transport: Transport;
  readonly clock: HybridClock;
  readonly store: EventStore;
  engine: SyncEngine | undefined;
  private readonly parts: SessionParts;
  private readonly platform: Platform;
  private readonly name: string;
  private readonly channel: TabChannel;
  private readonly room: Room;
  private readonly tally: Tally;
  private readonly stop = new AbortController();
  private readonly writes = new Set<Promise<void>>();
  private readonly ready: Promise<void>;
  private readonly done: Promise<void>;
  private id: string | null = null;
  private recorded = 0;
  /** Counts what was written to the store, by this tab and, as far as it was told, by others. */
  private written = 0;
  private tellWritten: () => void = () => undefined;

  constructor(configuration: Configuration, parts: SessionParts) {
    this.configuration = configuration;
    this.parts = parts;
    this.platform = configuration.platform ?? browser();
    // However the address ends, it is the same server's.
    this.name = databaseName(configuration.url.replace(/\/+$/, ''), configuration.tenantId ?? null, configuration.userId ?? null);
    this.store = new EventStore(this.name, parts.definitions);
    this.clock = new HybridClock(configuration.now);
    this.transport = new Transport({
      ...configuration.transport,
      url: configuration.url,
      ...(configuration.getToken === undefined ? {} : { getToken: configuration.getToken }),
      ...(configuration.tenantId === undefined ? {} : { tenantId: configuration.tenantId }),
    });
    const { board, log, views, definitions, retry } = parts;
    const { signal } = this.stop;
    this.room = new Room({ storage: this.platform.storage, board, log, signal, backoff: configuration.sync?.backoff ?? DEFAULT_BACKOFF });
    const unstored = (): number => views.unstoredCount;
    this.tally = new Tally({ outbox: this.store.outbox, definitions, board, log, unstored, retry, onChanges: (changes) => this.spread(changes), signal });
    this.channel = new TabChannel(this.name, this.platform, (message) => this.hear(message));
    this.ready = this.prepare();
    parts.views.attach({
      readEntities: async (refs) => {
        await this.ready;
        return this.store.readEntities(refs);
      },
      readType: async (type) => {
        await this.ready;
        return this.store.readType(type);
      },
    });
    this.done = this.live().catch((thrown: unknown) => {
      const error = asError(thrown);
      parts.log.add('the session ended', { message: error.message });
      if (!this.ended) parts.board.set({ shared: { ...parts.board.shared, connection: 'offline', error: { code: 'storage', message: error.message } } });
    });
  }

  /** The device's id, once it is read. */
  get clientId(): string | null {
    return this.id;
  }

  get ended(): boolean {
    return this.stop.signal.aborted;
  }

  /** Stops syncing and closes the database. */
  async end(): Promise<void> {
    this.stop.abort(closed());
    this.tellWritten();
    await this.done;
    await Promise.allSettled(this.writes);
    this.channel.close();
    await this.store.close();
  }

  /** Writes an own event that stands in the views already. Resolves when it survives a crash. */
  record(event: LocalEvent): Promise<void> {
    const stored = this.write(event);
    this.writes.add(stored);
    stored.catch(() => undefined).finally(() => this.writes.delete(stored));
    return stored;
  }

  /** Sends now. Resolves when the server has judged everything recorded so far; rejects when a try fails. */
  async sync(): Promise<void> {
    const { board } = this.parts;
    await this.ready;
    await Promise.allSettled(this.writes);
    const { failures } = board.shared;
    let told = new AbortController();
    const stop = board.subscribe(() => told.abort());
    try {
      this.wake(true);
      for (;;) {
        if (this.ended) throw closed();
        told = new AbortController();
        const began = performance.now();
        const { unsynced } = await this.store.outbox.counts().catch((thrown: unknown) => {
          throw this.ended ? closed() : asError(thrown);
        });
        if (unsynced === 0) return;
        const rest = Math.min(SYNC_CHECK_MS, COUNT_REST * (performance.now() - began));
        if (board.shared.failures > failures) {
          throw new HeadwaterError(board.shared.error?.code ?? 'unreachable', board.shared.error?.message ?? 'sending failed', { retryable: true });
        }
        // The status tells of most changes; the clock catches those of other tabs.
        await sleep(SYNC_CHECK_MS, AbortSignal.any([told.signal, this.stop.signal]));
        await sleep(rest, this.stop.signal);
      }
    } finally {
      stop();
    }
  }

  /** Has the leading tab send: at once, or soon. */
  wake(now: boolean): void {
    if (this.engine !== undefined) this.engine.wake(now);
    else this.channel.send({ kind: 'wake', now });
  }

  private async prepare(): Promise<void> {
    const { store, clock } = this;
    await store.open();
    const versions = Object.fromEntries([...this.parts.definitions.values()].map(({ type, version = 1 }) => [type, version]));
    const [id, stamp, offset, before] = await Promise.all([
      store.metaOrMake('client_id', randomId),
      store.lastStamp(),
      store.meta<number>('clock_offset'),
      store.meta<Record<string, number>>('versions'),
    ]);
    this.id = id;
    clock.resume(stamp, offset ?? 0);
    // The application was updated: states in their old form are lifted where they are shown, and asked for anew.
    if (before !== undefined && Object.entries(versions).some(([type, version]) => before[type] !== undefined && before[type] !== version)) await store.inbox.startOver();
    if (before === undefined || Object.entries(versions).some(([type, version]) => before[type] !== version)) await store.setMeta('versions', { ...before, ...versions });
  }

  /** From opening to closing. */
  private async live(): Promise<void> {
    await this.ready;
    this.tally.count();
    this.channel.send({ kind: 'hello' });
    // A laptop that is opened again may have been online all the time; but then it is looked at.
    const online = (): void => {
      if (!this.ended) this.wake(true);
    };
    const heard = ['online', 'pageshow', 'focus'] as const;
    for (const name of heard) this.platform.events?.addEventListener(name, online);
    try {
      await whenLeading(`${this.name}:leader`, this.platform, this.stop.signal, (took) => this.lead(took));
    } finally {
      for (const name of heard) this.platform.events?.removeEventListener(name, online);
    }
  }

  private async lead(took: boolean): Promise<void> {
    const { parts, stop, store, clock, transport } = this;
    if (stop.signal.aborted) return;
    // The one that led may have died between writing and telling.
    if (took) this.showAll();
    this.engine = new SyncEngine(
      {
        store,
        clock,
        transport,
        log: parts.log,
        entityTypes: [...parts.definitions.keys()],
        clientId: this.id ?? '',
        onChanges: (changes) => this.spread(changes),
        onStatus: (shared) => {
          // The next session may show its own by now.
          if (this.ended) return;
          this.channel.send({ kind: 'status', status: shared });
          parts.board.set({ shared });
        },
      },
      this.configuration.sync,
    );
    parts.board.set();
    try {
      await Promise.all([this.engine.run(stop.signal), this.keepTidy(), this.keepFolded()]);
    } finally {
      this.engine = undefined;
    }
  }

  /** In the leading tab, and not while everything is read anew. */
  private async compact(horizon: Horizon): Promise<void> {
    const changes = await this.engine?.tidy(this.stop.signal, () => compact(this.store.database, horizon, this.parts.definitions));
    if (changes === undefined || changes.entities.length === 0) return;
    this.parts.log.add('compacted', { entities: changes.entities.length });
    this.spread(changes);
  }

  private async keepTidy(): Promise<void> {
    while (!this.ended) {
      const { retentionDays = DEFAULT_RETENTION_DAYS, ownRetentionDays = DEFAULT_OWN_RETENTION_DAYS } = this.configuration;
      const now = this.clock.time();
      try {
        await this.compact({ foldBefore: now - retentionDays * DAY_MICROS, dropOwnBefore: now - Math.max(retentionDays, ownRetentionDays) * DAY_MICROS });
        await this.room.look();
      } catch (thrown) {
        if (!this.ended) this.parts.log.add('compaction failed', { message: asError(thrown).message });
      }
      await sleep(COMPACT_EVERY_MS, this.stop.signal);
    }
  }

  /** Folds what has changed whenever nothing happens for a while. */
  private async keepFolded(): Promise<void> {
    const { store, stop, parts } = this;
    const rest = this.configuration.sync?.restMs ?? DEFAULTS.restMs;
    while (!this.ended) {
      let seen = this.written;
      for (let waits = 0; waits < LONGEST_RESTLESS; waits += 1) {
        await sleep(rest, stop.signal);
        if (seen === this.written) break;
        seen = this.written;
      }
      try {
        // What room is left is for events.
        const entities = this.ended || parts.board.storage === 'full' ? 0 : await store.states.write(stop.signal);
        if (entities > 0) parts.log.add('folded', { entities });
      } catch (thrown) {
        // Opening the next time takes longer; nothing else depends on it.
        if (!this.ended) parts.log.add('folding failed', { message: asError(thrown).message });
      }
      if (seen === this.written && !this.ended) {
        await new Promise<void>((resolve) => {
          this.tellWritten = resolve;
        });
      }
    }
  }

  private noteWritten(): void {
    this.written += 1;
    this.tellWritten();
  }

  /** A device that is full gets room by compaction, and the event waits in memory meanwhile. */
  private async write(event: LocalEvent): Promise<void> {
    const { store, stop, parts } = this;
    const strict = this.configuration.durability?.[event.event_type] === 'strict';
    const backoff = new Backoff(this.configuration.sync?.backoff ?? DEFAULT_BACKOFF);
    let served: (() => void) | undefined;
    try {
      await this.ready;
      for (;;) {
        try {
          await store.append({ ...event, client_id: this.id }, strict);
          break;
        } catch (thrown) {
          if (!(thrown instanceof HeadwaterError) || thrown.code !== 'storage_full' || stop.signal.aborted) throw thrown;
          served ??= this.room.lacking();
          // Not awaited: it waits for the first download, which may never come.
          const now = this.clock.time();
          void this.compact({ foldBefore: now, dropOwnBefore: now }).catch(() => undefined);
          await sleep(backoff.next(), stop.signal);
        }
      }
    } catch (thrown) {
      if (!this.ended) {
        parts.views.takeBack(event);
        parts.log.add('an event could not be stored', { id: event.id, message: asError(thrown).message });
        parts.board.set({ shared: { ...parts.board.shared, error: { code: 'storage', message: asError(thrown).message } } });
        this.tally.count();
      }
      throw thrown;
    } finally {
      served?.();
    }
    if (this.ended) return;
    parts.views.isStored(event);
    this.noteWritten();
    this.channel.send({ kind: 'changed', entities: [[event.entity_type, event.entity_id]], stamp: this.clock.lastStamp });
    this.wake(false);
    if (this.recorded % EVENTS_PER_ESTIMATE === 0) {
      if (this.recorded === 0) void this.platform.storage?.persist().catch(() => false);
      void this.room.look();
    }
    this.recorded += 1;
  }

  /** What was changed in the store: here and in the other tabs. */
  private spread(changes: Changes): void {
    if (changes.entities.length === 0) return;
    this.noteWritten();
    const correction = this.engine === undefined ? {} : { offset: this.clock.offsetMicros };
    this.channel.send({ kind: 'changed', entities: changes.entities, stamp: this.clock.lastStamp, ...correction });
    if (changes.delta === undefined) this.show(changes.entities);
    else if (!this.ended) {
      this.parts.views.apply(changes.delta);
      this.tally.count();
    }
  }

  private hear(message: TabMessage): void {
    if (this.ended) return;
    switch (message.kind) {
      case 'changed':
        if (message.offset !== undefined) this.clock.follow(message.offset);
        this.clock.witness(message.stamp);
        this.store.readNumbersAgain();
        this.noteWritten();
        this.show(message.entities);
        break;
      case 'wake':
        this.engine?.wake(message.now);
        break;
      case 'status':
        if (this.engine === undefined) this.parts.board.set({ shared: message.status });
        break;
      case 'hello':
        if (this.engine !== undefined) this.channel.send({ kind: 'status', status: this.engine.currentStatus() });
        break;
    }
  }

  private show(entities: readonly EntityRef[]): void {
    void this.parts.views.refresh(entities);
    this.tally.count();
  }

  private showAll(): void {
    this.store.readNumbersAgain();
    this.noteWritten();
    void this.parts.views.refreshAll();
    this.tally.count();
  }
}
