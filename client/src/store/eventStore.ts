/**
 * The device's event store. Every event of an entity that is not in its baseline lies here: the server's, and own ones
 * on their way. All writes are transactions; a crash between two leaves a store that syncs on.
 */

import { Dexie } from 'dexie';
import { applyStored, type EntityDefinition } from '../entity.js';
import { asError, HeadwaterError } from '../error.js';
import { fromWire, isConfirmed, type Baseline, type EntityRef, type LocalEvent, type Rejection, type WireEvent } from '../event.js';
import { compareEvents } from '../fold.js';
import { Database } from './database.js';

/** An entity as it is stored. */
export interface StoredEntity {
  readonly baseline: Baseline | null;
  readonly events: readonly LocalEvent[];
}

/** What a write changed, for whoever shows it. */
export interface Changes {
  /** Entities whose stored events or baseline changed. */
  readonly entities: readonly EntityRef[];
  /** Those of them of which an event came too late for its baseline: the server must be asked for their state. */
  readonly stale: readonly EntityRef[];
}

/** How many own events are in which state. */
export interface Outbox {
  /** Not yet accepted. */
  readonly unsynced: number;
  readonly rejected: number;
}

/** A server's judgement of one batch. */
export interface Verdicts {
  readonly accepted: readonly string[];
  readonly rejected: readonly { readonly id: string; readonly rejection: Rejection }[];
}

interface Waiting {
  readonly event: LocalEvent;
  readonly strict: boolean;
  readonly done: (error?: Error) => void;
}

/** Entities compacted in one transaction: short enough that a mutation never waits long behind it. */
const COMPACT_AT_ONCE = 200;

/** Under such keys stand the entities whose state must be asked for. */
const STALE = 'stale:';

export class EventStore {
  private readonly database: Database;
  private strictDatabase: Database | undefined;
  private waiting: Waiting[] = [];
  private writing: Promise<void> | undefined;

  constructor(private readonly name: string) {
    this.database = new Database(name, 'relaxed');
  }

  async open(): Promise<void> {
    await this.database.open();
  }

  async close(): Promise<void> {
    await this.writing;
    this.database.close();
    this.strictDatabase?.close();
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
      this.writing ??= this.drain().finally(() => {
        this.writing = undefined;
      });
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
  }

  private async writeGroup(group: readonly Waiting[]): Promise<void> {
    const strict = group.some((waiting) => waiting.strict);
    const database = strict ? (this.strictDatabase ??= new Database(this.name, 'strict')) : this.database;
    await database.transaction('rw', database.events, database.meta, async () => {
      const last = Number((await database.meta.get('client_seq'))?.value ?? 0);
      const numbered = group.map(({ event }, index) => ({ ...event, client_seq: last + index + 1 }));
      await database.events.bulkPut(numbered);
      const stamp = Math.max(...group.map(({ event }) => event.timestamp));
      await database.meta.bulkPut([
        { key: 'client_seq', value: last + group.length },
        { key: 'clock', value: stamp },
      ]);
    });
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

  async readEntity([type, id]: EntityRef): Promise<StoredEntity> {
    const { events, baselines } = this.database;
    return this.database.transaction('r', events, baselines, async () => {
      const [baseline, stored] = await Promise.all([
        baselines.get([type, id]),
        events.where('[entity_type+entity_id]').equals([type, id]).toArray(),
      ]);
      return { baseline: baseline ?? null, events: stored };
    });
  }

  /** The same for many at once. */
  async readEntities(refs: readonly EntityRef[]): Promise<StoredEntity[]> {
    const { events, baselines } = this.database;
    return this.database.transaction('r', events, baselines, () => Promise.all(refs.map((ref) => this.readEntity(ref))));
  }

  /** Every entity of a type, by id. */
  async readType(type: string): Promise<Map<string, StoredEntity>> {
    const { events, baselines } = this.database;
    const range = [[type, Dexie.minKey] as unknown as [string, string], [type, Dexie.maxKey] as unknown as [string, string]] as const;
    const [bases, stored] = await this.database.transaction('r', events, baselines, () =>
      Promise.all([
        baselines.where('[entity_type+entity_id]').between(...range).toArray(),
        events.where('[entity_type+entity_id]').between(...range).toArray(),
      ]),
    );
    const entities = new Map<string, { baseline: Baseline | null; events: LocalEvent[] }>();
    for (const baseline of bases) entities.set(baseline.entity_id, { baseline, events: [] });
    for (const event of stored) {
      const entity = entities.get(event.entity_id);
      if (entity === undefined) entities.set(event.entity_id, { baseline: null, events: [event] });
      else entity.events.push(event);
    }
    return entities;
  }

  async event(id: string): Promise<LocalEvent | undefined> {
    return this.database.events.get(id);
  }

  /** The next own events to send, in the order in which they were recorded. */
  async nextBatch(limit: number): Promise<LocalEvent[]> {
    const { events } = this.database;
    const [sent, pending] = await this.database.transaction('r', events, () =>
      Promise.all([byStatus(this.database, 'sent').limit(limit).toArray(), byStatus(this.database, 'pending').limit(limit).toArray()]),
    );
    return [...sent, ...pending].sort((a, b) => a.client_seq - b.client_seq).slice(0, limit);
  }

  /** From now on the server may have them. */
  async markSent(ids: readonly string[]): Promise<void> {
    await this.database.transaction('rw', this.database.events, async () => {
      const stored = await this.database.events.bulkGet([...ids]);
      const pending = stored.filter((event) => event?.status === 'pending') as LocalEvent[];
      await this.database.events.bulkPut(pending.map((event) => ({ ...event, status: 'sent' as const })));
    });
  }

  /** Writes the server's judgement down. An event whose copy has come from the server meanwhile stays as it came. */
  async settle({ accepted, rejected }: Verdicts): Promise<Changes> {
    const verdicts = new Map<string, Rejection | null>(accepted.map((id) => [id, null]));
    for (const { id, rejection } of rejected) verdicts.set(id, rejection);
    const { events } = this.database;
    return this.database.transaction('rw', events, async () => {
      const stored = await events.bulkGet([...verdicts.keys()]);
      const changed = stored.flatMap((event): LocalEvent[] => {
        const rejection = event === undefined ? undefined : verdicts.get(event.id);
        if (event === undefined || rejection === undefined || event.status === 'accepted') return [];
        // Restored from a backup, the server may know the event under its former stamp.
        const known = rejection === null || (rejection.code === 'conflict' && event.again === 'restored');
        return [known ? { ...event, status: 'accepted', rejection: null } : { ...event, status: 'rejected', rejection }];
      });
      await events.bulkPut(changed);
      return { entities: refsOf(changed), stale: [] };
    });
  }

  /** Events from the server, and the cursor behind them, in one transaction. */
  async applyServer(incoming: readonly WireEvent[], cursor: string | null): Promise<Changes> {
    const { events, baselines, meta } = this.database;
    return this.database.transaction('rw', events, baselines, meta, async () => {
      if (cursor !== null) await meta.put({ key: 'cursor', value: cursor });
      if (incoming.length === 0) return { entities: [], stale: [] };
      const own = await events.bulkGet(incoming.map((event) => event.id.toLowerCase()));
      const read = incoming.flatMap((event, index) => fromWire(event, own[index]) ?? []);
      const until = await this.snapshotUntil(read[0]?.recorded_at ?? 0);
      const refs = refsOf(read);
      const bases = new Map((await baselines.bulkGet(refs.map(([type, id]) => [type, id]))).flatMap((base) => (base ? [[refKey([base.entity_type, base.entity_id]), base]] : [])));
      const stale = new Map<string, EntityRef>();
      const covered: string[] = [];
      const puts: LocalEvent[] = [];
      for (const event of read) {
        const ref: EntityRef = [event.entity_type, event.entity_id];
        const base = bases.get(refKey(ref));
        if (base !== undefined && event.server_position !== null && event.server_position <= base.position) {
          // Own ones stay, for a server that loses them.
          if (event.client_seq > 0) puts.push(event);
          else covered.push(event.id);
          continue;
        }
        const isLate = (base?.last && compareEvents(event, base.last) <= 0) === true || ((base?.state ?? null) === null && event.timestamp <= until);
        if (isLate && event.applies) stale.set(refKey(ref), ref);
        puts.push(event);
      }
      await events.bulkDelete(covered);
      await events.bulkPut(puts);
      // Remembered, for a crash must not leave an entity wrong for ever.
      await meta.bulkPut([...stale.values()].map((ref) => ({ key: STALE + refKey(ref), value: ref })));
      return { entities: refs, stale: [...stale.values()] };
    });
  }

  /**
   * A snapshot tells nothing of entities that do not exist, and yet they may have events: a deletion, or what found nothing to
   * change. An event that sorts among those must not count without them. All of them happened before this time
   * (microseconds): the time at which the server took the first event behind the snapshot.
   */
  private async snapshotUntil(firstRecordedAt: number): Promise<number> {
    const row = await this.database.meta.get('snapshot_until');
    if (row === undefined) return 0;
    if (typeof row.value === 'number') return row.value;
    await this.database.meta.put({ key: 'snapshot_until', value: firstRecordedAt });
    return firstRecordedAt;
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

  /** Entities whose state must be asked for, from former runs too. */
  async stale(): Promise<EntityRef[]> {
    return (await this.database.meta.where('key').startsWith(STALE).toArray()).map(({ value }) => value as EntityRef);
  }

  /** The entity's state was asked for. */
  async mended(ref: EntityRef): Promise<void> {
    await this.database.meta.delete(STALE + refKey(ref));
  }

  /** Everything was read anew: from `cursor` on the server's events follow. */
  async startFrom(cursor: string, how: 'snapshot' | 'events'): Promise<void> {
    const { meta } = this.database;
    await this.database.transaction('rw', meta, async () => {
      await meta.where('key').startsWith(STALE).delete();
      await meta.delete('sent_cursor');
      await meta.bulkPut([
        { key: 'cursor', value: cursor },
        { key: 'snapshot_until', value: how === 'snapshot' ? null : 0 },
      ]);
    });
  }

  /**
   * The server's states of entities, each with everything up to its position in it. Own events that the server had
   * accepted by then are in them too, so no event may be on its way meanwhile. With `anew` they replace all that the server
   * had told before: it has another history now.
   */
  async applyStates(states: readonly Baseline[], anew: boolean): Promise<Changes> {
    const { events, baselines } = this.database;
    return this.database.transaction('rw', events, baselines, async () => {
      const refs = states.map((state): EntityRef => [state.entity_type, state.entity_id]);
      const stored = await events.where('[entity_type+entity_id]').anyOf(refs as unknown as [string, string][]).toArray();
      const bases = states.map((state) => (state.state === null ? absence(state, stored) : state));
      const positions = new Map(bases.map((base) => [refKey([base.entity_type, base.entity_id]), base.position]));
      const gone: string[] = [];
      const kept: LocalEvent[] = [];
      for (const event of stored) {
        const position = positions.get(refKey([event.entity_type, event.entity_id])) ?? 0;
        const isIn = anew || event.again === 'restored' || event.server_position === null || event.server_position <= position;
        if (event.status !== 'accepted' || !isIn) continue;
        if (event.client_seq === 0) gone.push(event.id);
        else kept.push({ ...event, server_position: position, recorded_at: event.recorded_at ?? event.timestamp, again: null });
      }
      await events.bulkDelete(gone);
      await events.bulkPut(kept);
      await baselines.bulkPut(bases);
      return { entities: refs, stale: [] };
    });
  }

  /**
   * Drops what the server told before of a type and no longer has: of entities that are not among `keep.entities`, everything;
   * or events that are not among `keep.events`. Own events stay, as history of an entity that does not exist: a server
   * that is restored from a backup tomorrow may lack them.
   */
  async dropOthers(type: string, keep: { readonly entities: ReadonlySet<string> } | { readonly events: ReadonlySet<string> }): Promise<Changes> {
    const { events, baselines } = this.database;
    return this.database.transaction('rw', events, baselines, async () => {
      const refs: EntityRef[] = [];
      for (const [id, { baseline, events: stored }] of await this.readType(type)) {
        // Accepted without a copy of the server's: the stream will bring it, unless the snapshot stands for it.
        const told = stored.filter((event) => ('events' in keep ? isConfirmed(event) : event.status === 'accepted'));
        const gone = 'events' in keep ? told.filter((event) => !keep.events.has(event.id)) : keep.entities.has(id) ? [] : told;
        const baseGoes = baseline !== null && ('events' in keep || !keep.entities.has(id));
        if (gone.length === 0 && !baseGoes) continue;
        refs.push([type, id]);
        const own = 'events' in keep ? [] : gone.filter((event) => event.client_seq > 0);
        await events.bulkDelete(gone.map((event) => event.id));
        await events.bulkPut(own.map((event) => ({ ...event, server_position: 0 })));
        if (own.length > 0) await baselines.put({ entity_type: type, entity_id: id, state: null, position: 0, last: lastOf(own) });
        else await baselines.delete([type, id]);
      }
      return { entities: refs, stale: [] };
    });
  }

  /** The server lost history (a restored backup): every own event that is still here will be sent again. */
  async resendOwn(clientId: string): Promise<void> {
    const { events, meta } = this.database;
    await this.database.transaction('rw', events, meta, async () => {
      const own = await events.where('[status+client_seq]').between(['accepted', 1], ['accepted', Dexie.maxKey]).toArray();
      const again = own.filter((event) => event.client_id === clientId);
      await events.bulkPut(again.map((event) => ({ ...event, status: 'sent' as const, again: 'restored' as const })));
      await meta.bulkDelete(['cursor', 'sent_cursor']);
    });
  }

  /** Gives unsent events new stamps, in their order; `restamp` makes one. Those that had one already are left. */
  async restamp(rejectedIds: readonly string[], restamp: () => number): Promise<Changes> {
    const { events } = this.database;
    return this.database.transaction('rw', events, async () => {
      const unsent = await Promise.all([byStatus(this.database, 'sent').toArray(), byStatus(this.database, 'pending').toArray()]);
      const rejected = new Set(rejectedIds);
      // What is `sent` and was not just refused may be at the server with its old stamp.
      const stamped = unsent
        .flat()
        .filter((event) => event.again === null && (event.status === 'pending' || rejected.has(event.id)))
        .sort((a, b) => a.client_seq - b.client_seq)
        .map((event) => ({ ...event, timestamp: restamp(), status: 'pending' as const, again: 'restamped' as const }));
      await events.bulkPut(stamped);
      return { entities: refsOf(stamped), stale: [] };
    });
  }

  /** Takes an event out. */
  async remove(event: LocalEvent): Promise<Changes> {
    await this.database.events.delete(event.id);
    return { entities: [[event.entity_type, event.entity_id]], stale: [] };
  }

  async outbox(): Promise<Outbox> {
    const [pending, sent, rejected] = await Promise.all(
      (['pending', 'sent', 'rejected'] as const).map((status) => byStatus(this.database, status).count()),
    );
    return { unsynced: (pending ?? 0) + (sent ?? 0), rejected: rejected ?? 0 };
  }

  async rejected(): Promise<LocalEvent[]> {
    return byStatus(this.database, 'rejected').toArray();
  }

  /**
   * Folds what the server took before `recordedBefore` (microseconds) into baselines, entity by entity, as far as no
   * younger or unconfirmed event sorts before it. Returns how many events went.
   */
  async compact(recordedBefore: number, definitions: ReadonlyMap<string, EntityDefinition>): Promise<Changes> {
    const old = this.database.events.where('[status+recorded_at]').between(['accepted', Dexie.minKey], ['accepted', recordedBefore]);
    const refs = new Map<string, EntityRef>();
    await old.each((event) => refs.set(refKey([event.entity_type, event.entity_id]), [event.entity_type, event.entity_id]));
    const all = [...refs.values()];
    const entities: EntityRef[] = [];
    for (let from = 0; from < all.length; from += COMPACT_AT_ONCE) {
      entities.push(...(await this.compactEntities(all.slice(from, from + COMPACT_AT_ONCE), recordedBefore, definitions)));
    }
    return { entities, stale: [] };
  }

  private async compactEntities(refs: readonly EntityRef[], recordedBefore: number, definitions: ReadonlyMap<string, EntityDefinition>): Promise<EntityRef[]> {
    const { events, baselines } = this.database;
    return this.database.transaction('rw', events, baselines, async () => {
      const compacted: EntityRef[] = [];
      for (const ref of refs) {
        const definition = definitions.get(ref[0]);
        if (definition === undefined) continue;
        const { baseline, events: stored } = await this.readEntity(ref);
        const ordered = [...stored].sort(compareEvents);
        const isOld = (event: LocalEvent): boolean => isConfirmed(event) && (event.recorded_at ?? Infinity) < recordedBefore;
        const upTo = ordered.findIndex((event) => event.status !== 'rejected' && !isOld(event));
        const folded = (upTo === -1 ? ordered : ordered.slice(0, upTo)).filter(isOld);
        const last = folded.at(-1);
        if (last === undefined) continue;
        const state = folded.reduce((before, event) => applyStored(before, event, definition, baseline), baseline?.state ?? null);
        const lastIn = baseline?.last && compareEvents(baseline.last, last) > 0 ? baseline.last : { timestamp: last.timestamp, id: last.id };
        await baselines.put({ entity_type: ref[0], entity_id: ref[1], state, position: baseline?.position ?? 0, last: lastIn });
        await events.bulkDelete(folded.map((event) => event.id));
        compacted.push(ref);
      }
      return compacted;
    });
  }
}

/** One text for an entity: a key of maps. */
export function refKey([type, id]: EntityRef): string {
  return `${type}:${id}`;
}

/** An entity that does not exist has no position; but every event that is here has gone into that. */
function absence(state: Baseline, stored: readonly LocalEvent[]): Baseline {
  const told = stored.filter((event) => event.status === 'accepted' && event.entity_type === state.entity_type && event.entity_id === state.entity_id);
  return { ...state, position: Math.max(state.position, ...told.map((event) => event.server_position ?? 0)), last: state.last ?? lastOf(told) };
}

/** The last of them in the order of the fold. */
function lastOf(events: readonly LocalEvent[]): Baseline['last'] {
  const last = [...events].sort(compareEvents).at(-1);
  return last === undefined ? null : { timestamp: last.timestamp, id: last.id };
}

function byStatus(database: Database, status: LocalEvent['status']) {
  return database.events.where('[status+client_seq]').between([status, Dexie.minKey], [status, Dexie.maxKey]);
}

function refsOf(events: readonly LocalEvent[]): EntityRef[] {
  const refs = new Map(events.map((event): [string, EntityRef] => {
    const ref: EntityRef = [event.entity_type, event.entity_id];
    return [refKey(ref), ref];
  }));
  return [...refs.values()];
}

function storageError(thrown: unknown): Error {
  const error = asError(thrown);
  const full = /quota/i.test(`${error.name} ${error.message}`);
  return full ? new HeadwaterError('storage_full', 'the device has no room left for events; free some space', { retryable: true, cause: error }) : error;
}
