/** What coverage tools wrote, in one line; called by scripts/coverage. */

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [part, file] = process.argv.slice(2);
const root = new URL('../', import.meta.url).pathname;
const share = ({ count, covered }) => `${((100 * covered) / count).toFixed(1)} %`;

/** vitest's json-summary. */
function typescript() {
  const { lines } = JSON.parse(readFileSync(file, 'utf8')).total;
  console.log(`TypeScript  ${share({ count: lines.total, covered: lines.covered })} of ${lines.total} lines of client/src`);
}

/** What llvm-cov exports: by crate, and where most is missing. Code of tests does not count. */
function rust() {
  const crates = new Map(['model', 'generate', 'streamer', 'extension'].map((name) => [name, { count: 0, covered: 0 }]));
  const missing = [];
  for (const { filename, summary: { lines } } of JSON.parse(readFileSync(file, 'utf8')).data[0].files) {
    const [crate, src, ...rest] = filename.replace(root, '').split('/');
    const sum = crates.get(crate);
    if (sum === undefined || src !== 'src' || rest.some((name) => name.startsWith('tests'))) continue;
    sum.count += lines.count;
    sum.covered += lines.covered;
    missing.push([lines.count - lines.covered, `${crate}/src/${rest.join('/')}`]);
  }
  const sums = [...crates].filter(([, { count }]) => count > 0);
  const all = sums.reduce((sum, [, { count, covered }]) => ({ count: sum.count + count, covered: sum.covered + covered }), { count: 0, covered: 0 });
  console.log(`Rust        ${share(all)} of ${all.count} lines: ${sums.map(([name, sum]) => `${name} ${share(sum)}`).join(', ')}`);
  for (const [lines, name] of missing.sort(([a], [b]) => b - a).slice(0, 15)) console.error(`    ${String(lines).padStart(5)} lines are missing of ${name}`);
}

/** The binaries that cargo's messages name. */
function executables() {
  createInterface(process.stdin).on('line', (line) => {
    const { executable } = JSON.parse(line);
    if (executable) console.log(executable);
  });
}

({ typescript, rust, executables })[part]();
