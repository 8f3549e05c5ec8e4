/** Local retention: what the server took long ago is folded into baselines. */

import { applyStored, baseState, type EntityDefinition } from '../entity.js';
import { isConfirmed, type EntityRef, type LocalEvent } from '../event.js';
import { compareEvents } from '../fold.js';
import { keyOf, readEntity, refKey, unfold, type Database } from './database.js';
import type { Changes } from './eventStore.js';

/** Entities compacted in one transaction: short enough that a mutation never waits long behind it. */
const COMPACT_AT_ONCE = 200;

/**
 * Folds what the server took before `recordedBefore` (microseconds) into baselines, entity by entity, as far as no
 * younger or unconfirmed event sorts before it.
 */
export async function compact(database: Database, recordedBefore: number, definitions: ReadonlyMap<string, EntityDefinition>): Promise<Changes> {
  const keys = await database.events.where('r').below(recordedBefore).primaryKeys();
  const all = [...new Map(keys.map(([type, id]): [string, EntityRef] => [refKey([type, id]), [type, id]])).values()];
  const entities: EntityRef[] = [];
  for (let from = 0; from < all.length; from += COMPACT_AT_ONCE) {
    entities.push(...(await compactEntities(database, all.slice(from, from + COMPACT_AT_ONCE), recordedBefore, definitions)));
  }
  return { entities, stale: [] };
}

function compactEntities(database: Database, refs: readonly EntityRef[], recordedBefore: number, definitions: ReadonlyMap<string, EntityDefinition>): Promise<EntityRef[]> {
  const { events, baselines, unfolded } = database;
  return database.transaction('rw', events, baselines, unfolded, async () => {
    const compacted: EntityRef[] = [];
    for (const ref of refs) {
      const definition = definitions.get(ref[0]);
      if (definition === undefined) continue;
      const { baseline, events: stored } = await readEntity(database, ref);
      const ordered = [...stored].sort(compareEvents);
      const isOld = (event: LocalEvent): boolean => isConfirmed(event) && (event.recorded_at ?? Infinity) < recordedBefore;
      const upTo = ordered.findIndex((event) => event.status !== 'rejected' && !isOld(event));
      const folded = (upTo === -1 ? ordered : ordered.slice(0, upTo)).filter(isOld);
      const last = folded.at(-1);
      if (last === undefined) continue;
      const state = folded.reduce((before, event) => applyStored(before, event, definition, baseline), baseState(baseline, definition));
      const lastIn = baseline?.last && compareEvents(baseline.last, last) > 0 ? baseline.last : { timestamp: last.timestamp, id: last.id };
      const version = definition.version ?? 1;
      await baselines.put({ entity_type: ref[0], entity_id: ref[1], state, position: baseline?.position ?? 0, last: lastIn, version });
      await events.bulkDelete(folded.map(keyOf));
      compacted.push(ref);
    }
    await unfold(database, compacted);
    return compacted;
  });
}
