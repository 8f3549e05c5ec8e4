/** What there is to know of the binary stands in the guide: its routes, codes, flags and metrics, and nothing that it lacks. Oracles: the source, `--help`. */

import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { expect, it } from 'vitest';
import { required } from '../browser/place.js';
import { ROOT, pages, read } from './markdown.js';

const source = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const all = (text: string, pattern: RegExp): string[] => [...new Set([...text.matchAll(pattern)].map(([whole, group]) => group ?? whole))].sort();
/** Everything of one folder, without what tests it. */
const sources = (folder: string): string => readdirSync(join(ROOT, folder)).filter((name) => name.endsWith('.rs')).map((name) => source(join(folder, name)).split('#[cfg(test)]')[0]).join('\n');
const missing = (names: readonly string[], text: string): string[] => names.filter((name) => !text.includes(name));
const metricsOf = (text: string): string[] => all(text, /\bheadwater_[a-z_]+/g).map((name) => name.replace(/_(bucket|count|sum)$/, ''));

it('the HTTP reference has every route', () => {
  const routes = all(source('streamer/src/http/mod.rs').split('#[cfg(test)]')[0] ?? '', /\.route\("([^"]+)"/g);
  expect(routes.length).toBeGreaterThan(10);
  const placeholders = routes.map((route) => route.replace('{entity_type}', '{type}').replace('{entity_id}', '{id}'));
  expect(missing([...placeholders, '/v1/shape', '/app/'], read('docs/http.md'))).toEqual([]);
});

it('the HTTP reference has every code of an error and of a reject', () => {
  const errors = all(sources('streamer/src/http'), /(?:bad_request|Problem::new|Self::new)\(\s*(?:StatusCode::\w+,\s*)?"([a-z_]+)"/g);
  const rejects = all(source('model/src/event.rs').split('#[cfg(test)]')[0] ?? '', /Self::\w+ => "([a-z_]+)"/g);
  expect(Math.min(errors.length, rejects.length)).toBeGreaterThan(10);
  expect(missing([...errors, ...rejects].map((code) => `\`${code}\``), read('docs/http.md'))).toEqual([]);
});

it('the guide has every flag of every command, and no other', () => {
  const guide = pages().map(read).join('\n');
  const help = (...command: string[]): string => execFileSync(required('HEADWATER_TEST_STREAMER'), [...command, '--help'], { encoding: 'utf8' });
  const flags = (text: string): string[] => all(text, /(?<![\w-])--[a-z][a-z-]+/g).filter((flag) => flag !== '--help');
  const known = flags(['serve', 'doctor', 'tail', 'generate'].map((command) => help(command)).join('\n'));
  expect(missing(flags(help('serve')), guide)).toEqual([]);
  // Flags of other programs that pages call stand in blocks; what stands in text is ours.
  const said = flags(guide.replace(/^```.*?^```$/gms, '').replace(/`(?:cargo|scripts|make|npm|docker|pg_\w+) [^`]*`/g, ''));
  expect(missing(said.filter((flag) => !['--workspace', '--locked', '--read-only'].includes(flag)), known.join('\n'))).toEqual([]);
});

it('the guide has every metric, and alerts and dashboard ask for those that there are', () => {
  const metrics = all(source('streamer/src/metrics.rs').split('#[cfg(test)]')[0] ?? '', /"(headwater_[a-z_]+)"/g);
  expect(metrics.length).toBeGreaterThan(20);
  const operations = read('docs/operations.md');
  expect(missing(metrics, operations)).toEqual([]);
  expect(missing(all(source('packaging/alerts.yml'), /alert: (\w+)/g), operations)).toEqual([]);
  // Counters have a suffix in the text format.
  const known = new Set(metrics.flatMap((name) => [name, `${name}_total`]));
  for (const file of ['packaging/alerts.yml', 'packaging/grafana.json']) {
    const text = source(file);
    if (file.endsWith('.json')) JSON.parse(text);
    else parse(text);
    expect(metricsOf(text).filter((name) => !known.has(name)), file).toEqual([]);
  }
});
