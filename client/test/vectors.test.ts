/** The conformance vectors of `model/vectors/`, which the Rust side runs too; their README says what they mean. */

import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { formatMicros, parseMicros } from '../src/clock.js';
import { fold, type Customs, type FoldEvent } from '../src/fold.js';
import { add, equal, isObject, type Json, type JsonObject } from '../src/json.js';
import { joinKey, splitKey } from '../src/key.js';
import { parseRules } from '../src/rules.js';
import { applySteps, type Lifts, type Step } from '../src/upcast.js';

interface FoldCase {
  readonly name: string;
  readonly rules?: Json;
  readonly baseline?: JsonObject;
  readonly events: readonly {
    readonly id: string;
    readonly timestamp: string;
    readonly event_type: string;
    readonly source: string;
    readonly applies?: boolean;
    readonly payload: JsonObject;
  }[];
  readonly state: Json;
}

const customs: Customs = {
  'vectors.replace': (_, event) => event.payload,
  'vectors.note': (state, { payload }) =>
    payload['note'] === undefined
      ? state
      : { ...state, notes: [...(Array.isArray(state['notes']) ? (state['notes'] as readonly Json[]) : []), payload['note']] },
  'vectors.close': (state, { payload }) => (payload['really'] === true ? null : state),
};

/** The cases of a file, less those with numbers that no double holds. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the caller knows the file's form
function casesOf<Case>(file: string): { readonly rules?: Json; readonly cases: readonly Case[] } {
  const vectors = JSON.parse(readFileSync(new URL(`../../model/vectors/${file}`, import.meta.url), 'utf8')) as {
    readonly rules?: Json;
    readonly cases: readonly (Case & { readonly beyond_double?: boolean })[];
  };
  expect(vectors.cases.length).toBeGreaterThan(10);
  return { ...vectors, cases: vectors.cases.filter((one) => one.beyond_double !== true) };
}

function checkFolds(file: string): void {
  const { rules: shared, cases } = casesOf<FoldCase>(file);
  for (const { name, rules, baseline, events, state } of cases) {
    const read = events
      .filter((event) => event.applies !== false)
      .map((event): FoldEvent => ({
        id: event.id.toLowerCase(),
        timestamp: parseMicros(event.timestamp) ?? NaN,
        name: event.event_type.slice('order.'.length),
        captured: event.source === 'capture',
        payload: event.payload,
      }));
    const orders = { 'as it stands': read, reversed: [...read].reverse(), twice: [...read, ...read] };
    for (const [order, given] of Object.entries(orders)) {
      const ours = fold(baseline ?? null, given, parseRules(rules ?? shared), customs);
      expect(equal(ours, state), `"${name}", ${order}: ${JSON.stringify(ours)} instead of ${JSON.stringify(state)}`).toBe(true);
    }
  }
}

it('folds as the vectors say', () => {
  checkFolds('fold.json');
  checkFolds('fold-generated.json');
});

it('reads keys as the vectors say', () => {
  for (const { columns, parts, id } of casesOf<{ columns: number; parts: string[] | null; id: string }>('key.json').cases) {
    expect(splitKey(id, columns), id).toEqual(parts ?? undefined);
    if (parts !== null) expect(joinKey(parts)).toBe(id);
  }
});

it('reads instants as the vectors say', () => {
  const { cases } = casesOf<{ text: string; micros: number | null; canonical: string | null }>('instant.json');
  for (const { text, micros, canonical } of cases) {
    expect(parseMicros(text), text).toBe(micros ?? undefined);
    if (micros !== null && Number.isSafeInteger(micros)) expect(formatMicros(micros)).toBe(canonical);
  }
});

it('adds as the vectors say', () => {
  for (const { value, by, sum } of casesOf<{ value: Json; by: Json; sum: Json }>('decimal.json').cases) {
    const ours = add(value, by) ?? null;
    expect(typeof ours === typeof sum && equal(ours, sum), `${JSON.stringify(value)} + ${JSON.stringify(by)}: ${JSON.stringify(ours)}`).toBe(true);
  }
});

it('compares as the vectors say', () => {
  for (const { a, b, equal: expected } of casesOf<{ a: Json; b: Json; equal: boolean }>('equal.json').cases) {
    expect(equal(a, b), `${JSON.stringify(a)} ${JSON.stringify(b)}`).toBe(expected);
    expect(isObject(a) && isObject(b) ? equal(b, a) : expected).toBe(expected);
  }
});

it('lifts as the vectors say', () => {
  const lifts: Lifts = { 'vectors.stamp': (payload) => ({ ...payload, stamped: true }) };
  const { cases } = casesOf<{ name: string; upcast: Step | readonly Step[]; members: JsonObject; whole?: boolean; lifted: JsonObject }>('upcast.json');
  for (const { name, upcast, members, whole, lifted } of cases) {
    const steps = Array.isArray(upcast) ? (upcast as readonly Step[]) : [upcast as Step];
    const ours = applySteps(steps, members, whole ?? true, lifts);
    expect(equal(ours, lifted), `"${name}": ${JSON.stringify(ours)} instead of ${JSON.stringify(lifted)}`).toBe(true);
  }
});
