/**
 * Upcasts: how a payload of an older schema version becomes one of the present. The twin of `model/src/upcast.rs`, which says what
 * each step does.
 */

import { isObject, member, put, type Json, type JsonObject } from './json.js';

/** One step. A field is a member's name; or, with a `/` in front, a JSON Pointer through objects. */
export type Step =
  | { readonly step: 'rename'; readonly field: string; readonly to: string }
  | { readonly step: 'default'; readonly field: string; readonly value: Json }
  | { readonly step: 'remove' | 'list' | 'text' | 'number'; readonly field: string }
  | { readonly step: 'wrap'; readonly field: string; readonly key: string }
  | { readonly step: 'map'; readonly field: string; readonly values: JsonObject }
  | { readonly step: 'each'; readonly field: string; readonly steps: readonly Step[] }
  | { readonly step: 'custom'; readonly function: string };

/** By the version that they lead on from. */
export type Chain = Readonly<Record<string, readonly Step[]>>;

/** All upcasts of an entity. `state` is for baselines and captured events. */
export interface Upcasts {
  readonly state: Chain;
  readonly events: Readonly<Record<string, Chain>>;
}

/** The application's own step: the payload one version up. Pure. */
export type Lift = (payload: JsonObject) => JsonObject;

/** Own steps by the name in the declaration. */
export type Lifts = Readonly<Record<string, Lift>>;

export const NO_UPCASTS: Upcasts = Object.freeze({ state: Object.freeze({}), events: Object.freeze({}) });

/** Reads `{"state": {"1": […]}, "events": {"item_added": {"1": […]}}}`. */
export function parseUpcasts(declared: unknown): Upcasts {
  const { state = {}, events = {} } = declared as Partial<Upcasts>;
  return { state, events };
}

/** The payload of a stored event, or a state, lifted from the version `from` to the present one. */
export function lift(chain: Chain | undefined, from: number, members: JsonObject, whole: boolean, lifts: Lifts): JsonObject {
  if (chain === undefined) return members;
  const versions = Object.keys(chain).map(Number).filter((version) => version >= from);
  return versions.sort((a, b) => a - b).reduce((lifted, version) => applySteps(chain[version] ?? [], lifted, whole, lifts), members);
}

/** Whether there is anything to do for something of the version `from`. */
export function concerns(chain: Chain | undefined, from: number): boolean {
  return chain !== undefined && Object.keys(chain).some((version) => Number(version) >= from);
}

/** The steps in their order. `whole`: what is absent is really absent, and gets its default. */
export function applySteps(steps: readonly Step[], members: JsonObject, whole: boolean, lifts: Lifts): JsonObject {
  return steps.reduce((before, step) => applied(step, before, whole, lifts), members);
}

function applied(step: Step, members: JsonObject, whole: boolean, lifts: Lifts): JsonObject {
  if (step.step === 'custom') {
    const own = Object.hasOwn(lifts, step.function) ? lifts[step.function] : undefined;
    return own === undefined ? members : own(members);
  }
  const path = pathOf(step.field);
  const value = valueAt(members, path);
  const changed = (next: Json): JsonObject => (next === value ? members : (placed(members, path, next) ?? members));
  switch (step.step) {
    case 'rename':
      return value === undefined ? members : (placed(without(members, path), pathOf(step.to), value) ?? members);
    case 'default':
      return whole && value === undefined ? (placed(members, path, step.value) ?? members) : members;
    case 'remove':
      return value === undefined ? members : without(members, path);
    default:
      break;
  }
  if (value === undefined || value === null) return members;
  switch (step.step) {
    case 'wrap':
      return changed(withMember({}, step.key, value));
    case 'list':
      return changed(Array.isArray(value) ? value : [value]);
    case 'map':
      return changed(typeof value === 'string' && Object.hasOwn(step.values, value) ? (step.values[value] ?? null) : value);
    case 'text':
      return changed(asText(value));
    case 'number':
      return changed(asNumber(value));
    case 'each':
      return changed(Array.isArray(value) ? (value as readonly Json[]).map((element) => (isObject(element) ? applySteps(step.steps, element, true, lifts) : element)) : value);
  }
}

function pathOf(field: string): readonly string[] {
  if (!field.startsWith('/')) return [field];
  return field
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function valueAt(members: JsonObject, path: readonly string[]): Json | undefined {
  let here: Json | undefined = members;
  for (const name of path) here = isObject(here) ? member(here, name) : undefined;
  return here;
}

/** A copy with the value there, objects on the way made; undefined where something else stands in the way. */
function placed(members: JsonObject, [name = '', ...rest]: readonly string[], value: Json): JsonObject | undefined {
  if (rest.length === 0) return withMember(members, name, value);
  const inner = member(members, name) ?? (Object.hasOwn(members, name) ? null : {});
  const next = isObject(inner) ? placed(inner, rest, value) : undefined;
  return next === undefined ? undefined : withMember(members, name, next);
}

/** A copy without the value there. */
function without(members: JsonObject, [name = '', ...rest]: readonly string[]): JsonObject {
  const inner = member(members, name);
  if (rest.length > 0) return isObject(inner) ? withMember(members, name, without(inner, rest)) : members;
  return Object.fromEntries(Object.entries(members).filter(([other]) => other !== name));
}

function withMember(members: JsonObject, name: string, value: Json): JsonObject {
  const copy: Record<string, Json> = Object.fromEntries(Object.entries(members));
  put(copy, name, value);
  return copy;
}

function asText(value: Json): Json {
  if (Array.isArray(value)) return (value as readonly Json[]).map(asText);
  // Minus zero is zero.
  return typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value;
}

function asNumber(value: Json): Json {
  if (Array.isArray(value)) return (value as readonly Json[]).map(asNumber);
  // Only as `text` writes it: other texts may say more than their number.
  return typeof value === 'string' && Number.isSafeInteger(Number(value)) && String(Number(value)) === value ? Number(value) : value;
}
