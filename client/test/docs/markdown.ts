/** What stands in the Markdown of this repository: fenced blocks with the remarks above them, headings, links. */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = new URL('../../../', import.meta.url).pathname;

/** A fenced block. Remarks are HTML comments right above it, which no reader sees. */
export interface Block {
  readonly line: number;
  readonly language: string;
  readonly text: string;
  /** `<!-- not run: why -->` */
  readonly notRun: string | undefined;
  /** `<!-- given: code -->`: comes before the block's own, in its language. */
  readonly given: string;
  /** `<!-- keeps running -->`: a server, or somebody who watches; until the end of the page. */
  readonly keepsRunning: boolean;
  /** `<!-- shows: text -->`: what its output must hold, perhaps later. */
  readonly shows: readonly string[];
  /** `<!-- run -->`: of TypeScript, which is compiled anyway. */
  readonly run: boolean;
}

/** The pages that users read, from the root. */
export function pages(): string[] {
  const guide = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md')).sort();
  return ['README.md', ...guide.map((name) => `docs/${name}`), 'client/README.md', 'packaging/README.md', 'CONTRIBUTING.md'];
}

export function read(page: string): string {
  return readFileSync(join(ROOT, page), 'utf8');
}

/** `<!-- stack: orders, redis -->` says what runs while the page's blocks do. */
export function stackOf(text: string): string[] {
  return /^<!-- stack: (.*) -->$/m.exec(text)?.[1]?.split(', ') ?? [];
}

export function blocksOf(text: string): Block[] {
  const lines = text.split('\n');
  const blocks: Block[] = [];
  let remarks: string[] = [];
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    const fence = /^(\s*)```(\w*)$/.exec(line);
    if (fence !== null) {
      const end = lines.indexOf(`${fence[1] ?? ''}\`\`\``, at + 1);
      if (end < 0) throw new Error(`the block of line ${at + 1} does not end`);
      blocks.push(block(at + 1, fence[2] ?? '', lines.slice(at + 1, end).join('\n'), remarks));
      at = end;
      remarks = [];
    } else if (line.startsWith('<!-- ')) {
      const end = lines.findIndex((other, index) => index >= at && other.endsWith('-->'));
      remarks.push(lines.slice(at, end + 1).join('\n').slice('<!-- '.length, -'-->'.length).trim());
      at = end;
    } else {
      remarks = [];
    }
  }
  return blocks;
}

function block(line: number, language: string, text: string, remarks: readonly string[]): Block {
  const of = (kind: string): string[] => remarks.filter((remark) => remark.startsWith(`${kind}:`)).map((remark) => remark.slice(kind.length + 1).trim());
  const known = /^(not run|given|shows|stack):|^(keeps running|run)$/;
  const unknown = remarks.find((remark) => !known.test(remark));
  if (unknown !== undefined) throw new Error(`line ${line}: no remark reads ${JSON.stringify(unknown)}`);
  return { line, language, text, notRun: of('not run')[0], given: of('given').join('\n'), keepsRunning: remarks.includes('keeps running'), shows: of('shows'), run: remarks.includes('run') };
}

/** The anchors that headings give, as GitHub makes them. */
export function anchorsOf(text: string): Set<string> {
  const headings = [...withoutBlocks(text).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading ?? '');
  return new Set(headings.map((heading) => heading.toLowerCase().replace(/[^\p{L}\p{N}_ -]/gu, '').replaceAll(' ', '-')));
}

/** Where links lead that stay in this repository. */
export function linksOf(text: string): string[] {
  return [...withoutBlocks(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target ?? '').filter((target) => !/^[a-z]+:/.test(target));
}

function withoutBlocks(text: string): string {
  return text.replace(/^```.*?^```$/gms, '');
}
