/** The device's database: one for each server, tenant and user. */

import { Dexie, type EntityTable, type Table } from 'dexie';
import type { Baseline, EntityRef, LocalEvent } from '../event.js';
import type { State } from '../fold.js';
import { eventOf, rowOf, type Row } from './row.js';

/** A remembered value: the cursor, the device's id, the clock. */
export interface MetaRow {
  readonly key: string;
  readonly value: unknown;
}

/** The key of an event: those of an entity lie side by side, and are read in one go. */
export type EventKey = [entityType: string, entityId: string, id: string];

/** An entity as it is stored. */
export interface StoredEntity {
  readonly baseline: Baseline | null;
  readonly events: readonly LocalEvent[];
  /** In their place, where only the state was asked for. */
  readonly folded?: Folded;
}

/** What an entity's stored events make. */
export interface Folded {
  readonly state: State | null;
  /** The last event in it, in the order of the fold. */
  readonly last: { readonly timestamp: number; readonly id: string };
  /** The greatest `client_seq` of its events: own ones with a greater one are not in it. */
  readonly seq: number;
}

/** It as a row: `d` is the JSON of state, timestamp, id and seq. */
export interface FoldedRow {
  readonly t: string;
  readonly e: string;
  readonly d: string;
}

/** Rows read in one go: while the browser brings the next ones, these become events. More at once cost more, in garbage. */
const ROWS_AT_ONCE = 500;

/** The tables. */
export class Database extends Dexie {
  declare readonly events: Table<Row, EventKey>;
  declare readonly baselines: Table<Baseline, [string, string]>;
  declare readonly meta: EntityTable<MetaRow, 'key'>;
  /** States as they were folded, and the entities that have changed since; see `folded.ts`. */
  declare readonly folded: Table<FoldedRow, [string, string]>;
  declare readonly unfolded: Table<Pick<FoldedRow, 't' | 'e'>, [string, string]>;

  constructor(name: string) {
    // What is read is kept in memory by the views; a second copy is of no use.
    super(name, { chromeTransactionDurability: 'relaxed', cache: 'disabled' });
    this.version(1).stores({
      // Unsent ones and refused ones in recorded order, confirmed ones by age: an index holds only the rows that have its member.
      events: '[t+e+i], u, x, r',
      baselines: '[entity_type+entity_id]',
      meta: 'key',
    });
    this.version(2)
      .stores({ folded: '[t+e]', unfolded: '[t+e]' })
      .upgrade(async (transaction) => {
        const keys = (await transaction.table<Row, EventKey>('events').toCollection().primaryKeys()).map(([t, e]) => ({ t, e }));
        await transaction.table('unfolded').bulkPut(keys);
      });
  }
}

/** The database's name. Parts are escaped, so that two different owners never share one. */
export function databaseName(url: string, tenantId: string | null, userId: string | null): string {
  return ['headwater', url, tenantId ?? '', userId ?? ''].map(encodeURIComponent).join(':');
}

/** One text for an entity: a key of maps. */
export function refKey([type, id]: EntityRef): string {
  return `${type}:${id}`;
}

/** The entity of an event. */
export function refOf(event: LocalEvent | Baseline): EntityRef {
  return [event.entity_type, event.entity_id];
}

/** The entities of events, each once. */
export function refsOf(events: readonly LocalEvent[]): EntityRef[] {
  return [...new Map(events.map((event) => [refKey(refOf(event)), refOf(event)])).values()];
}

/** Where an event lies. */
export function keyOf(event: Pick<LocalEvent, 'entity_type' | 'entity_id' | 'id'>): EventKey {
  return [event.entity_type, event.entity_id, event.id];
}

/** The events under these keys, those that are there. */
export async function getEvents(database: Database, keys: readonly EventKey[]): Promise<LocalEvent[]> {
  return (await database.events.bulkGet([...keys])).flatMap((row) => (row === undefined ? [] : [eventOf(row)]));
}

/** Writes events. Within a transaction. */
export async function putEvents(database: Database, events: readonly LocalEvent[]): Promise<void> {
  if (events.length > 0) await database.events.bulkPut(events.map(rowOf));
}

/** What these entities' events make may be something else from now on. Within the transaction that changes them. */
export async function unfold(database: Database, refs: readonly EntityRef[]): Promise<void> {
  if (refs.length > 0) await database.unfolded.bulkPut(refs.map(([t, e]) => ({ t, e })));
}

/** Every event of an entity, in no order that matters. */
export async function eventsOf(database: Database, [type, id]: EntityRef): Promise<LocalEvent[]> {
  return (await database.events.where('[t+e+i]').between([type, id, Dexie.minKey], [type, id, Dexie.maxKey]).toArray()).map(eventOf);
}

/** Every event of these entities. Within a transaction. */
export async function eventsOfAll(database: Database, refs: readonly EntityRef[]): Promise<LocalEvent[]> {
  // A new device has few or none: one look spares as many as there are entities.
  const few = await database.events.limit(2 * refs.length + 1).primaryKeys();
  if (few.length > 2 * refs.length) return (await Promise.all(refs.map((ref) => eventsOf(database, ref)))).flat();
  const wanted = new Set(refs.map(refKey));
  return getEvents(database, few.filter(([type, id]) => wanted.has(refKey([type, id]))));
}

/** An entity, in a transaction of its own or the one at hand. */
export async function readEntity(database: Database, ref: EntityRef): Promise<StoredEntity> {
  const [baseline, events] = await Promise.all([database.baselines.get([ref[0], ref[1]]), eventsOf(database, ref)]);
  return { baseline: baseline ?? null, events };
}

/** Every entity of a type, by id. */
export async function readType(database: Database, type: string): Promise<Map<string, StoredEntity>> {
  const { events, baselines } = database;
  return database.transaction('r', events, baselines, async () => {
    const entities = new Map<string, { readonly baseline: Baseline | null; readonly events: LocalEvent[] }>();
    for (const baseline of await baselines.where('[entity_type+entity_id]').between([type, Dexie.minKey], [type, Dexie.maxKey]).toArray()) {
      entities.set(baseline.entity_id, { baseline, events: [] });
    }
    const read = (after: EventKey | [string, unknown]): Promise<Row[]> =>
      events.where('[t+e+i]').between(after, [type, Dexie.maxKey], false).limit(ROWS_AT_ONCE).toArray();
    let rows = await read([type, Dexie.minKey]);
    while (rows.length > 0) {
      const last = rows.at(-1) as Row;
      const next = rows.length < ROWS_AT_ONCE ? Promise.resolve([]) : read([last.t, last.e, last.i]);
      for (const row of rows) {
        const event = eventOf(row);
        const entity = entities.get(event.entity_id);
        if (entity === undefined) entities.set(event.entity_id, { baseline: null, events: [event] });
        else entity.events.push(event);
      }
      rows = await next;
    }
    return entities;
  });
}

/** The ids of a type's entities that are not among these, with what is stored of them. */
export async function readOthers(database: Database, type: string, known: ReadonlySet<string>): Promise<Map<string, StoredEntity>> {
  const { events, baselines } = database;
  const [bases, keys] = await Promise.all([
    baselines.where('[entity_type+entity_id]').between([type, Dexie.minKey], [type, Dexie.maxKey]).primaryKeys(),
    events.where('[t+e+i]').between([type, Dexie.minKey], [type, Dexie.maxKey]).primaryKeys(),
  ]);
  const others = new Set([...bases, ...keys].map(([, id]) => id).filter((id) => !known.has(id)));
  return new Map(await Promise.all([...others].map(async (id): Promise<[string, StoredEntity]> => [id, await readEntity(database, [type, id])])));
}
