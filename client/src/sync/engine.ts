/**
 * The sync engine: runs in the leading tab only. Two loops: one sends what the store holds unsent, in batches; the other
 * listens to the stream, or polls, and writes what comes into the store, with the cursor, in one transaction.
 *
 * Sending, fetching a state and starting anew exclude each other: a state from the server then holds exactly those own events
 * that the store calls accepted.
 */

import { parseMicros, type HybridClock } from '../clock.js';
import type { DebugLog } from '../debugLog.js';
import { asError, HeadwaterError, storageError } from '../error.js';
import type { LocalEvent, WireEvent } from '../event.js';
import type { Changes, EventStore } from '../store/eventStore.js';
import { Backoff, DEFAULT_BACKOFF, sleep, type BackoffOptions } from './backoff.js';
import { INITIAL_STATUS, type SharedStatus } from './tabs.js';
import { POLLING_ONLY, streamBySocket, streamBySse } from './stream.js';
import { abortable, isRefusal, type BatchAnswer, type Transport } from './transport.js';

/** How the engine paces itself; every value has a default. */
export interface EngineOptions {
  /** After a mutation so long, so that several go in one batch. */
  readonly debounceMs?: number;
  /** Events in a batch. The server takes 1000 at most. */
  readonly batchEvents?: number;
  readonly backoff?: BackoffOptions;
  /** After so long without a change, what the events make is written down, so that lists open without reading them. */
  readonly restMs?: number;
  /** Between two polls. */
  readonly pollMs?: number;
  /** How events come: `auto` tries SSE, then a WebSocket, and falls back to polling. */
  readonly receive?: 'auto' | 'sse' | 'websocket' | 'polling';
}

export interface EngineParts {
  readonly store: EventStore;
  readonly transport: Transport;
  readonly clock: HybridClock;
  readonly log: DebugLog;
  readonly entityTypes: readonly string[];
  readonly clientId: string;
  /** The store changed. */
  readonly onChanges: (changes: Changes) => void;
  readonly onStatus: (status: SharedStatus) => void;
}

/** The defaults. */
export const DEFAULTS = { debounceMs: 100, batchEvents: 500, backoff: DEFAULT_BACKOFF, pollMs: 3000, restMs: 1000, receive: 'auto' } as const;

/** States written in one transaction. */
const SNAPSHOT_CHUNK = 500;
/** Streams in a row that break before they say anything, after which another way is tried: a proxy may hold them back. */
const MUTE_STREAMS = 2;
/** Sockets in a row that do so, after which polling is tried. */
const MUTE_SOCKETS = 2;
/** Polls before the stream is tried again. */
const POLLS_BEFORE_STREAM = 100;

export class SyncEngine {
  private readonly options: Required<EngineOptions>;
  private status: SharedStatus = INITIAL_STATUS;
  private readonly sendFailures: Backoff;
  private readonly receiveFailures: Backoff;
  /** What must not run at the same time; see above. */
  private turn: Promise<unknown> = Promise.resolve();
  private setReady: () => void = () => undefined;
  private readonly isReady = new Promise<void>((resolve) => {
    this.setReady = resolve;
  });
  private wakeSender: () => void = () => undefined;
  private wakeReceiver: () => void = () => undefined;
  private due = false;
  private hurry = false;
  /** Whether there may be entities to ask for; at first, from a former run. */
  private mayBeStale = true;

  private readonly parts: EngineParts;

  constructor(parts: EngineParts, options: EngineOptions = {}) {
    this.parts = parts;
    this.options = { ...DEFAULTS, ...options };
    this.sendFailures = new Backoff(this.options.backoff);
    this.receiveFailures = new Backoff(this.options.backoff);
  }

  /** Sends and receives until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    this.parts.log.add('leading');
    this.due = true;
    // What the last leader said counts no more; but a download that was complete is.
    const cursor = await this.parts.store.inbox.cursor().catch(() => undefined);
    this.status = { ...this.status, ready: cursor !== undefined };
    this.parts.onStatus(this.status);
    await Promise.all([this.sendLoop(signal), this.receiveLoop(signal)]);
    this.parts.log.add('no longer leading');
  }

  /** There is something to send. With `now`, without waiting for more, nor for the end of a back-off. */
  wake(now: boolean): void {
    this.due = true;
    this.hurry ||= now;
    this.wakeSender();
    if (now) this.wakeReceiver();
  }

  /** Runs `work` once the first download is there, and nothing else changes what the store knows of the server. */
  async tidy<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await abortable(this.isReady, signal);
    return this.exclusively(signal, work);
  }

  /** What all tabs show. */
  currentStatus(): SharedStatus {
    return this.status;
  }

  private async sendLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (!this.due) await this.pause(Infinity, signal, 'wakeSender', () => this.due);
      if (signal.aborted) return;
      await this.pause(this.options.debounceMs, signal, 'wakeSender', () => this.hurry);
      this.due = false;
      this.hurry = false;
      try {
        await this.exclusively(signal, () => this.flush(signal));
      } catch (thrown) {
        if (signal.aborted) return;
        const wait = this.failed('sending failed', this.sendFailures, thrown);
        this.due = true;
        await this.pause(wait, signal, 'wakeSender', () => this.hurry);
      }
    }
  }

  /**
   * Sends until nothing is unsent: one batch at a time is on its way, for the order counts. Meanwhile the answer to the last one is
   * written down and the next one read.
   */
  private async flush(signal: AbortSignal): Promise<void> {
    const { outbox } = this.parts.store;
    let limit = this.options.batchEvents;
    let settling: Promise<unknown> = Promise.resolve();
    let next = ahead(outbox.next(limit));
    try {
      for (;;) {
        let batch = await next;
        if (batch.length === 0) {
          // Nothing behind the last batch; what was recorded meanwhile, or before by another tab under the same number, is found from the start.
          await settling;
          batch = await outbox.next(limit);
        }
        if (batch.length === 0) {
          this.succeeded(this.sendFailures, {});
          return;
        }
        this.publish({ sending: true });
        try {
          await outbox.posting(batch);
          next = ahead(outbox.next(limit, batch.at(-1)?.client_seq));
          const answer = await this.parts.transport.batch(batch, signal);
          await settling;
          settling = ahead(this.settle(batch, answer));
          // What was refused may be stamped anew, and what stands behind it too.
          if (answer.accepted.length < batch.length || limit < this.options.batchEvents) {
            await settling;
            limit = this.options.batchEvents;
            next = ahead(outbox.next(limit));
          }
          this.succeeded(this.sendFailures, {});
        } catch (thrown) {
          if (!isRefusal(thrown)) throw thrown;
          await settling;
          // The request itself was refused (too large, malformed): find the event that is to blame.
          if (batch.length > 1) limit = Math.ceil(batch.length / 2);
          else await this.refuse(batch[0] as LocalEvent, thrown);
          next = ahead(outbox.next(limit));
        }
      }
    } finally {
      await settling.catch(() => undefined);
      this.publish({ sending: false });
    }
  }

  /** Writes the answer to a batch down. */
  private async settle(batch: readonly LocalEvent[], answer: BatchAnswer): Promise<void> {
    const skewed = answer.serverTime === null ? [] : batch.filter((event) => event.again === null && answer.rejected.some(({ id, rejection }) => id === event.id && rejection.code === 'clock_skew'));
    if (skewed.length > 0 && answer.serverTime !== null) {
      this.parts.log.add('the clock was wrong', { corrected: answer.serverTime, events: skewed.length });
      this.parts.clock.correct(answer.serverTime);
      await this.parts.store.setMeta('clock_offset', this.parts.clock.offsetMicros);
      const changes = await this.parts.store.outbox.restamp(skewed.map(({ id }) => id), () => this.parts.clock.tick());
      this.parts.store.readNumbersAgain();
      this.parts.onChanges(changes);
    }
    if (answer.cursor !== null) await this.parts.store.outbox.noteAccepted(answer.cursor);
    const stampedAnew = new Set(skewed.map(({ id }) => id));
    const rejected = answer.rejected.filter(({ id }) => !stampedAnew.has(id));
    this.parts.onChanges(await this.parts.store.outbox.settle(batch, { accepted: answer.accepted, rejected }));
    this.parts.log.add('sent', { events: batch.length, accepted: answer.accepted.length, rejected: rejected.map(({ id, rejection }) => `${id} ${rejection.code}`) });
    const judged = new Set([...answer.accepted, ...answer.rejected.map(({ id }) => id)]);
    const forgotten = batch.find((event) => !judged.has(event.id));
    if (forgotten !== undefined) {
      throw new HeadwaterError('malformed_answer', `the server's answer does not mention event ${forgotten.id}`, { retryable: true });
    }
  }

  private async refuse(event: LocalEvent, error: HeadwaterError): Promise<void> {
    this.parts.log.add('an event was refused as a request', { id: event.id, code: error.code });
    const rejection = { code: error.code, reason: error.message };
    this.parts.onChanges(await this.parts.store.outbox.settle([event], { accepted: [], rejected: [{ id: event.id, rejection }] }));
  }

  private async receiveLoop(signal: AbortSignal): Promise<void> {
    let mute = 0;
    let polls = 0;
    let isLost = false;
    while (!signal.aborted) {
      const way = this.way(mute, polls);
      try {
        if (isLost) await this.lostHistory();
        isLost = false;
        if ((await this.parts.store.inbox.cursor()) === undefined) await this.exclusively(signal, () => this.startAnew(signal));
        this.publish({ ready: true });
        this.setReady();
        await this.mendStale(signal);
        if (way === 'polling') {
          polls += 1;
          await this.poll(signal);
        } else {
          const spoke = await this.listen(way, signal);
          // A socket that works is no reason to believe in streams again.
          mute = spoke ? (way === 'sse' ? 0 : MUTE_STREAMS) : mute + 1;
          polls = 0;
          // The server has said goodbye: come back in a moment, not all devices at once.
          await this.pause(this.options.backoff.baseMs * Math.random(), signal, 'wakeReceiver');
        }
      } catch (thrown) {
        if (signal.aborted) return;
        const { code = '', details = {} } = thrown instanceof HeadwaterError ? thrown : {};
        if (code === 'cursor_expired') {
          isLost = true;
          continue;
        }
        if (code === POLLING_ONLY && this.options.receive === 'auto') {
          mute = MUTE_STREAMS + MUTE_SOCKETS;
          polls = 0;
          continue;
        }
        if (details.status === 401) this.parts.transport.tokenExpired();
        const unsupported = [404, 405, 406, 501].includes(details.status ?? 0);
        if (way === 'websocket' || code === 'silent') mute += 1;
        // What the server does not know it will not know the next time.
        if (unsupported) mute = Math.max(mute, way === 'sse' ? MUTE_STREAMS : MUTE_STREAMS + MUTE_SOCKETS);
        const wait = this.failed('receiving failed', this.receiveFailures, thrown);
        this.publish({ connection: 'offline' });
        await this.pause(wait, signal, 'wakeReceiver');
      }
    }
  }

  /** How to receive next, after so many mute streams in a row and so many polls. */
  private way(mute: number, polls: number): 'sse' | 'websocket' | 'polling' {
    const { receive } = this.options;
    if (receive !== 'auto') return receive;
    if (mute < MUTE_STREAMS || polls % POLLS_BEFORE_STREAM === POLLS_BEFORE_STREAM - 1) return 'sse';
    return mute < MUTE_STREAMS + MUTE_SOCKETS && (this.parts.transport.options.WebSocket ?? globalThis.WebSocket) !== undefined ? 'websocket' : 'polling';
  }

  /** Reads the stream until it ends. Whether it said anything. */
  private async listen(way: 'sse' | 'websocket', signal: AbortSignal): Promise<boolean> {
    const cursor = await this.parts.store.inbox.cursor();
    const query = { entity_type: this.parts.entityTypes.join(','), ...(cursor === undefined ? {} : { cursor }) };
    const stream = way === 'sse' ? streamBySse : streamBySocket;
    let spoke = false;
    for await (const part of stream(this.parts.transport, query, signal)) {
      if (!spoke) this.parts.log.add('listening', { cursor, way });
      spoke = true;
      if (part.events.length > 0 || part.cursor !== null) await this.take(part.events, part.cursor);
      this.succeeded(this.receiveFailures, { connection: 'live' });
      if (part.reset) {
        await this.lostHistory();
        return true;
      }
      await this.mendStale(signal);
    }
    return spoke;
  }

  private async poll(signal: AbortSignal): Promise<void> {
    const cursor = await this.parts.store.inbox.cursor();
    const query = { entity_type: this.parts.entityTypes.join(','), limit: '1000', ...(cursor === undefined ? {} : { cursor }) };
    const page = await this.parts.transport.since(query, signal);
    await this.take(page.events, page.cursor);
    this.succeeded(this.receiveFailures, { connection: 'polling' });
    if (!page.has_more) await this.pause(this.options.pollMs, signal, 'wakeReceiver');
  }

  private async take(events: readonly WireEvent[], cursor: string | null): Promise<void> {
    for (const event of events) this.parts.clock.witness(parseMicros(event.timestamp) ?? 0);
    const past = events.reduce((latest, { recorded_at }) => Math.max(latest, parseMicros(recorded_at) ?? 0), 0);
    if (this.parts.clock.isPast(past)) {
      this.parts.log.add('the clock is right again', { offset: this.parts.clock.offsetMicros });
      await this.parts.store.setMeta('clock_offset', this.parts.clock.offsetMicros);
    }
    const changes = await this.parts.store.inbox.applyEvents(events, cursor);
    this.mayBeStale ||= changes.stale.length > 0;
    if (changes.entities.length > 0) this.parts.onChanges(changes);
  }

  /** Entities whose baseline an event came too late for: their state is asked for. */
  private async mendStale(signal: AbortSignal): Promise<void> {
    if (!this.mayBeStale) return;
    for (const ref of await this.parts.store.inbox.stale()) {
      await this.exclusively(signal, async () => {
        await this.flush(signal);
        const state = await this.parts.transport.entity(...ref, signal);
        this.parts.log.add('fetched an entity anew', { entity: ref });
        this.parts.onChanges(await this.parts.store.inbox.applyStates([state], false));
        await this.parts.store.inbox.mended(ref);
      });
    }
    this.mayBeStale = false;
  }

  /** The cursor belongs to another history: what the server lost is sent again, then everything is read anew. */
  private async lostHistory(): Promise<void> {
    const again = await this.parts.store.outbox.resendAll(this.parts.clientId);
    this.parts.log.add('the server has another history', { sentAgain: again });
    this.due = true;
  }

  /** The first download, or everything anew. What is shown stays as it was until the new state is there. */
  private async startAnew(signal: AbortSignal): Promise<void> {
    // The states that come then hold all own events that are not pending.
    await this.flush(signal);
    let cursor: string | undefined;
    const entities = new Map<string, Set<string>>();
    for (const type of this.parts.entityTypes) {
      const seen = new Set<string>();
      entities.set(type, seen);
      const first = await this.parts.transport.snapshot(
        type,
        SNAPSHOT_CHUNK,
        async (states) => {
          for (const { entity_id } of states) seen.add(entity_id);
          if (states.length > 0) this.parts.onChanges(await this.parts.store.inbox.applyStates(states, true));
        },
        signal,
      );
      if (first === undefined) {
        await this.readAllEvents(signal);
        return;
      }
      this.parts.log.add('snapshot', { type, entities: seen.size });
      // The first snapshot is the oldest: what happened since comes again, and positions tell what is known.
      cursor ??= first;
    }
    await this.checkHistory(signal);
    for (const [type, seen] of entities) this.parts.onChanges(await this.parts.store.inbox.dropOthers(type, { entities: seen }));
    if (cursor !== undefined) await this.parts.store.inbox.startFrom(cursor, 'snapshot');
    this.succeeded(this.receiveFailures, {});
  }

  /** Without snapshots: every event from the beginning. */
  private async readAllEvents(signal: AbortSignal): Promise<void> {
    const seen = new Set<string>();
    let cursor: string | undefined;
    for (;;) {
      const page = await this.parts.transport.since(
        { entity_type: this.parts.entityTypes.join(','), limit: '1000', ...(cursor === undefined ? {} : { cursor }) },
        signal,
      );
      for (const event of page.events) seen.add(event.id.toLowerCase());
      this.parts.onChanges(await this.parts.store.inbox.applyEvents(page.events, null));
      cursor = page.cursor;
      if (!page.has_more) break;
    }
    await this.checkHistory(signal);
    for (const type of this.parts.entityTypes) this.parts.onChanges(await this.parts.store.inbox.dropOthers(type, { events: seen }));
    await this.parts.store.inbox.startFrom(cursor, 'events');
    this.parts.log.add('read all events', { events: seen.size });
    this.succeeded(this.receiveFailures, {});
  }

  /** Throws `cursor_expired` if the server no longer has the history in which it accepted our events. */
  private async checkHistory(signal: AbortSignal): Promise<void> {
    const cursor = await this.parts.store.meta<string>('sent_cursor');
    if (cursor !== undefined) await this.parts.transport.since({ cursor, limit: '1' }, signal);
  }

  private exclusively<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const next = this.turn.then(() => {
      if (signal.aborted) throw asError(signal.reason);
      return work();
    });
    this.turn = next.catch(() => undefined);
    return next;
  }

  /** Waits so long, or until woken; not at all while `enough` already holds. */
  private async pause(ms: number, signal: AbortSignal, waker: 'wakeSender' | 'wakeReceiver', enough: () => boolean = () => false): Promise<void> {
    if (enough()) return;
    const woken = new AbortController();
    this[waker] = () => {
      if (waker === 'wakeReceiver' || enough()) woken.abort();
    };
    // Timers cannot count further than 2^31 - 1 milliseconds.
    await sleep(Math.min(ms, 0x7fff_ffff), AbortSignal.any([signal, woken.signal]));
    this[waker] = () => undefined;
  }

  private failed(what: string, backoff: Backoff, thrown: unknown): number {
    const error = storageError(thrown);
    const code = error instanceof HeadwaterError ? error.code : 'internal';
    const wait = backoff.next(error instanceof HeadwaterError ? error.details.retryAfterMs : undefined);
    this.parts.log.add(what, { code, message: error.message, failures: backoff.failures, waitMs: Math.round(wait) });
    this.publish({ failures: Math.max(this.sendFailures.failures, this.receiveFailures.failures), error: { code, message: error.message } });
    return wait;
  }

  private succeeded(backoff: Backoff, change: Partial<SharedStatus>): void {
    backoff.reset();
    const failures = Math.max(this.sendFailures.failures, this.receiveFailures.failures);
    this.publish({ ...change, failures, heardAt: Date.now(), ...(failures === 0 ? { error: null } : {}) });
  }

  private publish(change: Partial<SharedStatus>): void {
    const before = this.status;
    this.status = { ...before, ...change };
    const same = (Object.keys(this.status) as (keyof SharedStatus)[]).every((key) => key === 'heardAt' || this.status[key] === before[key]);
    if (!same) this.parts.onStatus(this.status);
  }
}

/** A promise that is awaited later: until then nobody minds that it failed. */
function ahead<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
