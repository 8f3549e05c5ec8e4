/**
 * The fold agrees with the one in Rust: on the shared vectors, and on random histories that both fold.
 * HEADWATER_FUZZ_HISTORIES sets how many; HEADWATER_FUZZ_SEED repeats a run.
 */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { apply, fold, type Customs, type FoldEvent } from '../src/fold.js';
import { equal, type Json, type JsonObject } from '../src/json.js';
import { parseRules } from '../src/rules.js';
import { history, type History } from './support/histories.js';

const HISTORIES = Number(process.env['HEADWATER_FUZZ_HISTORIES'] ?? 4000);
const SEED = Number(process.env['HEADWATER_FUZZ_SEED'] ?? Date.now() % 1_000_000);
/** So many at a time: the text of a run stays within a pipe's patience. */
const ROUND = 10_000;

const customs: Customs = {
  'app.keep': (state, event) => ({ ...state, kept: event.payload }),
  'app.end': () => null,
  'app.unknown': () => null,
};

function foldedHere({ rules, baseline, events }: History): Json {
  const applying = events.filter((event) => event.applies);
  const read = applying.map((event): FoldEvent => ({ ...event, captured: event.source === 'capture' }));
  return fold(baseline, read, parseRules(rules), customs);
}

describe(`the fold of ${HISTORIES} histories`, () => {
  it('agrees on random histories with the fold in Rust', { timeout: 600_000 }, () => {
    const binary = process.env['HEADWATER_FOLD_BINARY'] ?? '';
    expect(existsSync(binary), 'HEADWATER_FOLD_BINARY names the built example `fold`; scripts/test client sets it').toBe(true);
    for (let done = 0; done < HISTORIES; done += ROUND) {
      const seed = SEED + done;
      const histories = fc.sample(history, { seed, numRuns: Math.min(ROUND, HISTORIES - done) });
      const input = histories.map((one) => JSON.stringify(one)).join('\n');
      const run = spawnSync(binary, { input, encoding: 'utf8', maxBuffer: 2 ** 30 });
      expect(run.status, run.stderr).toBe(0);
      const lines = run.stdout.trimEnd().split('\n');
      expect(lines.length).toBe(histories.length);
      histories.forEach((one, index) => {
        const theirs = JSON.parse(lines[index] ?? '') as Json;
        const ours = foldedHere(one);
        if (!equal(ours, theirs)) {
          throw new Error(
            `seed ${seed}, history ${index}: ours ${JSON.stringify(ours)}, theirs ${lines[index]}\n${JSON.stringify(one)}`,
          );
        }
      });
    }
  });
});

describe('the order of arrival', () => {
  it('does not matter', () => {
    fc.assert(
      fc.property(history, fc.infiniteStream(fc.nat()), ({ rules, baseline, events }, random) => {
        const read = events.map((event): FoldEvent => ({ ...event, captured: event.source === 'capture' }));
        const expected = fold(baseline, read, rules, customs);
        const shuffled = read
          .map((event) => ({ event, key: Number(random.next().value) }))
          .sort((a, b) => a.key - b.key)
          .map(({ event }) => event);
        expect(equal(fold(baseline, shuffled, rules, customs), expected)).toBe(true);
      }),
    );
  });
});

describe('a fold', () => {
  it('never changes what it was given', () => {
    fc.assert(
      fc.property(history, ({ rules, baseline, events }) => {
        const before = JSON.stringify([baseline, events]);
        for (const event of events) apply(baseline, { ...event, captured: event.source === 'capture' }, rules, customs);
        expect(JSON.stringify([baseline, events])).toBe(before);
      }),
    );
  });

  it('takes names of the prototype for ordinary ones', () => {
    const payload = JSON.parse('{"__proto__":{"polluted":true},"toString":1}') as JsonObject;
    const event = { id: '0190a0a0-0000-7000-8000-000000000001', timestamp: 1, name: 'created', captured: false, payload };
    const state = fold(null, [event], parseRules(['created']));
    expect(JSON.stringify(state)).toBe('{"__proto__":{"polluted":true},"toString":1}');
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect(fold({}, [{ ...event, name: 'constructor' }], parseRules(['created']))).toEqual({});
  });
});
