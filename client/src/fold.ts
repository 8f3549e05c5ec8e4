/**
 * The fold: an entity's state is its events in the order (timestamp, id) over its baseline. The twin of `model/src/fold.rs`.
 *
 * 1. On an absent state every rule but create is without effect.
 * 2. Create on an existing state merges the given fields. After a delete only a later create revives.
 * 3. Captured events fold by create, set and delete, whatever rule bears the same name.
 * 4. A fill, the captured event with a UUIDv8 that records a table's defaults, sets only what the state lacks.
 * 5. An event whose rule is gone, or that does not fit the state any more, is passed over: a fold never fails.
 * 6. An event that stands there twice counts once.
 */

import { add, equal, isObject, member, put, type Json, type JsonObject } from './json.js';
import { ruleOf, type Rule, type Rules } from './rules.js';

/** The fields of an entity that exists. Never changed in place. */
export type State = JsonObject;

/** An event as the fold reads it. */
export interface FoldEvent {
  /** UUID, lower case. */
  readonly id: string;
  /** When it happened, integer microseconds since 1970. */
  readonly timestamp: number;
  /** Its name within the entity: `item_added`. */
  readonly name: string;
  /** Recorded by the server's triggers. */
  readonly captured: boolean;
  readonly payload: JsonObject;
}

/** The application's own merge function: the state after, or null to end the entity. Pure. */
export type Custom = (state: State, event: FoldEvent) => State | null;

/** Merge functions by the name in their rule. */
export type Customs = Readonly<Record<string, Custom>>;

/** Where UUIDs carry their version; a fill has version 8. */
const VERSION_AT = 14;

/** Which of two events comes first: negative if `a`. */
export function compareEvents(
  a: { readonly timestamp: number; readonly id: string },
  b: { readonly timestamp: number; readonly id: string },
): number {
  if (a.timestamp !== b.timestamp) return a.timestamp - b.timestamp;
  if (a.id === b.id) return 0;
  return a.id < b.id ? -1 : 1;
}

/** The state that `events` make of `baseline`, in whatever order they come. Null where there is no entity. */
export function fold(baseline: State | null, events: readonly FoldEvent[], rules: Rules, customs: Customs = {}): State | null {
  const ordered = [...events].sort(compareEvents);
  return ordered.reduce(
    (state, event, index) => (ordered[index - 1]?.id === event.id ? state : apply(state, event, rules, customs)),
    baseline,
  );
}

/** The state after one more event, the newest. */
export function apply(state: State | null, event: FoldEvent, rules: Rules, customs: Customs): State | null {
  const rule = event.captured ? captureRule(event.name) : ruleOf(rules, event.name);
  if (rule === undefined) return state;
  if (state === null) return rule.rule === 'create' ? event.payload : null;
  if (event.captured && event.id[VERSION_AT] === '8') return merged(event.payload, state);
  switch (rule.rule) {
    case 'create':
      return merged(state, event.payload);
    case 'set':
      return merged(state, rule.fields === undefined ? event.payload : picked(event.payload, rule.fields));
    case 'unset':
      return merged(state, Object.fromEntries(rule.fields.map((field) => [field, null])));
    case 'append':
      return appended(state, rule.field, member(event.payload, rule.value));
    case 'remove':
      return removed(state, rule, event.payload);
    case 'increment': {
      const sum = add(member(state, rule.field), member(event.payload, rule.by));
      return sum === undefined ? state : withField(state, rule.field, sum);
    }
    case 'delete':
      return null;
    case 'ignore':
      return state;
    case 'custom': {
      const custom = Object.hasOwn(customs, rule.function) ? customs[rule.function] : undefined;
      return custom === undefined ? state : custom(state, event);
    }
  }
}

function captureRule(name: string): Rule | undefined {
  switch (name) {
    case 'created':
      return { rule: 'create' };
    case 'updated':
      return { rule: 'set' };
    case 'deleted':
    case 'erased':
      return { rule: 'delete' };
    default:
      return undefined;
  }
}

/** Both objects' members; where both have one, that of `over`. */
function merged(under: State, over: JsonObject): State {
  return { ...under, ...over };
}

function picked(payload: JsonObject, fields: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(payload).filter(([name]) => fields.includes(name)));
}

function withField(state: State, field: string, value: Json): State {
  const after: Record<string, Json> = { ...state };
  put(after, field, value);
  return after;
}

function appended(state: State, field: string, element: Json | undefined): State {
  if (element === undefined) return state;
  const before = member(state, field);
  if (before === undefined || before === null) return withField(state, field, [element]);
  return Array.isArray(before) ? withField(state, field, [...(before as readonly Json[]), element]) : state;
}

function removed(state: State, rule: Extract<Rule, { rule: 'remove' }>, payload: JsonObject): State {
  const elements = member(state, rule.field);
  if (!Array.isArray(elements)) return state;
  const given = (key: string, value: Json | undefined): boolean => {
    const wanted = member(payload, key);
    return wanted !== undefined && value !== undefined && equal(wanted, value);
  };
  const goes = (element: Json): boolean =>
    'where' in rule
      ? Object.entries(rule.where).every(([name, key]) => given(key, isObject(element) ? member(element, name) : undefined))
      : given(rule.value, element);
  return withField(state, rule.field, (elements as readonly Json[]).filter((element) => !goes(element)));
}
