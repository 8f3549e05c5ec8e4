/**
 * Folded states: what an entity's stored events make, written down while nothing happens, so that a list opens without reading
 * events. A write that may change a state says in its own transaction that the entity is unfolded; whoever reads a list reads
 * those from their events. Whatever is killed when: a state that is here and not unfolded is the fold of what is stored.
 */

import { Dexie } from 'dexie';
import { applyStored, baseState, type EntityDefinition } from '../entity.js';
import type { EntityRef } from '../event.js';
import { compareEvents, type State } from '../fold.js';
import { readEntity, readType, refKey, type Database, type Folded, type FoldedRow, type StoredEntity } from './database.js';

/** To be raised when the fold gives another state for the same events. */
const FOLD = 1;
/** Entities folded in one transaction: short enough that a mutation never waits long behind it. */
const FOLD_AT_ONCE = 20;
/** So many unfolded ones are read one by one; more, and reading all events is quicker. */
const FEW = 200;

export class FoldedStates {
  private readonly database: Database;
  private readonly definitions: ReadonlyMap<string, EntityDefinition>;

  constructor(database: Database, definitions: ReadonlyMap<string, EntityDefinition>) {
    this.database = database;
    this.definitions = definitions;
  }

  /** States that another version of the application folded count no more: it may have had other rules. */
  async adopt(): Promise<void> {
    const { meta, unfolded, folded } = this.database;
    const declared = this.declared();
    const known = await meta.bulkGet(declared.map(([type]) => metaKey(type)));
    const others = declared.filter(([, signature], index) => known[index]?.value !== signature);
    if (others.length === 0) return;
    await this.database.transaction('rw', meta, unfolded, folded, async () => {
      for (const [type, signature] of others) {
        const rows = folded.where('[t+e]').between(...rangeOf(type));
        await unfolded.bulkPut((await rows.primaryKeys()).map(([t, e]) => ({ t, e })));
        await rows.delete();
        await meta.put({ key: metaKey(type), value: signature });
      }
    });
  }

  /** Folds what is unfolded, some at a time, until nothing is or `signal` aborts. How many it folded. */
  async write(signal: AbortSignal): Promise<number> {
    let count = 0;
    for (const [type, signature] of this.declared()) {
      const definition = this.definitions.get(type) as EntityDefinition;
      for (let some = FOLD_AT_ONCE; some === FOLD_AT_ONCE && !signal.aborted; count += some) some = await this.writeSome(definition, signature);
    }
    return count;
  }

  private writeSome(definition: EntityDefinition, signature: string): Promise<number> {
    const { events, baselines, meta, unfolded, folded } = this.database;
    return this.database.transaction('rw', [events, baselines, meta, unfolded, folded], async () => {
      // Another version of the application has the say now.
      if ((await meta.get(metaKey(definition.type)))?.value !== signature) return 0;
      const keys = await unfolded.where('[t+e]').between(...rangeOf(definition.type)).limit(FOLD_AT_ONCE).primaryKeys();
      const entities = await Promise.all(keys.map((key) => readEntity(this.database, key)));
      const rows = keys.flatMap((key, index) => rowOf(key, entities[index] as StoredEntity, definition) ?? []);
      const written = new Set(rows.map(({ t, e }) => refKey([t, e])));
      await folded.bulkPut(rows);
      await folded.bulkDelete(keys.filter((key) => !written.has(refKey(key))));
      await unfolded.bulkDelete(keys);
      return keys.length;
    });
  }

  /** Every entity of a type, by id: as a folded state where there is one that counts, else with its events. */
  readType(type: string): Promise<Map<string, StoredEntity>> {
    const { events, baselines, meta, unfolded, folded } = this.database;
    const signature = this.declared().find(([declared]) => declared === type)?.[1];
    if (signature === undefined) return readType(this.database, type);
    return this.database.transaction('r', [events, baselines, meta, unfolded, folded], async () => {
      const [known, open] = await Promise.all([meta.get(metaKey(type)), unfolded.where('[t+e]').between(...rangeOf(type)).limit(FEW + 1).primaryKeys()]);
      if (known?.value !== signature || open.length > FEW) return readType(this.database, type);
      const [bases, rows, read] = await Promise.all([
        baselines.where('[entity_type+entity_id]').between(...rangeOf(type)).toArray(),
        folded.where('[t+e]').between(...rangeOf(type)).toArray(),
        Promise.all(open.map((key) => readEntity(this.database, key))),
      ]);
      const entities = new Map<string, StoredEntity>(bases.map((baseline) => [baseline.entity_id, { baseline, events: [] }]));
      for (const { e, d } of rows) {
        const [state, timestamp, id, seq] = JSON.parse(d) as [State | null, number, string, number];
        entities.set(e, { baseline: null, events: [], folded: { state, last: { timestamp, id }, seq } });
      }
      open.forEach(([, id], index) => entities.set(id, read[index] as StoredEntity));
      return entities;
    });
  }

  /** The types whose states can be written down, each with what must be the same for them to count. */
  private declared(): (readonly [type: string, signature: string])[] {
    return [...this.definitions.values()].flatMap((definition) => {
      const signature = JSON.stringify([FOLD, definition.version ?? 1, definition.rules, definition.upcasts ?? null]);
      // Whether a function of the application's is the same as yesterday, nobody can tell.
      return /"(rule|step)":"custom"/.test(signature) ? [] : [[definition.type, signature] as const];
    });
  }
}

/** What is written down; undefined where there are no events, for the baseline is the state. */
function rowOf([t, e]: EntityRef, { baseline, events }: StoredEntity, definition: EntityDefinition): FoldedRow | undefined {
  const ordered = [...events].sort(compareEvents);
  const last = ordered.at(-1);
  if (last === undefined) return undefined;
  const state = ordered.reduce((before, event) => applyStored(before, event, definition, baseline), baseState(baseline, definition));
  const { timestamp, id }: Folded['last'] = baseline?.last && compareEvents(baseline.last, last) > 0 ? baseline.last : last;
  const seq = events.reduce((greatest, { client_seq }) => Math.max(greatest, client_seq), 0);
  return { t, e, d: JSON.stringify([state, timestamp, id, seq]) };
}

function metaKey(type: string): string {
  return `folded:${type}`;
}

function rangeOf(type: string): [readonly unknown[], readonly unknown[]] {
  return [[type, Dexie.minKey], [type, Dexie.maxKey]];
}
