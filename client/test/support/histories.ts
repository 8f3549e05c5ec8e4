/** Random histories of one entity: rules, a baseline, events in any order. */

import fc from 'fast-check';
import type { Json, JsonObject } from '../../src/json.js';
import type { Rules } from '../../src/rules.js';

/** A history as `model/examples/fold.rs` reads it. */
export interface History {
  readonly rules: Rules;
  readonly baseline: JsonObject | null;
  readonly events: readonly HistoryEvent[];
}

export interface HistoryEvent {
  readonly id: string;
  readonly timestamp: number;
  readonly name: string;
  readonly source: 'client' | 'sql' | 'capture';
  readonly applies: boolean;
  readonly payload: JsonObject;
}

/** Few names, so that rules, states and payloads meet; among them those that are traps in JavaScript. */
const FIELDS = ['a', 'b', 'items', 'tip', '__proto__', 'constructor', 'toString', 'é'] as const;
const NAMES = ['created', 'updated', 'deleted', 'renamed', 'added', 'gone', 'tipped', 'cleared', 'swapped', 'noted'] as const;

const field = fc.constantFrom(...FIELDS);

const decimalText = fc.oneof(
  fc.constantFrom('0', '0.00', '1.50', '-0.5', '.5', '5.', '+7', '1e3', '12e-4', '1E+2', '0e5', '9007199254740993', '-0.0'),
  fc.constantFrom('', '.', '1e', 'NaN', '0x1', ' 1', '1_0', '.+5', '--1', '1e999999'),
  fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }).map(String),
  fc.tuple(fc.integer(), fc.nat({ max: 999_999 })).map(([whole, fraction]) => `${whole}.${fraction}`),
);

/** Numbers that stay the same as text and as double: only such reach a client. */
const number = fc.oneof(
  fc.integer({ min: -5, max: 5 }),
  fc.constantFrom(0.1, 0.2, 0.3, 1.5, 1e21, 1e-7, 1e308, -1e308, 5e-324, 9007199254740992, -0),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
);

const scalar: fc.Arbitrary<Json> = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  number,
  fc.constantFrom('', 'x', 'y', 'ü\u{1f600}'),
  decimalText,
);

const object = (value: fc.Arbitrary<Json>): fc.Arbitrary<JsonObject> =>
  fc.array(fc.tuple(field, value), { maxLength: 3 }).map((pairs) => Object.fromEntries(pairs));

const element: fc.Arbitrary<Json> = fc.oneof(scalar, object(scalar), fc.array(scalar, { maxLength: 2 }));

const value: fc.Arbitrary<Json> = fc.oneof(
  { weight: 3, arbitrary: scalar },
  { weight: 2, arbitrary: fc.array(element, { maxLength: 4 }) },
  { weight: 1, arbitrary: object(element) },
);

const rule: fc.Arbitrary<Rules[string]> = fc.oneof(
  fc.constant({ rule: 'create' as const }),
  fc.constant({ rule: 'set' as const }),
  fc.uniqueArray(field, { minLength: 1, maxLength: 3 }).map((fields) => ({ rule: 'set' as const, fields })),
  fc.uniqueArray(field, { minLength: 1, maxLength: 3 }).map((fields) => ({ rule: 'unset' as const, fields })),
  fc.tuple(field, field).map(([name, key]) => ({ rule: 'append' as const, field: name, value: key })),
  fc.tuple(field, field).map(([name, key]) => ({ rule: 'remove' as const, field: name, value: key })),
  fc
    .tuple(field, fc.array(fc.tuple(field, field), { minLength: 1, maxLength: 2 }))
    .map(([name, pairs]) => ({ rule: 'remove' as const, field: name, where: Object.fromEntries(pairs) })),
  fc.tuple(field, field).map(([name, key]) => ({ rule: 'increment' as const, field: name, by: key })),
  fc.constant({ rule: 'delete' as const }),
  fc.constant({ rule: 'ignore' as const }),
  fc.constantFrom('app.keep', 'app.end', 'app.unknown').map((name) => ({ rule: 'custom' as const, function: name })),
);

const rules: fc.Arbitrary<Rules> = fc
  .array(fc.tuple(fc.constantFrom(...NAMES), rule), { minLength: 4, maxLength: 10 })
  .map((pairs) => Object.fromEntries([['created', { rule: 'create' } as const], ...pairs]));

const id = fc
  .tuple(fc.constantFrom('4', '7', '7', '8'), fc.nat({ max: 0xffff }), fc.nat({ max: 0xffff }))
  .map(([version, head, tail]) => `0190a0a0-${hex(head)}-${version}000-8000-00000000${hex(tail)}`);

const event: fc.Arbitrary<HistoryEvent> = fc.record({
  id,
  timestamp: fc.oneof(fc.nat({ max: 6 }), fc.integer({ min: 1_700_000_000_000_000, max: 1_900_000_000_000_000 })),
  name: fc.oneof(fc.constantFrom('created', 'updated'), fc.constantFrom(...NAMES), fc.constant('unknown')),
  source: fc.constantFrom('client', 'client', 'sql', 'capture'),
  applies: fc.constantFrom(true, true, true, false),
  payload: fc.array(fc.tuple(field, value), { maxLength: 5 }).map((pairs) => Object.fromEntries(pairs)),
});

export const history: fc.Arbitrary<History> = fc.record({
  rules,
  baseline: fc.option(fc.array(fc.tuple(field, value), { maxLength: 5 }).map((pairs) => Object.fromEntries(pairs))),
  events: fc.uniqueArray(event, { maxLength: 14, selector: (one) => one.id }),
});

function hex(number: number): string {
  return number.toString(16).padStart(4, '0');
}
