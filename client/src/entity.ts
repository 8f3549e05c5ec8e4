/** What the client knows of an entity type, as the generated code declares it. */

import { nameOf, type Baseline, type LocalEvent } from './event.js';
import { apply, type Customs, type FoldEvent, type State } from './fold.js';
import { equal, type JsonObject } from './json.js';
import type { Rules } from './rules.js';
import type { StandardSchema } from './schema.js';
import { concerns, lift, NO_UPCASTS, type Lifts, type Upcasts } from './upcast.js';

/** An entity type. */
export interface EntityDefinition {
  readonly type: string;
  /** The declared events with their rules, by name. */
  readonly rules: Rules;
  /** The present schema version: that of states. 1 by default. */
  readonly version?: number;
  /** The schema versions that new events bear, by name. 1 by default. */
  readonly versions?: Readonly<Record<string, number>>;
  /** How older payloads and states become present ones. */
  readonly upcasts?: Upcasts;
  /** What payloads must look like, by event type. */
  readonly payloads?: Readonly<Record<string, StandardSchema<unknown>>>;
  /** The key columns of an entity id; they stand in every state that the application sees. */
  readonly keyOf?: (entityId: string) => JsonObject;
  /** The application's merge functions, by the name in their rules. */
  readonly customs?: Customs;
  /** The application's steps of upcasts, by the name in their declaration. */
  readonly lifts?: Lifts;
}

/** The schema version that a new event bears. */
export function versionOf(definition: EntityDefinition, name: string): number {
  const { versions = {} } = definition;
  return Object.hasOwn(versions, name) ? (versions[name] ?? 1) : 1;
}

/** A stored event as the fold reads it, its payload lifted to the present version. */
export function forFold(event: LocalEvent, definition: EntityDefinition): FoldEvent {
  return { id: event.id, timestamp: event.timestamp, name: nameOf(event), captured: event.source === 'capture', payload: payloadOf(event, definition) };
}

/** A stored event as the application sees it: its payload lifted to the present version. */
export function forPeople(event: LocalEvent, definition: EntityDefinition): LocalEvent {
  const payload = payloadOf(event, definition);
  return payload === event.payload ? event : Object.freeze({ ...event, payload, schema_version: definition.version ?? event.schema_version });
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

/** Whether two forms of one event change a state in the same way. */
export function foldsAlike(before: LocalEvent, after: LocalEvent, baseline: Baseline | null): boolean {
  return (
    before.timestamp === after.timestamp &&
    before.applies === after.applies &&
    isCovered(before, baseline) === isCovered(after, baseline) &&
    (before.status === 'rejected') === (after.status === 'rejected') &&
    before.schema_version === after.schema_version &&
    before.source === after.source &&
    (before.payload === after.payload || equal(before.payload, after.payload))
  );
}

/** The state of a baseline in the present version. */
export function baseState(baseline: Baseline | null, definition: EntityDefinition): State | null {
  const state = baseline?.state ?? null;
  if (state === null || definition.upcasts === undefined) return state;
  return lift(definition.upcasts.state, baseline?.version ?? 1, state, true, definition.lifts ?? {});
}

function payloadOf(event: LocalEvent, definition: EntityDefinition): JsonObject {
  const { upcasts = NO_UPCASTS, lifts = {} } = definition;
  const name = nameOf(event);
  const captured = event.source === 'capture';
  const chain = captured ? upcasts.state : Object.hasOwn(upcasts.events, name) ? upcasts.events[name] : undefined;
  if (!concerns(chain, event.schema_version)) return event.payload;
  // A captured change carries some columns only: what it lacks has not changed.
  return lift(chain, event.schema_version, event.payload, !captured || name === 'created', lifts);
}
