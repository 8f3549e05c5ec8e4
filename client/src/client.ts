/**
 * The client: what the generated code stands on. Records events, shows states, syncs in the background. Knows no React.
 */

import { HybridClock } from './clock.js';
import { DebugLog } from './debugLog.js';
import { optionsOf, type EntityDefinition } from './entity.js';
import { asError, HeadwaterError } from './error.js';
import { nameOf, fromWire, type EntityRef, type EventDraft, type LocalEvent } from './event.js';
import type { State } from './fold.js';
import { checkedPayload } from './payload.js';
import { misfit, ruleOf } from './rules.js';
import { databaseName } from './store/database.js';
import { EventStore, type Changes, type Outbox } from './store/eventStore.js';
import { Backoff, DEFAULT_BACKOFF, sleep } from './sync/backoff.js';
import { INITIAL_STATUS, SyncEngine, type EngineOptions } from './sync/engine.js';
import { TabChannel, whenLeading, type SharedStatus, type TabMessage, type TabPlatform } from './sync/tabs.js';
import { Transport, type GetToken, type TransportOptions } from './sync/transport.js';
import { IdSource } from './uuid.js';
import { Views } from './views.js';

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
  readonly sync?: EngineOptions;
  readonly transport?: Pick<TransportOptions, 'fetch' | 'timeoutMs' | 'silenceMs'>;
  /** The device's clock in milliseconds, for tests. */
  readonly now?: () => number;
  /** The browser's parts, for tests. */
  readonly platform?: Platform;
}

/** The parts of the browser that the client uses. */
export interface Platform extends TabPlatform {
  readonly storage?: Pick<StorageManager, 'persist' | 'estimate'> | undefined;
  /** Where `online` and `visibilitychange` are told. */
  readonly events?: Pick<EventTarget, 'addEventListener' | 'removeEventListener'> | undefined;
}

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
  readonly storage: 'ok' | 'low' | 'full';
}

/** An event that was just recorded. */
export interface RecordedEvent {
  readonly event: LocalEvent;
  /** Resolves when it survives a crash. */
  readonly stored: Promise<void>;
}

/** A refused event, and what can be done. */
export interface RejectedEvent {
  readonly event: LocalEvent;
  /** Sends it anew, as a new event that happens now. */
  retry(): Promise<void>;
  /** Forgets it. */
  discard(): Promise<void>;
}

const DEFAULT_RETENTION_DAYS = 7;
/** How often `sync` looks whether all is sent when nothing tells it. */
const SYNC_CHECK_MS = 200;
const COMPACT_EVERY_MS = 3600 * 1000;
const DAY_MICROS = 24 * 3600 * 1_000_000;
/** So many failures in a row before the user is told. */
const FAILURES_TO_TELL = 3;
/** Of the browser's quota. Above the first the user is warned, above the second nothing more is recorded. */
const STORAGE_LOW = 0.8;
const STORAGE_FULL = 0.95;
/** The estimate is asked for once in so many events: it costs a millisecond. */
const EVENTS_PER_ESTIMATE = 200;

export const INITIAL_SYNC_STATUS: SyncStatus = Object.freeze({ ...INITIAL_STATUS, isLeader: false, unsynced: 0, rejected: 0, isFailing: false, storage: 'ok' });
const NOTHING_REJECTED: readonly RejectedEvent[] = Object.freeze([]);

/** One configured server, tenant and user: everything that ends with the next `configure`. */
interface Session {
  readonly configuration: Configuration;
  readonly name: string;
  readonly store: EventStore;
  readonly transport: Transport;
  readonly channel: TabChannel;
  readonly end: AbortController;
  readonly clock: HybridClock;
  /** The store is open, and the device knows who it is. */
  ready: Promise<void>;
  clientId: string | null;
  engine: SyncEngine | undefined;
  done: Promise<void>;
}

export class HeadwaterClient {
  readonly views: Views;
  readonly log = new DebugLog();
  private readonly definitions: ReadonlyMap<string, EntityDefinition>;
  private readonly ids = new IdSource();
  private session: Session | undefined;
  private shared: SharedStatus = INITIAL_STATUS;
  private outbox: Outbox = { unsynced: 0, rejected: 0 };
  private storage: SyncStatus['storage'] = 'ok';
  private status: SyncStatus = INITIAL_SYNC_STATUS;
  private rejected: readonly RejectedEvent[] = NOTHING_REJECTED;
  private readonly statusListeners = new Set<() => void>();
  private metering: Promise<void> | undefined;
  private meterAgain = false;
  private recorded = 0;
  private readonly writes = new Set<Promise<void>>();

  constructor(definitions: readonly EntityDefinition[]) {
    this.definitions = new Map(definitions.map((definition) => [definition.type, definition]));
    this.views = new Views(this.definitions);
  }

  /** Opens the device's database of this server, tenant and user, and begins to sync. A former one is closed. */
  configure(configuration: Configuration): void {
    void this.close();
    const platform = configuration.platform ?? browser();
    const name = databaseName(configuration.url, configuration.tenantId ?? null, configuration.userId ?? null);
    const store = new EventStore(name);
    const end = new AbortController();
    const session: Session = {
      configuration,
      name,
      store,
      end,
      ready: Promise.resolve(),
      transport: new Transport({
        ...configuration.transport,
        url: configuration.url,
        ...(configuration.getToken === undefined ? {} : { getToken: configuration.getToken }),
        ...(configuration.tenantId === undefined ? {} : { tenantId: configuration.tenantId }),
      }),
      channel: new TabChannel(name, platform, (message) => this.hear(session, message)),
      clock: new HybridClock(configuration.now),
      clientId: null,
      engine: undefined,
      done: Promise.resolve(),
    };
    this.session = session;
    session.ready = this.prepare(session);
    this.views.attach({
      readEntities: async (refs) => {
        await session.ready;
        return store.readEntities(refs);
      },
      readType: async (type) => {
        await session.ready;
        return store.readType(type);
      },
    });
    session.done = this.live(session, platform).catch((thrown: unknown) => {
      const error = asError(thrown);
      this.log.add('the session ended', { message: error.message });
      if (this.session === session) this.setShared({ ...this.shared, connection: 'offline', error: { code: 'storage', message: error.message } });
    });
  }

  /** Stops syncing and closes the database. What is unsent waits for the next time. */
  async close(): Promise<void> {
    const { session } = this;
    if (session === undefined) return;
    this.session = undefined;
    this.views.attach(undefined);
    this.shared = INITIAL_STATUS;
    this.outbox = { unsynced: 0, rejected: 0 };
    this.rejected = NOTHING_REJECTED;
    this.publish();
    session.end.abort(new HeadwaterError('closed', 'the client was closed', { retryable: true }));
    await session.done;
    await Promise.allSettled(this.writes);
    session.channel.close();
    await session.store.close();
  }

  /** Closes the database and removes it from the device, unsent events included. */
  async forget(): Promise<void> {
    const { session } = this;
    await this.close();
    await session?.store.destroy();
  }

  /**
   * Records that something happened. It is in the views when this returns, on the device a moment later, at the server when
   * there is a connection. Throws a HeadwaterError for what the server would refuse anyway, and when the device is full.
   */
  recordEvent(draft: EventDraft): RecordedEvent {
    const session = this.open();
    if (this.storage === 'full') {
      throw new HeadwaterError('storage_full', 'the device has no room left for events; free some space', { retryable: true });
    }
    const definition = this.definitionOf(draft.entity_type);
    const name = nameOf(draft);
    const rule = draft.event_type.startsWith(`${draft.entity_type}.`) ? ruleOf(definition.rules, name) : undefined;
    if (rule === undefined) {
      throw new HeadwaterError('unknown_event_type', `"${draft.event_type}" is no event of "${draft.entity_type}"; it has ${Object.keys(definition.rules).join(', ')}`);
    }
    if (draft.entity_id === '') throw new HeadwaterError('invalid_payload', 'entity_id is empty');
    const payload = checkedPayload(draft.payload);
    const wrong = misfit(rule, payload);
    if (wrong !== undefined) throw new HeadwaterError('invalid_payload', `${draft.event_type}: ${wrong}`);
    const options = optionsOf(definition, name);
    const timestamp = session.clock.tick();
    const event: LocalEvent = Object.freeze({
      id: this.ids.next(timestamp),
      event_type: draft.event_type,
      entity_type: draft.entity_type,
      entity_id: draft.entity_id,
      payload,
      timestamp,
      user_id: session.configuration.userId ?? null,
      client_id: session.clientId,
      tenant_id: session.configuration.tenantId ?? null,
      status: 'pending',
      server_position: null,
      idempotency_key: draft.idempotency_key ?? null,
      schema_version: options.schemaVersion ?? 1,
      client_seq: 0,
      source: 'client',
      applies: true,
      recorded_at: null,
      rejection: null,
      again: null,
    });
    this.views.add(event);
    this.setOutbox({ ...this.outbox, unsynced: this.outbox.unsynced + 1 });
    const stored = this.write(session, event, options.durability === 'strict');
    this.writes.add(stored);
    stored.catch(() => undefined).finally(() => this.writes.delete(stored));
    return { event, stored };
  }

  /** The entity's state, once it is read from the device. Null if there is none. */
  async materialize(type: string, id: string): Promise<State | null> {
    this.open();
    return this.views.state([type, id]);
  }

  /** The entity's events on the device, in the order of the fold. Older ones are at the server: `history`. */
  async getEventsForEntity(type: string, id: string): Promise<readonly LocalEvent[]> {
    this.open();
    return this.views.events([type, id]);
  }

  /** Everything that happened to the entity, from the server; own events that it does not have yet at the end. */
  async history(type: string, id: string, signal: AbortSignal = new AbortController().signal): Promise<readonly LocalEvent[]> {
    const { transport } = this.open();
    const [theirs, ours] = await Promise.all([transport.history(type, id, signal), this.getEventsForEntity(type, id)]);
    const known = new Set(theirs.map((event) => event.id.toLowerCase()));
    return [...theirs.flatMap((event) => fromWire(event) ?? []), ...ours.filter((event) => event.server_position === null && !known.has(event.id))];
  }

  /** Sends soon, together with what else happens until then. */
  scheduleSync(): void {
    this.wake(this.open(), false);
  }

  /** Sends now. Resolves when the server has judged everything recorded so far; rejects when a try fails. */
  async sync(): Promise<void> {
    const session = this.open();
    await session.ready;
    await Promise.allSettled(this.writes);
    const failures = this.shared.failures;
    this.wake(session, true);
    for (;;) {
      const { unsynced } = await session.store.outbox();
      if (unsynced === 0) return;
      if (this.session !== session) throw new HeadwaterError('closed', 'the client was closed');
      if (this.shared.failures > failures) {
        throw new HeadwaterError(this.shared.error?.code ?? 'unreachable', this.shared.error?.message ?? 'sending failed', { retryable: true });
      }
      // The status tells of most changes; the clock catches those of other tabs.
      await Promise.race([this.statusChange(), sleep(SYNC_CHECK_MS)]);
    }
  }

  /** How syncing stands. */
  syncStatus(): SyncStatus {
    return this.status;
  }

  /** What the server refused. The array stays the same until it changes. */
  rejectedEvents(): readonly RejectedEvent[] {
    return this.rejected;
  }

  /** Calls `listener` when the status or the refused events change. */
  subscribeStatus(listener: () => void): () => void {
    const own = (): void => listener();
    this.statusListeners.add(own);
    return () => this.statusListeners.delete(own);
  }

  /** What the sync engine did lately, one JSON object a line; without payloads and tokens. */
  exportDebugLog(): string {
    return this.log.export();
  }

  private open(): Session {
    if (this.session === undefined) throw new HeadwaterError('not_configured', 'call configure({ url }) first');
    return this.session;
  }

  private definitionOf(type: string): EntityDefinition {
    const definition = this.definitions.get(type);
    if (definition === undefined) {
      throw new HeadwaterError('unknown_entity_type', `no entity type is named "${type}"; there are ${[...this.definitions.keys()].join(', ')}`);
    }
    return definition;
  }

  private async prepare(session: Session): Promise<void> {
    const { store, clock } = session;
    await store.open();
    session.clientId = await store.metaOrMake('client_id', () => crypto.randomUUID());
    clock.resume((await store.meta<number>('clock')) ?? 0, (await store.meta<number>('clock_offset')) ?? 0);
  }

  /** From opening to closing. */
  private async live(session: Session, platform: Platform): Promise<void> {
    const { end, channel } = session;
    await session.ready;
    this.meter(session);
    channel.send({ kind: 'hello' });
    const online = (): void => this.wake(session, true);
    platform.events?.addEventListener('online', online);
    try {
      await whenLeading(`${session.name}:leader`, platform, end.signal, () => this.lead(session, platform));
    } finally {
      platform.events?.removeEventListener('online', online);
    }
  }

  private async lead(session: Session, platform: Platform): Promise<void> {
    const { store, end, clock, channel } = session;
    if (end.signal.aborted) return;
    session.engine = new SyncEngine(
      {
        store,
        clock,
        transport: session.transport,
        log: this.log,
        entityTypes: [...this.definitions.keys()],
        clientId: session.clientId ?? '',
        onChanges: (changes) => this.spread(session, changes),
        onStatus: (status) => {
          channel.send({ kind: 'status', status });
          this.setShared(status);
        },
      },
      session.configuration.sync,
    );
    this.publish();
    try {
      await Promise.all([session.engine.run(end.signal), this.keepTidy(session, platform)]);
    } finally {
      session.engine = undefined;
    }
  }

  /** In the leading tab, and not while everything is read anew. */
  private async compact(session: Session, recordedBefore: number): Promise<void> {
    const changes = await session.engine?.tidy(session.end.signal, () => session.store.compact(recordedBefore, this.definitions));
    if (changes === undefined || changes.entities.length === 0) return;
    this.log.add('compacted', { entities: changes.entities.length });
    this.spread(session, changes);
  }

  private async keepTidy(session: Session, platform: Platform): Promise<void> {
    const { end, configuration } = session;
    while (!end.signal.aborted) {
      const days = configuration.retentionDays ?? DEFAULT_RETENTION_DAYS;
      try {
        await this.compact(session, session.clock.time() - days * DAY_MICROS);
        await this.estimate(session, platform);
      } catch (thrown) {
        if (!end.signal.aborted) this.log.add('compaction failed', { message: asError(thrown).message });
      }
      await sleep(COMPACT_EVERY_MS, end.signal);
    }
  }

  /** Writes an own event. A device that is full gets room by compaction, and the event waits in memory meanwhile. */
  private async write(session: Session, event: LocalEvent, strict: boolean): Promise<void> {
    const platform = session.configuration.platform ?? browser();
    const backoff = new Backoff(DEFAULT_BACKOFF);
    try {
      await session.ready;
      for (;;) {
        try {
          await session.store.append({ ...event, client_id: session.clientId }, strict);
          break;
        } catch (thrown) {
          if (!(thrown instanceof HeadwaterError) || thrown.code !== 'storage_full' || session.end.signal.aborted) throw thrown;
          this.setStorage('full');
          await this.compact(session, session.clock.time()).catch(() => undefined);
          await sleep(backoff.next(), session.end.signal);
        }
      }
    } catch (thrown) {
      if (this.session === session) {
        this.views.takeBack(event);
        this.log.add('an event could not be stored', { id: event.id, message: asError(thrown).message });
        this.setShared({ ...this.shared, error: { code: 'storage', message: asError(thrown).message } });
        this.meter(session);
      }
      throw thrown;
    }
    if (this.session !== session) return;
    this.views.isStored(event);
    if (backoff.failures > 0) this.setStorage('ok');
    session.channel.send({ kind: 'changed', entities: [[event.entity_type, event.entity_id]], stamp: session.clock.lastStamp });
    this.wake(session, false);
    if (this.recorded % EVENTS_PER_ESTIMATE === 0) {
      if (this.recorded === 0) void platform.storage?.persist().catch(() => false);
      void this.estimate(session, platform);
    }
    this.recorded += 1;
  }

  private async estimate(session: Session, platform: Platform): Promise<void> {
    const { usage = 0, quota = 0 }: StorageEstimate = (await platform.storage?.estimate().catch(() => undefined)) ?? {};
    if (quota === 0 || this.session !== session) return;
    this.setStorage(usage > quota * STORAGE_FULL ? 'full' : usage > quota * STORAGE_LOW ? 'low' : 'ok');
  }

  private wake(session: Session, now: boolean): void {
    if (session.engine !== undefined) session.engine.wake(now);
    else session.channel.send({ kind: 'wake', now });
  }

  /** What the leader changed in the store: here and in the other tabs. */
  private spread(session: Session, changes: Changes): void {
    if (changes.entities.length === 0) return;
    session.channel.send({ kind: 'changed', entities: changes.entities, stamp: session.clock.lastStamp });
    this.show(session, changes.entities);
  }

  private hear(session: Session, message: TabMessage): void {
    if (this.session !== session) return;
    switch (message.kind) {
      case 'changed':
        session.clock.witness(message.stamp);
        this.show(session, message.entities);
        break;
      case 'wake':
        session.engine?.wake(message.now);
        break;
      case 'status':
        if (session.engine === undefined) this.setShared(message.status);
        break;
      case 'hello':
        if (session.engine !== undefined) session.channel.send({ kind: 'status', status: session.engine.currentStatus() });
        break;
    }
  }

  private show(session: Session, entities: readonly EntityRef[]): void {
    void this.views.refresh(entities);
    this.meter(session);
  }

  /** Counts what is unsent and refused; calls that come while it counts are served by one more count. */
  private meter(session: Session): void {
    this.meterAgain = true;
    this.metering ??= (async () => {
      while (this.meterAgain && this.session === session) {
        this.meterAgain = false;
        const outbox = await session.store.outbox();
        const rejected = outbox.rejected > 0 || this.rejected.length > 0 ? await session.store.rejected() : [];
        if (this.session !== session) break;
        this.takeRejected(session, rejected);
        this.setOutbox({ ...outbox, unsynced: outbox.unsynced + this.views.unstoredCount });
      }
    })()
      .catch((thrown: unknown) => this.log.add('counting failed', { message: asError(thrown).message }))
      .finally(() => {
        this.metering = undefined;
      });
  }

  private takeRejected(session: Session, events: readonly LocalEvent[]): void {
    const known = new Map(this.rejected.map((one) => [one.event.id, one]));
    if (events.length === known.size && events.every((event) => known.has(event.id))) return;
    this.rejected = events.map((event) => known.get(event.id) ?? this.rejectedEvent(session, event));
    this.publish(true);
  }

  private rejectedEvent(session: Session, event: LocalEvent): RejectedEvent {
    return {
      event,
      retry: async () => {
        const { event_type, entity_type, entity_id, payload } = event;
        const { stored } = this.recordEvent({ event_type, entity_type, entity_id, payload });
        await stored;
        this.spread(session, await session.store.remove(event));
      },
      discard: async () => this.spread(session, await session.store.remove(event)),
    };
  }

  private setShared(shared: SharedStatus): void {
    this.shared = shared;
    this.publish();
  }

  private setOutbox(outbox: Outbox): void {
    this.outbox = outbox;
    this.publish();
  }

  private setStorage(storage: SyncStatus['storage']): void {
    if (storage !== this.storage) this.log.add('storage', { storage });
    this.storage = storage;
    this.publish();
  }

  private publish(always = false): void {
    const next: SyncStatus = Object.freeze({
      ...this.shared,
      isLeader: this.session?.engine !== undefined,
      unsynced: this.outbox.unsynced,
      rejected: this.outbox.rejected,
      isFailing: this.shared.failures >= FAILURES_TO_TELL,
      storage: this.storage,
    });
    const before = this.status;
    const same = (Object.keys(next) as (keyof SyncStatus)[]).every((key) => next[key] === before[key]);
    if (same && !always) return;
    this.status = next;
    for (const listener of [...this.statusListeners]) listener();
  }

  private statusChange(): Promise<void> {
    return new Promise((resolve) => {
      const stop = this.subscribeStatus(() => {
        stop();
        resolve();
      });
    });
  }
}

/** What this browser has. In Node (server-side rendering) most is missing, and is not missed. */
function browser(): Platform {
  const { navigator, BroadcastChannel, addEventListener, removeEventListener } = globalThis as Partial<typeof globalThis>;
  return {
    locks: navigator?.locks,
    storage: navigator?.storage,
    BroadcastChannel,
    events: addEventListener === undefined || removeEventListener === undefined ? undefined : globalThis,
  };
}
