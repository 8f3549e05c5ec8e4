/**
 * Local retention: what the server took long ago is folded into baselines. Own events stay beside them for longer, covered by the
 * baseline: a server that is restored from a backup gets them back.
 */

import { applyStored, baseState, isCovered, type EntityDefinition } from '../entity.js';
import { isConfirmed, type EntityRef, type LocalEvent } from '../event.js';
import { compareEvents, type State } from '../fold.js';
import { keyOf, putEvents, readEntity, refKey, unfold, type Database } from './database.js';
import type { Changes } from './eventStore.js';

/** Entities compacted in one transaction: short enough that a mutation never waits long behind it. */
const COMPACT_AT_ONCE = 200;

/** Up to when the server took what is folded, and the own events that go: microseconds since 1970. */
export interface Horizon {
  readonly foldBefore: number;
  /** Not later than `foldBefore`. */
  readonly dropOwnBefore: number;
}

/** Folds what is old enough into baselines, entity by entity, as far as no younger or unconfirmed event sorts before it. */
export async function compact(database: Database, horizon: Horizon, definitions: ReadonlyMap<string, EntityDefinition>): Promise<Changes> {
  const keys = await database.events.where('r').below(horizon.foldBefore).primaryKeys();
  const all = [...new Map(keys.map(([type, id]): [string, EntityRef] => [refKey([type, id]), [type, id]])).values()];
  const entities: EntityRef[] = [];
  for (let from = 0; from < all.length; from += COMPACT_AT_ONCE) {
    entities.push(...(await compactEntities(database, all.slice(from, from + COMPACT_AT_ONCE), horizon, definitions)));
  }
  return { entities, stale: [] };
}

function compactEntities(database: Database, refs: readonly EntityRef[], { foldBefore, dropOwnBefore }: Horizon, definitions: ReadonlyMap<string, EntityDefinition>): Promise<EntityRef[]> {
  const { events, baselines, unfolded } = database;
  return database.transaction('rw', events, baselines, unfolded, async () => {
    const compacted: EntityRef[] = [];
    for (const ref of refs) {
      const definition = definitions.get(ref[0]);
      if (definition === undefined) continue;
      const { baseline, events: stored } = await readEntity(database, ref);
      const ordered = [...stored].sort(compareEvents);
      const isOld = (event: LocalEvent, before = foldBefore): boolean => isConfirmed(event) && (event.recorded_at ?? Infinity) < before;
      const stays = (event: LocalEvent): boolean => event.client_seq > 0 && !isOld(event, dropOwnBefore);
      const upTo = ordered.findIndex((event) => event.status !== 'rejected' && !isOld(event));
      const folded = (upTo === -1 ? ordered : ordered.slice(0, upTo)).filter((event) => isOld(event) && !(stays(event) && isCovered(event, baseline)));
      const last = folded.at(-1);
      if (last === undefined) continue;
      let state: State | null;
      try {
        state = folded.reduce((before, event) => applyStored(before, event, definition, baseline), baseState(baseline, definition));
      } catch {
        // A function of the application's own threw, and whoever asks for this entity is told. The others get their room.
        continue;
      }
      const lastIn = baseline?.last && compareEvents(baseline.last, last) > 0 ? baseline.last : { timestamp: last.timestamp, id: last.id };
      const version = definition.version ?? 1;
      const position = baseline?.position ?? 0;
      await baselines.put({ entity_type: ref[0], entity_id: ref[1], state, position, last: lastIn, version });
      await events.bulkDelete(folded.filter((event) => !stays(event)).map(keyOf));
      await putEvents(database, folded.filter(stays).map((event) => ({ ...event, server_position: position })));
      compacted.push(ref);
    }
    await unfold(database, compacted);
    return compacted;
  });
}
