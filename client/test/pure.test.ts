/** Keys, clock, ids, decimals and rules: the small pure parts. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HybridClock, formatMicros, parseMicros } from '../src/clock.js';
import type { LocalEvent } from '../src/event.js';
import { add, equal } from '../src/json.js';
import { joinKey, splitKey } from '../src/key.js';
import { misfit, parseRules } from '../src/rules.js';
import { eventOf, rowOf } from '../src/store/row.js';
import { IdSource } from '../src/uuid.js';

const part = fc.string({ unit: fc.constantFrom('a', '~', '/', '0', '1', 'é'), maxLength: 6 });

describe('keys', () => {
  it('survive the round trip', () => {
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
        expect(splitKey(joinKey(parts), parts.length)).toEqual(parts);
      }),
    );
    expect(joinKey(['a/b'])).toBe('a/b');
    expect(joinKey(['a/b', 'c~d'])).toBe('a~1b/c~0d');
    expect(splitKey('a/b/c', 2)).toBeUndefined();
    expect(splitKey('a~2/b', 2)).toBeUndefined();
    expect(splitKey('a/b~', 2)).toBeUndefined();
  });
});

describe('instants', () => {
  it.each([
    ['2026-11-22T12:40:00Z', '2026-11-22T12:40:00.000000Z'],
    ['2026-11-22T12:40:00.1+02:00', '2026-11-22T10:40:00.100000Z'],
    ['2026-11-22T12:40:00.123456789Z', '2026-11-22T12:40:00.123456Z'],
    ['1969-12-31T23:59:59.999999Z', '1969-12-31T23:59:59.999999Z'],
  ])('%s is %s', (text, expected) => {
    expect(formatMicros(parseMicros(text) ?? NaN)).toBe(expected);
  });

  it.each(['', 'now', '2026-11-22', '2026-11-22 12:40', '2026-13-01T00:00:00Z'])('%j is none', (text) => {
    expect(parseMicros(text)).toBeUndefined();
  });

  it('survive the round trip', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (micros) => {
        fc.pre(micros > -62_135_596_800_000_000 && micros < 253_402_300_800_000_000);
        expect(parseMicros(formatMicros(micros))).toBe(micros);
      }),
    );
  });
});

describe('the clock', () => {
  it('never repeats and never runs back, whatever the device does', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.nat(5000), fc.nat(5000).map((n) => -n))), (steps) => {
        let now = 1_000_000;
        const clock = new HybridClock(() => now);
        let last = 0;
        for (const step of steps) {
          if (step < 0) clock.witness(-step * 1_000_000);
          else now = step * 1000;
          const stamp = clock.tick();
          expect(stamp).toBeGreaterThan(last);
          expect(Number.isSafeInteger(stamp)).toBe(true);
          last = stamp;
        }
      }),
    );
  });

  it('follows the server when told, and nobody far ahead', () => {
    const clock = new HybridClock(() => 10_000_000);
    clock.witness(10_000_000_000 + 3_600_000_000);
    expect(clock.tick()).toBe(10_000_000_000);
    clock.correct(5_000_000_000);
    expect(clock.tick()).toBe(5_000_000_000);
  });
});

describe('ids', () => {
  it('are version 7 and rise', () => {
    const ids = new IdSource();
    const made = Array.from({ length: 10_000 }, (_, n) => ids.next(1_790_000_000_000_000 - (n % 3) * 1000));
    expect(made.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id))).toBe(true);
    expect([...made].sort()).toEqual(made);
    expect(new Set(made).size).toBe(made.length);
  });
});

describe('decimals', () => {
  it.each([
    ['9007199254740993', 1, '9007199254740994'],
    ['0.10', '0.2', '0.30'],
    ['1.0', 1.5, '2.5'],
    ['-0.05', '0.01', '-0.04'],
    [null, 2, 2],
    [undefined, '1e3', '1000'],
    [0.1, 0.2, 0.3],
    [1e308, 1e308, undefined],
    [1, 'NaN', undefined],
    [1, '', undefined],
    ['1e999999999', 1, undefined],
    [true, 1, undefined],
  ])('%j + %j is %j', (value, by, sum) => {
    expect(add(value, by)).toBe(sum);
  });

  it('compare by value', () => {
    expect(equal({ a: [1, { b: null }] }, { a: [1.0, { b: null }] })).toBe(true);
    expect(equal({ a: 1 }, { b: 1 })).toBe(false);
    expect(equal([], {})).toBe(false);
    expect(equal(-0, 0)).toBe(true);
  });
});

describe('rows', () => {
  const event: LocalEvent = {
    id: '01a2138e-71f7-7000-b12f-d121e6fb0b19',
    event_type: 'order.item_added',
    entity_type: 'order',
    entity_id: 'o1',
    payload: { item: { name: 'Zoë "50%"\n', price: '4.50', n: -0.5, many: [1, null, true] } },
    timestamp: 1_795_624_432_119_001,
    user_id: 'ada',
    client_id: null,
    tenant_id: 'cafe',
    status: 'rejected',
    server_position: null,
    idempotency_key: 'k',
    schema_version: 2,
    client_seq: 7,
    source: 'client',
    applies: true,
    recorded_at: null,
    rejection: { code: 'constraint_violation', reason: 'no' },
    again: 'restamped',
  };

  it('give back the event and so do those of an earlier client', () => {
    const others: LocalEvent[] = [{ ...event, rejection: null, again: null, idempotency_key: null, status: 'accepted', server_position: 9, recorded_at: 5, source: 'capture' }, { ...event, event_type: 'strange', applies: false }];
    for (const one of [event, ...others]) {
      const row = rowOf(one);
      expect(eventOf(row)).toEqual(one);
      expect(eventOf({ ...row, d: JSON.parse(String(row.d)) as unknown[] })).toEqual(one);
    }
  });
});

describe('rules', () => {
  it('say what is wrong with a declaration', () => {
    expect(() => parseRules('created')).toThrow('array of names or an object');
    expect(() => parseRules({ a: { rule: 'upsert' } })).toThrow('is no rule');
    expect(() => parseRules({ a: { rule: 'set', field: 'x' } })).toThrow('does not take "field"');
    expect(() => parseRules({ a: { rule: 'remove', field: 'x' } })).toThrow('"value" must be a string');
    expect(() => parseRules({ Ab: { rule: 'set' } })).toThrow('cannot name an event');
  });

  it('say what is wrong with a payload', () => {
    const rules = parseRules({ tipped: { rule: 'increment', field: 'tip', by: 'amount' } });
    const tipped = rules['tipped'] ?? { rule: 'ignore' };
    expect(misfit(tipped, {})).toBe('the payload lacks "amount"');
    expect(misfit(tipped, { amount: 'much' })).toBe('"amount" is no number');
    expect(misfit(tipped, { amount: '0.5' })).toBeUndefined();
  });
});
