/** What the client knows of an entity type, as the generated code declares it. */

import { nameOf, type Baseline, type LocalEvent } from './event.js';
import { apply, type Customs, type FoldEvent, type State } from './fold.js';
import type { JsonObject } from './json.js';
import type { Rules } from './rules.js';

/** Lifts a payload from one schema version to the next. Pure. */
export type Upcaster = (payload: JsonObject) => JsonObject;

/** How one event of an entity is recorded. */
export interface EventOptions {
  /** The version that new events bear. 1 by default. */
  readonly schemaVersion?: number;
  /** Lifts stored payloads: the function at `n` takes version `n` to `n + 1`. */
  readonly upcasters?: Readonly<Record<number, Upcaster>>;
  /** `strict` has the event on the disk before it counts as stored; `relaxed` (default) leaves that to the system. */
  readonly durability?: 'relaxed' | 'strict';
}

/** An entity type. */
export interface EntityDefinition {
  readonly type: string;
  /** The declared events with their rules, by name. */
  readonly rules: Rules;
  readonly events?: Readonly<Record<string, EventOptions>>;
  /** The application's merge functions, by the name in their rules. */
  readonly customs?: Customs;
  /** The key columns of an entity id; they stand in every state that the application sees. */
  readonly keyOf?: (entityId: string) => JsonObject;
}

/** A stored event as the fold reads it, its payload lifted to the present version. */
export function forFold(event: LocalEvent, definition: EntityDefinition): FoldEvent {
  const name = nameOf(event);
  return { id: event.id, timestamp: event.timestamp, name, captured: event.source === 'capture', payload: lifted(event, name, definition) };
}

/** Whether an event is in the baseline already: own ones stay on the device all the same, for a server that loses them. */
export function isCovered(event: LocalEvent, baseline: Baseline | null): boolean {
  return baseline !== null && event.server_position !== null && event.server_position <= baseline.position;
}

/** The state after a stored event; history-only and rejected ones and those of the baseline change nothing. */
export function applyStored(state: State | null, event: LocalEvent, definition: EntityDefinition, baseline: Baseline | null): State | null {
  if (!event.applies || event.status === 'rejected' || isCovered(event, baseline)) return state;
  return apply(state, forFold(event, definition), definition.rules, definition.customs ?? {});
}

/** The options of an event by name. */
export function optionsOf(definition: EntityDefinition, name: string): EventOptions {
  const events = definition.events ?? {};
  return Object.hasOwn(events, name) ? (events[name] ?? {}) : {};
}

function lifted(event: LocalEvent, name: string, definition: EntityDefinition): JsonObject {
  const { upcasters } = optionsOf(definition, name);
  let payload = event.payload;
  if (upcasters === undefined || event.source === 'capture') return payload;
  for (let version = event.schema_version; upcasters[version] !== undefined; version += 1) {
    payload = upcasters[version]?.(payload) ?? payload;
  }
  return payload;
}
