/** What comes from the server: its events, with the cursor behind them; and its states, which become baselines. */

import { foldsAlike } from '../entity.js';
import { compareEvents } from '../fold.js';
import { fromWire, isConfirmed, type Baseline, type EntityRef, type LocalEvent, type WireEvent } from '../event.js';
import { eventsOf, eventsOfAll, getEvents, keyOf, putEvents, readOthers, readType, refKey, refOf, refsOf, unfold, type Database } from './database.js';
import type { Changes } from './eventStore.js';

/** Under such keys stand the entities whose state must be asked for. */
const STALE = 'stale:';

export class Inbox {
  private readonly database: Database;
  private readonly versions: (type: string) => number;

  constructor(database: Database, versions: (type: string) => number) {
    this.database = database;
    this.versions = versions;
  }

  /** Where the server's events go on; undefined before the first download is complete. */
  async cursor(): Promise<string | undefined> {
    return (await this.database.meta.get('cursor'))?.value as string | undefined;
  }

  /** Events from the server, and the cursor behind them, in one transaction. */
  async applyEvents(incoming: readonly WireEvent[], cursor: string | null): Promise<Changes> {
    const { events, baselines, meta, unfolded, folded } = this.database;
    return this.database.transaction('rw', [events, baselines, meta, unfolded, folded], async () => {
      if (cursor !== null) await meta.put({ key: 'cursor', value: cursor });
      if (incoming.length === 0) return { entities: [], stale: [] };
      const keys = incoming.map((event) => keyOf({ ...event, id: event.id.toLowerCase() }));
      const refs = [...new Map(incoming.map((event): [string, EntityRef] => [refKey([event.entity_type, event.entity_id]), [event.entity_type, event.entity_id]])).values()];
      const [own, bases] = await Promise.all([
        getEvents(this.database, keys).then((stored) => new Map(stored.map((event) => [event.id, event]))),
        baselines.bulkGet(refs.map(([type, id]) => [type, id])).then((stored) => new Map(stored.flatMap((base) => (base ? [[refKey(refOf(base)), base]] : [])))),
      ]);
      const read = incoming.flatMap((event) => fromWire(event, own.get(event.id.toLowerCase())) ?? []);
      const erased = await this.erase(read, bases);
      const until = await this.snapshotUntil(read[0]?.recorded_at ?? 0);
      const stale = new Map<string, EntityRef>();
      const gone: LocalEvent[] = [];
      const put: LocalEvent[] = [];
      const alike: LocalEvent[] = [];
      for (const event of read) {
        const ref = refOf(event);
        const base = bases.get(refKey(ref));
        const before = own.get(event.id);
        const changes = before === undefined || !foldsAlike(before, event, base ?? null) ? put : alike;
        if (base !== undefined && event.server_position !== null && event.server_position <= base.position) {
          // Own ones stay, for a server that loses them.
          (event.client_seq > 0 ? changes : gone).push(event);
          continue;
        }
        const isLate = (base?.last && compareEvents(event, base.last) <= 0) === true || ((base?.state ?? null) === null && event.timestamp <= until);
        if (isLate && event.applies) stale.set(refKey(ref), ref);
        changes.push(event);
      }
      if (gone.length > 0) await events.bulkDelete(gone.map(keyOf));
      await putEvents(this.database, [...put, ...alike]);
      await unfold(this.database, refsOf([...put, ...gone]));
      // Remembered, for a crash must not leave an entity wrong for ever.
      if (stale.size > 0) await meta.bulkPut([...stale.values()].map((ref) => ({ key: STALE + refKey(ref), value: ref })));
      return { entities: refs, stale: [...stale.values()], ...(erased ? {} : { delta: { put, alike, gone } }) };
    });
  }

  /**
   * Entities that the server has erased leave nothing here either: no event, own ones included, for none of them will ever be taken; no state, written
   * down or not. A baseline without state covers whatever comes once more. Whether there were any.
   */
  private async erase(incoming: readonly LocalEvent[], bases: Map<string, Baseline>): Promise<boolean> {
    let isAny = false;
    for (const { entity_type, entity_id, event_type, source, server_position, timestamp, id } of incoming) {
      const key = refKey([entity_type, entity_id]);
      const position = server_position ?? 0;
      if (source !== 'capture' || event_type !== `${entity_type}.erased` || position <= (bases.get(key)?.position ?? 0)) continue;
      const base: Baseline = { entity_type, entity_id, state: null, position, last: { timestamp, id }, version: this.versions(entity_type) };
      const { events, baselines, folded } = this.database;
      // Its key may be another entity's since.
      const theirs = (await eventsOf(this.database, [entity_type, entity_id])).filter((event) => event.server_position === null || event.server_position <= position);
      await events.bulkDelete(theirs.map(keyOf));
      await folded.delete([entity_type, entity_id]);
      await baselines.put(base);
      bases.set(key, base);
      isAny = true;
    }
    return isAny;
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

  /** The states are in a form that is not the present one: everything is to be read anew. Whether the server still has that history is asked then. */
  async startOver(): Promise<void> {
    const { meta } = this.database;
    await this.database.transaction('rw', meta, async () => {
      const cursor = await meta.get('cursor');
      if (cursor === undefined) return;
      await meta.put({ key: 'sent_cursor', value: cursor.value });
      await meta.delete('cursor');
    });
  }

  /**
   * The server's states of entities, each with everything up to its position in it. Own events that the server had
   * accepted by then are in them too, so no event may be on its way meanwhile. With `anew` they replace all that the server
   * had told before: it has another history now.
   */
  async applyStates(states: readonly Baseline[], anew: boolean): Promise<Changes> {
    const { events, baselines, unfolded } = this.database;
    return this.database.transaction('rw', events, baselines, unfolded, async () => {
      const refs = states.map(refOf);
      const stored = await eventsOfAll(this.database, refs);
      const bases = states.map((state) => ({ ...(state.state === null ? absence(state, stored) : state), version: this.versions(state.entity_type) }));
      const positions = new Map(bases.map((base) => [refKey(refOf(base)), base.position]));
      const gone: LocalEvent[] = [];
      const kept: LocalEvent[] = [];
      for (const event of stored) {
        const position = positions.get(refKey(refOf(event))) ?? 0;
        const isIn = anew || event.again === 'restored' || event.server_position === null || event.server_position <= position;
        if (event.status !== 'accepted' || !isIn) continue;
        if (event.client_seq === 0) gone.push(event);
        else kept.push({ ...event, server_position: position, recorded_at: event.recorded_at ?? event.timestamp, again: null });
      }
      await events.bulkDelete(gone.map(keyOf));
      await putEvents(this.database, kept);
      await baselines.bulkPut(bases);
      await unfold(this.database, refs);
      return { entities: refs, stale: [] };
    });
  }

  /**
   * Drops what the server told before of a type and no longer has: of entities that are not among `keep.entities`, everything;
   * or events that are not among `keep.events`. Own events stay, as history of an entity that does not exist: a server
   * that is restored from a backup tomorrow may lack them.
   */
  async dropOthers(type: string, keep: { readonly entities: ReadonlySet<string> } | { readonly events: ReadonlySet<string> }): Promise<Changes> {
    const { events, baselines, unfolded } = this.database;
    return this.database.transaction('rw', events, baselines, unfolded, async () => {
      const refs: EntityRef[] = [];
      const concerned = 'events' in keep ? await readType(this.database, type) : await readOthers(this.database, type, keep.entities);
      for (const [id, { baseline, events: stored }] of concerned) {
        // Accepted without a copy of the server's: the stream will bring it, unless the snapshot stands for it.
        const told = stored.filter((event) => ('events' in keep ? isConfirmed(event) : event.status === 'accepted'));
        const gone = 'events' in keep ? told.filter((event) => !keep.events.has(event.id)) : told;
        if (gone.length === 0 && baseline === null) continue;
        refs.push([type, id]);
        const own = 'events' in keep ? [] : gone.filter((event) => event.client_seq > 0);
        await events.bulkDelete(gone.map(keyOf));
        await putEvents(this.database, own.map((event) => ({ ...event, server_position: 0 })));
        if (own.length > 0) await baselines.put({ entity_type: type, entity_id: id, state: null, position: 0, last: lastOf(own) });
        else await baselines.delete([type, id]);
      }
      await unfold(this.database, refs);
      return { entities: refs, stale: [] };
    });
  }
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

