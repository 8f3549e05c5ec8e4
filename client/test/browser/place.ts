/** A Postgres and a streamer of the test's own, and a page in Chromium: all real, all gone afterwards. */

import { createHmac } from 'node:crypto';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync, appendFileSync, openSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect, createServer as createSocket, type AddressInfo, type Server as SocketServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';

const SCHEMA = new URL('../../../examples/orders/schema.sql', import.meta.url).pathname;
export const CHROMIUM = process.env['HEADWATER_TEST_CHROMIUM'] ?? '/usr/bin/chromium';
const ROLE = 'headwater_streamer';
const PASSWORD = 'flows-downhill';
const PATIENCE_MS = 20_000;
/** Of the tokens that tests sign. */
const SECRET = 'a secret that only tests know: 32 bytes or more';
const AUDIENCE = 'cafe';

export function required(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set; run scripts/test browser, or docs`);
  return value;
}

function unprivileged(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const number = (flag: string): number => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: number('-u'), gid: number('-g') };
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const socket = createSocket();
    socket.listen(0, '127.0.0.1', () => {
      const { port } = socket.address() as AddressInfo;
      socket.close(() => resolve(port));
    });
  });
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, patienceMs = PATIENCE_MS): Promise<void> {
  const end = Date.now() + patienceMs;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`this did not come true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A Postgres with the orders example, and `headwater serve` on it. */
export class Place {
  private readonly scratch = mkdtempSync(join(tmpdir(), 'headwater-browser-'));
  private readonly bin = required('HEADWATER_TEST_PG_BIN');
  private readonly account = unprivileged();
  private postgres: ChildProcess | undefined;
  private streamer: ChildProcess | undefined;
  readonly postgresPort: number;
  readonly port: number;

  /** What the streamer is told by variables. */
  private readonly settings: Readonly<Record<string, string>>;

  private constructor(
    postgresPort: number,
    port: number,
    settings: Readonly<Record<string, string>>,
  ) {
    this.postgresPort = postgresPort;
    this.port = port;
    this.settings = settings;
  }

  /** `empty`: a database `app` with nothing in it, and nobody who serves it. */
  static async start(content: 'orders' | 'empty' = 'orders', settings: Readonly<Record<string, string>> = {}): Promise<Place> {
    const place = new Place(await freePort(), await freePort(), settings);
    try {
      await place.init(content);
    } catch (error) {
      await place.stop();
      throw error;
    }
    return place;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What stands here is served under /app/. */
  get pages(): string {
    return join(this.scratch, 'pages');
  }

  private get data(): string {
    return join(this.scratch, 'data');
  }

  private async init(content: 'orders' | 'empty'): Promise<void> {
    if (this.account.uid !== undefined && this.account.gid !== undefined) chownSync(this.scratch, this.account.uid, this.account.gid);
    const options = ['-D', this.data, '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8', '--auth=trust', '--no-sync'];
    execFileSync(join(this.bin, 'initdb'), options, { ...this.account, cwd: this.scratch, stdio: 'pipe' });
    writeFileSync(
      join(this.data, 'pg_hba.conf'),
      `host all ${ROLE} 127.0.0.1/32 scram-sha-256\nhost replication ${ROLE} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n`,
    );
    appendFileSync(join(this.data, 'postgresql.auto.conf'), "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwal_level = logical\nfsync = off\n");
    await this.startPostgres();
    this.program('psql', ['-d', 'postgres', '-c', `create database ${content === 'empty' ? 'app' : 'headwater'}`]);
    if (content === 'empty') return;
    this.sql(`create extension headwater; create role ${ROLE} login replication password '${PASSWORD}'; grant headwater_writer to ${ROLE};`);
    this.program('psql', ['-q', '-v', 'ON_ERROR_STOP=1', '-d', 'headwater', '-f', SCHEMA]);
    await this.startStreamer();
  }

  private async startPostgres(): Promise<void> {
    const log = openSync(join(this.scratch, 'postgres.log'), 'a', 0o666);
    this.postgres = spawn(join(this.bin, 'postgres'), ['-D', this.data, '-p', String(this.postgresPort)], { ...this.account, cwd: this.scratch, stdio: ['ignore', log, log] });
    await until('Postgres takes connections', () => {
      try {
        this.program('psql', ['-d', 'postgres', '-c', 'select 1']);
        return true;
      } catch {
        return false;
      }
    });
  }

  /** With `tokens`, callers are known by what `token` signs; else everybody may do everything. */
  async startStreamer(tokens: { readonly origin: string } | null = null): Promise<void> {
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HEADWATER_')));
    const log = openSync(join(this.scratch, 'streamer.log'), 'a');
    const access = tokens === null ? { HEADWATER_INSECURE: 'true' } : { HEADWATER_JWT_SECRET: SECRET, HEADWATER_JWT_AUDIENCE: AUDIENCE, HEADWATER_CORS_ORIGIN: tokens.origin };
    this.streamer = spawn(required('HEADWATER_TEST_STREAMER'), ['serve'], {
      env: { ...environment, ...access, ...this.settings, HEADWATER_PORT: String(this.port), HEADWATER_STATIC_DIR: this.pages, DATABASE_URL: `postgres://${ROLE}:${PASSWORD}@127.0.0.1:${this.postgresPort}/headwater` },
      stdio: ['ignore', log, log],
    });
    await until('the streamer is healthy', async () => (await fetch(`${this.url}/health`).catch(() => undefined))?.ok === true);
  }

  async stopStreamer(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const { streamer } = this;
    this.streamer = undefined;
    await ended(streamer, signal);
  }

  private async stopPostgres(): Promise<void> {
    const { postgres } = this;
    this.postgres = undefined;
    await ended(postgres, 'SIGINT');
  }

  /** Copies the database, cold. */
  async backup(): Promise<void> {
    await this.stopStreamer();
    await this.stopPostgres();
    execFileSync('cp', ['-a', '-T', this.data, join(this.scratch, 'backup')]);
    await this.startPostgres();
    await this.startStreamer();
  }

  /** Goes back to the copy, as an operator would: the history's epoch is raised. */
  async restore(): Promise<void> {
    await this.stopStreamer();
    await this.stopPostgres();
    rmSync(this.data, { recursive: true });
    execFileSync('cp', ['-a', '-T', join(this.scratch, 'backup'), this.data]);
    await this.startPostgres();
    this.sql('update headwater.meta set epoch = epoch + 1');
    await this.startStreamer();
  }

  /** A token of a user of the café that lives so long; the server bears with it for 30 s more. */
  token(user: string, seconds: number): string {
    const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: user, tenant_id: 'cafe', aud: AUDIENCE, exp: Math.floor(Date.now() / 1000) + seconds })}`;
    return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
  }

  /** An order as the table has it. */
  row(id: string): Record<string, unknown> | null {
    return JSON.parse(this.sql(`select coalesce((select to_jsonb(o) from orders o where id = '${id}'), 'null')`)) as Record<string, unknown> | null;
  }

  /** How many events of clients the order has. */
  eventsOf(id: string): number {
    return Number(this.sql(`select count(*) from headwater.event where entity_id = '${id}' and source = 'client'`));
  }

  /** Starts pgbench with a script; it runs until it is stopped. */
  pgbench(script: string, options: readonly string[]): Pgbench {
    const file = join(this.scratch, 'script.sql');
    writeFileSync(file, script);
    return new Pgbench(spawn(join(this.bin, 'pgbench'), ['-n', '-f', file, ...options, 'headwater'], { env: { ...process.env, ...this.access }, stdio: ['ignore', 'pipe', 'pipe'] }));
  }

  private get access(): Record<string, string> {
    return { PGHOST: '127.0.0.1', PGPORT: String(this.postgresPort), PGUSER: 'postgres' };
  }

  /** Runs statements as the superuser; the rows as text. */
  sql(statements: string): string {
    return this.program('psql', ['-q', '-t', '-A', '-v', 'ON_ERROR_STOP=1', '-d', 'headwater', '-c', statements]).trim();
  }

  private program(name: string, options: readonly string[]): string {
    return execFileSync(join(this.bin, name), [...options], { encoding: 'utf8', stdio: 'pipe', env: { ...process.env, ...this.access } });
  }

  /** Generates a client of what is served into a folder. */
  generate(folder: string): void {
    execFileSync(required('HEADWATER_TEST_STREAMER'), ['generate', `${this.url}/openapi.json`, '--output', folder], { stdio: 'pipe' });
  }

  /** What the server's logs say, for a test that failed. */
  logs(): string {
    return ['streamer.log', 'postgres.log'].map((name) => join(this.scratch, name)).filter(existsSync).map((file) => readFileSync(file, 'utf8').slice(-4000)).join('\n---\n');
  }

  async stop(): Promise<void> {
    await this.stopStreamer().catch(() => undefined);
    await this.stopPostgres().catch(() => undefined);
    rmSync(this.scratch, { recursive: true, force: true });
  }
}

/** A load that runs. */
export class Pgbench {
  private output = '';
  private readonly child: ChildProcess;

  constructor(child: ChildProcess) {
    this.child = child;
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
  }

  /** Whether it runs still, and none of its clients had an error. */
  get isWell(): boolean {
    return this.child.exitCode === null && !/error|abort/i.test(this.output);
  }

  /** What it printed. */
  get printed(): string {
    return this.output;
  }

  stop(): Promise<void> {
    return ended(this.child, 'SIGTERM');
  }
}

async function ended(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  const late = setTimeout(() => child.kill(signal === 'SIGINT' ? 'SIGQUIT' : 'SIGKILL'), PATIENCE_MS);
  await exit;
  clearTimeout(late);
}

/** The way from a device to the server, which can be cut: what is open on it breaks, and nothing new comes through. */
export class Wire {
  private isCut = false;
  private readonly open = new Set<Socket>();
  private readonly server: SocketServer;

  private constructor(port: number) {
    this.server = createSocket((near) => {
      if (this.isCut) {
        near.destroy();
        return;
      }
      const far = connect(port, '127.0.0.1');
      for (const [one, other] of [[near, far], [far, near]] as const) {
        this.open.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => {
          this.open.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
  }

  static async to(place: Place): Promise<Wire> {
    const wire = new Wire(place.port);
    await new Promise<void>((resolve) => wire.server.listen(0, '127.0.0.1', resolve));
    return wire;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  cut(isCut: boolean): void {
    this.isCut = isCut;
    if (isCut) for (const socket of this.open) socket.destroy();
  }

  end(): void {
    this.cut(true);
    this.server.close();
  }
}

/** Serves the page and drives Chromium. */
export class Browsers {
  private readonly server: Server;
  private readonly browser: Browser;

  private constructor(
    server: Server,
    browser: Browser,
  ) {
    this.server = server;
    this.browser = browser;
  }

  /** With the page of the tests, or another. */
  static async start(entry = new URL('./page.ts', import.meta.url).pathname): Promise<Browsers> {
    const bundle = await build({ entryPoints: [entry], bundle: true, format: 'esm', target: 'es2022', write: false, sourcemap: 'inline', jsx: 'automatic', define: { 'process.env.NODE_ENV': '"production"' } });
    const script = bundle.outputFiles[0]?.text ?? '';
    const server = createServer((request, response) => {
      const isScript = request.url?.startsWith('/page.js') === true;
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
      response.end(isScript ? script : '<!doctype html><title>orders</title><script type="module" src="/page.js"></script>');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
    return new Browsers(server, browser);
  }

  /** Where pages come from. */
  get origin(): string {
    return `http://localhost:${(this.server.address() as AddressInfo).port}`;
  }

  private address({ url }: { readonly url: string }, more: Readonly<Record<string, string>> = {}): string {
    return `${this.origin}/?${new URLSearchParams({ url, ...more }).toString()}`;
  }

  /** A device of its own: nothing is shared with the others. */
  async device(place: Place | Wire, more: Readonly<Record<string, string>> = {}): Promise<Device> {
    return new Device(await this.browser.newContext(), this.address(place, more));
  }

  /** A browser of its own, whose profile stays in `folder` when its processes are killed. */
  async process(place: Place | Wire, folder: string): Promise<{ device: Device; kill: () => Promise<void> }> {
    const port = join(folder, 'DevToolsActivePort');
    rmSync(port, { force: true });
    const child = spawn(CHROMIUM, ['--headless=new', '--no-sandbox', '--no-first-run', '--remote-debugging-port=0', `--user-data-dir=${folder}`, 'about:blank'], { stdio: 'ignore', detached: true });
    await until('Chromium can be reached', () => existsSync(port) && readFileSync(port, 'utf8').includes('\n'));
    const browser = await chromium.connectOverCDP(`http://127.0.0.1:${readFileSync(port, 'utf8').split('\n')[0] ?? ''}`);
    const [context] = browser.contexts();
    if (context === undefined) throw new Error('Chromium has no profile');
    const kill = async (): Promise<void> => {
      const exit = new Promise((resolve) => child.once('exit', resolve));
      // The whole group: renderers and the process that writes IndexedDB, too.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      await exit;
      await browser.close().catch(() => undefined);
    };
    return { device: new Device(context, this.address(place)), kill };
  }

  async stop(): Promise<void> {
    await this.browser.close();
    this.server.close();
  }
}

/** One browser profile. */
export class Device {
  private offline = false;

  readonly context: BrowserContext;
  private readonly address: string;

  constructor(
    context: BrowserContext,
    address: string,
  ) {
    this.context = context;
    this.address = address;
  }

  get origin(): string {
    return new URL(this.address).origin;
  }

  async tab(): Promise<Page> {
    const page = await this.context.newPage();
    await this.load(page);
    return page;
  }

  async load(page: Page): Promise<void> {
    await page.goto(this.address);
    await page.waitForFunction(() => 'client' in window || 'orders' in window || 'app' in window);
  }

  /** Cuts the device off from the server, or lets it back. The page itself still loads, as from a service worker. */
  async setOffline(offline: boolean): Promise<void> {
    if (offline === this.offline) return;
    this.offline = offline;
    if (offline) await this.context.route('**/api/v1/**', (route) => route.abort());
    else await this.context.unroute('**/api/v1/**');
  }
}
