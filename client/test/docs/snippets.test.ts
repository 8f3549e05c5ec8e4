/**
 * Every command and snippet of the README and the guide works: run in the order in which it stands there, on a real Postgres and a real
 * streamer of the page's own. TypeScript is compiled against a generated client; what cannot be run says why, in a remark above it.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { parse } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ROOT, anchorsOf, blocksOf, linksOf, pages, read, stackOf, type Block } from './markdown.js';
import { OUT, Shell, clean } from './shell.js';

const LANGUAGES = ['', 'sh', 'sql', 'ts', 'tsx', 'json', 'yaml', 'nginx'];
const notRun: string[] = [];

beforeAll(() => {
  clean();
  mkdirSync(OUT, { recursive: true });
});

afterAll(() => {
  console.log(['not run:', ...notRun].join('\n  '));
  clean();
});

async function check(block: Block, shell: Shell | undefined, page: string): Promise<void> {
  expect(LANGUAGES, 'its language').toContain(block.language);
  if (block.language === '') return;
  if (block.notRun !== undefined) {
    notRun.push(`${page}:${block.line}: ${block.notRun}`);
    return;
  }
  switch (block.language) {
    case 'json':
      JSON.parse(block.text);
      break;
    case 'yaml':
      parse(block.text);
      break;
    case 'ts':
    case 'tsx':
      if (shell === undefined) throw new Error('the page has no remark that reads <!-- stack: orders -->');
      await typescript(block, shell);
      break;
    default:
      if (shell === undefined) throw new Error('the page has no remark that reads <!-- stack: orders -->');
      await shell.run(block);
  }
}

/** Compiled at the end, all together. */
async function typescript(block: Block, shell: Shell): Promise<void> {
  const others = /from '@(electric-sql|tanstack)/.test(block.text);
  const file = join(shell.folder, 'src', `line-${block.line}.${others ? 'others.' : ''}${block.language}`);
  mkdirSync(dirname(file), { recursive: true });
  if (block.text.includes("'./generated") && !existsSync(join(shell.folder, 'src/generated'))) {
    await shell.run({ ...block, language: 'sh', given: '', text: 'headwater generate http://127.0.0.1:4000/openapi.json --output src/generated' });
  }
  writeFileSync(file, `${block.given}\n${block.text}\nexport {};\n`);
  if (!block.run) return;
  const bundle = await build({ entryPoints: [file], bundle: true, format: 'esm', platform: 'node', write: false });
  await shell.node(bundle.outputFiles[0]?.text ?? '', block.shows);
}

function compile(name: string, files: readonly string[], flags: object): void {
  if (files.length === 0) return;
  const configuration = { extends: '../../../tsconfig.json', compilerOptions: { types: ['node'], noUnusedLocals: false, ...flags }, include: [], files };
  writeFileSync(join(OUT, `${name}.json`), JSON.stringify(configuration));
  try {
    execFileSync('npx', ['tsc', '--noEmit', '-p', join(OUT, `${name}.json`)], { cwd: join(ROOT, 'client'), encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout);
  }
}

describe('what stands in', () => {
  for (const page of pages()) {
    it(`${page} works`, async () => {
      const text = read(page);
      const stack = stackOf(text);
      const shell = stack.length === 0 ? undefined : await Shell.start(page, text, stack);
      try {
        for (const block of blocksOf(text)) {
          await check(block, shell, page).catch((error: unknown) => {
            throw new Error(`${page}:${block.line}: ${error instanceof Error ? error.message : String(error)}`);
          });
        }
        await shell?.finish();
      } catch (error) {
        console.log(shell?.logs());
        throw error;
      } finally {
        await shell?.stop();
      }
    });
  }

  it('TypeScript compiles under every strict flag', () => {
    const files = (readdirSync(OUT, { recursive: true }) as string[]).filter((file) => /src\/line-\d+\..*tsx?$/.test(file));
    compile('ours', files.filter((file) => !file.includes('.others.')), {});
    // The types of other packages were not written with this flag in mind.
    compile('others', files.filter((file) => file.includes('.others.')), { exactOptionalPropertyTypes: false });
  });
});

it('every link of the guide leads somewhere', () => {
  const lost: string[] = [];
  for (const page of [...pages(), 'ARCHITECTURE.md', 'PROMISES.md', 'CHANGELOG.md']) {
    for (const link of linksOf(read(page))) {
      const [path, anchor] = link.split('#');
      const target = path === undefined || path === '' ? page : join(dirname(page), path);
      if (!existsSync(join(ROOT, target))) lost.push(`${page}: ${link}`);
      else if (anchor !== undefined && target.endsWith('.md') && !anchorsOf(read(target)).has(anchor)) lost.push(`${page}: ${link}`);
    }
  }
  expect(lost).toEqual([]);
});
