/** What runs the blocks of one page: a Postgres, a streamer, perhaps Redis and nginx, and shells on them; all gone afterwards. */

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Place, freePort, required, until } from '../browser/place.js';
import type { Block } from './markdown.js';

/** Where Node finds the client's packages. */
export const OUT = new URL('./out/', import.meta.url).pathname;

/** The ports that pages name. On the machine that runs them others stand for these. */
const PORTS = ['4000', '4001', '4002', '5432', '54329', '6379', '8080', '8443', '9464'] as const;

/** Longer than any block takes. */
const PATIENCE_MS = 30_000;

interface Running {
  readonly process: ChildProcess;
  readonly exit: Promise<number | null>;
  output: string;
}

export class Shell {
  readonly folder: string;
  private readonly place: Place;
  private readonly ports: ReadonlyMap<string, string>;
  private readonly database: string;
  private readonly running: Running[] = [];
  private readonly awaited: (() => Promise<void>)[] = [];

  private constructor(folder: string, place: Place, database: string, ports: ReadonlyMap<string, string>) {
    this.folder = folder;
    this.place = place;
    this.database = database;
    this.ports = ports;
  }

  /** `orders`: what `make up` starts; `empty`: a database with nothing in it; `redis`: besides, a Redis. */
  static async start(page: string, text: string, stack: readonly string[]): Promise<Shell> {
    const folder = join(OUT, page.replace(/\W+/g, '-'));
    mkdirSync(join(folder, 'bin'), { recursive: true });
    symlinkSync(required('HEADWATER_TEST_STREAMER'), join(folder, 'bin/headwater'));
    const content = stack.includes('orders') ? 'orders' : 'empty';
    const place = await Place.start(content);
    const ports = new Map<string, string>();
    for (const port of PORTS) {
      if (text.includes(port) || stack.includes('redis')) ports.set(port, String(await freePort()));
    }
    ports.set('4000', String(place.port)).set('5432', String(place.postgresPort)).set('54329', String(place.postgresPort));
    const shell = new Shell(folder, place, content === 'orders' ? 'headwater' : 'app', ports);
    if (stack.includes('redis')) await shell.background("redis-server --bind 127.0.0.1 --port 6379 --save '' --daemonize no", 'Ready to accept connections');
    return shell;
  }

  /** Runs a block; throws what it says if it fails. */
  async run(block: Block): Promise<void> {
    const code = [block.given, block.text].filter((part) => part !== '').join('\n');
    if (/…/.test(block.text)) throw new Error('it has a … for something that the reader does not know: write what would stand there');
    if (block.language === 'sql') await this.foreground(`psql -X -q -v ON_ERROR_STOP=1 "$DATABASE_URL"`, block.shows, this.adapt(code));
    else if (block.language === 'nginx') await this.nginx(code);
    else if (block.keepsRunning) await this.watch(code, block.shows);
    else await this.foreground(this.adapt(code), block.shows);
  }

  /** What blocks that keep running must have shown by now. */
  async finish(): Promise<void> {
    for (const check of this.awaited) await check();
  }

  async stop(): Promise<void> {
    for (const { process, exit } of this.running) {
      kill(process, 'SIGTERM');
      const late = setTimeout(() => kill(process, 'SIGKILL'), 5000);
      await exit;
      clearTimeout(late);
    }
    await this.place.stop();
  }

  logs(): string {
    return this.place.logs();
  }

  /** TypeScript is bundled and run by Node, to its end or until it has shown what it should. */
  async node(bundle: string, shows: readonly string[]): Promise<void> {
    const file = join(this.folder, 'run.mjs');
    writeFileSync(file, this.adapt(bundle));
    await this.background(`node ${file}`, ...shows);
  }

  adapt(text: string): string {
    return text.replace(new RegExp(`\\b(${PORTS.join('|')})\\b`, 'g'), (port) => this.ports.get(port) ?? port);
  }

  private async foreground(code: string, shows: readonly string[], input?: string): Promise<void> {
    const run = this.spawn(code);
    run.process.stdin?.end(input);
    const late = setTimeout(() => kill(run.process, 'SIGKILL'), PATIENCE_MS);
    const status = await run.exit;
    clearTimeout(late);
    if (status !== 0) throw new Error(`it ends with ${String(status)}:\n${run.output}`);
    for (const text of shows) {
      if (!run.output.includes(this.adapt(text))) throw new Error(`it does not show ${JSON.stringify(text)}, but:\n${run.output}`);
    }
  }

  /** A server is awaited until it is healthy, a reader until it is connected. */
  private async watch(code: string, shows: readonly string[]): Promise<void> {
    const [serves, subscribes] = [code.includes('headwater serve'), code.includes('redis-cli')];
    const before = serves || subscribes ? 0 : await this.clients();
    const run = this.spawn(this.adapt(code));
    this.running.push(run);
    const ends = (): void => {
      if (run.process.exitCode !== null) throw new Error(`it ended with ${String(run.process.exitCode)}:\n${run.output}`);
    };
    if (serves) {
      const port = /--port (\d+)/.exec(code)?.[1] ?? '4000';
      await until('the streamer is healthy', async () => {
        ends();
        return (await fetch(this.adapt(`http://127.0.0.1:${port}/health`)).catch(() => undefined))?.ok === true;
      });
    } else if (subscribes) {
      await until('Redis knows of the subscription', () => {
        ends();
        return run.output.includes('subscribe');
      });
    } else {
      await until('somebody watches', async () => {
        ends();
        return (await this.clients()) > before;
      });
    }
    this.awaited.push(async () => {
      for (const text of shows) {
        await until(`it shows ${JSON.stringify(text)}`, () => run.output.includes(text)).catch((error: unknown) => {
          throw new Error(`${String(error)}\n${run.output}`);
        });
      }
    });
  }

  private async background(code: string, ...shows: string[]): Promise<void> {
    const run = this.spawn(this.adapt(code));
    this.running.push(run);
    for (const text of shows) {
      await until(`it shows ${JSON.stringify(text)}`, () => {
        if (!run.output.includes(text) && run.process.exitCode !== null) throw new Error(`it ended with ${String(run.process.exitCode)}:\n${run.output}`);
        return run.output.includes(text);
      }).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${run.output}`);
      });
    }
  }

  /** What a page shows of a configuration stands within `http`. */
  private async nginx(code: string): Promise<void> {
    const folder = join(this.folder, 'nginx');
    mkdirSync(folder, { recursive: true });
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join(' ');
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off; pid ${folder}/pid; error_log stderr notice; worker_processes 1; events {}\nhttp { access_log off; ${paths}\n${this.adapt(code).replaceAll('/var/cache/nginx', folder)}\n}\n`,
    );
    await this.background(`nginx -p ${folder} -c ${folder}/nginx.conf`, 'start worker process');
  }

  private async clients(): Promise<number> {
    const answer = await fetch(this.adapt('http://127.0.0.1:4000/metrics'));
    return [...(await answer.text()).matchAll(/^headwater_clients\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  private spawn(code: string): Running {
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HEADWATER_')));
    const child = spawn('bash', ['-euo', 'pipefail', '-c', code], {
      cwd: this.folder,
      // A group of its own: what a block started ends with it.
      detached: true,
      env: {
        ...environment,
        PATH: [join(this.folder, 'bin'), required('HEADWATER_TEST_PG_BIN'), dirname(process.execPath), environment['PATH']].join(':'),
        DATABASE_URL: `postgres://postgres@127.0.0.1:${this.place.postgresPort}/${this.database}`,
        HEADWATER_PORT: String(this.place.port),
        HEADWATER_URL: this.place.url,
      },
    });
    const run: Running = { process: child, exit: new Promise((resolve) => child.once('exit', resolve)), output: '' };
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (run.output += data.toString()));
    return run;
  }
}

function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It is gone already.
  }
}

/** Nothing of an earlier run. */
export function clean(): void {
  rmSync(OUT, { recursive: true, force: true });
}
