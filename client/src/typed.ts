/** The types of generated code, and the fold as it calls it. */

import { applyStored, type EntityDefinition } from './entity.js';
import type { LocalEvent } from './event.js';
import { compareEvents, type Customs, type FoldEvent, type State } from './fold.js';

/** What may be recorded of an entity: a union over its event types. */
export type DraftOf<Entity extends string, Payloads> = {
  readonly [Type in keyof Payloads & string]: {
    readonly event_type: Type;
    readonly entity_type: Entity;
    readonly entity_id: string;
    readonly payload: Payloads[Type];
    readonly idempotency_key?: string;
  };
}[keyof Payloads & string];

type Typed<Entity extends string, Type extends string, Payload, Source> = Omit<LocalEvent, 'event_type' | 'entity_type' | 'payload' | 'source'> & {
  readonly event_type: Type;
  readonly entity_type: Entity;
  readonly payload: Payload;
  readonly source: Source;
};

/** What happened to an entity: a union over the event types and over who recorded them. */
export type EventOf<Entity extends string, Payloads, Captures> =
  | { readonly [Type in keyof Payloads & string]: Typed<Entity, Type, Payloads[Type], 'client' | 'sql'> }[keyof Payloads & string]
  | { readonly [Type in keyof Captures & string]: Typed<Entity, Type, Captures[Type], 'capture'> }[keyof Captures & string];

/** The application's own merge function: the state after the event, or null to end the entity. Pure. */
export type Merge<Entity, Payload> = (state: Entity, event: Omit<FoldEvent, 'payload'> & { readonly payload: Payload }) => Entity | null;

/** The state that events make of a former one, in whatever order they come. */
export function foldEvents<Entity>(definition: EntityDefinition, events: readonly unknown[], from: Entity | null, merges: object = {}): Entity | null {
  const own = { ...definition, customs: { ...definition.customs, ...(merges as Customs) } };
  const ordered = [...(events as readonly LocalEvent[])].sort(compareEvents);
  const folded = ordered.reduce<State | null>(
    (state, event, index) => (ordered[index - 1]?.id === event.id ? state : applyStored(state, event, own, null)),
    from as State | null,
  );
  const [first] = ordered;
  return (folded === null || first === undefined ? folded : { ...folded, ...definition.keyOf?.(first.entity_id) }) as Entity | null;
}
