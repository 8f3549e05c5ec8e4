/** The server's HTTP API, as docs/http.md describes it. Every failure is a HeadwaterError that says whether to try again. */

import { asError, HeadwaterError } from '../error.js';
import { toWire, type Baseline, type LocalEvent, type Rejection, type WireEvent } from '../event.js';
import { parseMicros } from '../clock.js';
import { isObject, type JsonObject } from '../json.js';
import { Silence, SILENCE_MS } from './silence.js';
import type { Verdicts } from '../store/outbox.js';

/** Gives the token for the next request. `refresh` is true after the server has refused the last one. */
export type GetToken = (options: { readonly refresh: boolean }) => Promise<string | null> | string | null;

export interface TransportOptions {
  /** The server's address, without `/api/v1`. */
  readonly url: string;
  readonly getToken?: GetToken;
  /** Narrows what a server without tokens tells; a token's tenant stands in the token. */
  readonly tenantId?: string;
  readonly fetch?: typeof globalThis.fetch;
  readonly WebSocket?: typeof globalThis.WebSocket;
  /** How long an answer may take. */
  readonly timeoutMs?: number;
  /** How long a stream may be silent. The server says something every 15 s. */
  readonly silenceMs?: number;
}

export interface Page {
  readonly events: readonly WireEvent[];
  readonly cursor: string;
  readonly has_more: boolean;
}

/** One answer to a batch. */
export interface BatchAnswer extends Verdicts {
  /** Where events were refused for being dated ahead: the server's time in microseconds. */
  readonly serverTime: number | null;
  /** A cursor of the history that has these events now. */
  readonly cursor: string | null;
}

/** A body below this many characters is not worth packing. */
const GZIP_FROM = 1024;
/** The API stands under this path. */
const PREFIX = '/api/v1';

export class Transport {
  readonly options: TransportOptions;
  private readonly fetch: typeof globalThis.fetch;
  /** The server said that the token has expired. */
  private expired = false;

  constructor(options: TransportOptions) {
    this.options = options;
    this.fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  /** Posts a batch of own events. */
  async batch(events: readonly LocalEvent[], signal: AbortSignal): Promise<BatchAnswer> {
    const text = JSON.stringify({ events: events.map(toWire) });
    const packed = text.length >= GZIP_FROM && 'CompressionStream' in globalThis ? await gzip(text) : undefined;
    const headers = { 'content-type': 'application/json', ...(packed === undefined ? {} : { 'content-encoding': 'gzip' }) };
    const answer = await this.json('/events/batch', { method: 'POST', headers, body: packed ?? text }, signal);
    const accepted = answer['accepted'];
    const rejected = answer['rejected'];
    if (!Array.isArray(accepted) || !Array.isArray(rejected)) throw malformed('accepted and rejected');
    const refusals = (rejected as readonly JsonObject[]).map((one) => {
      const index = typeof one['index'] === 'number' ? one['index'] : -1;
      const id = typeof one['id'] === 'string' ? one['id'].toLowerCase() : events[index]?.id;
      const { id: _id, index: _index, ...said } = one;
      const rejection: Rejection = { code: 'unknown', reason: '', ...said };
      return { id: id ?? '', rejection };
    });
    const skewed = refusals.find(({ rejection }) => rejection.code === 'clock_skew')?.rejection['server_time'];
    return {
      accepted: accepted.map((id) => String(id).toLowerCase()),
      rejected: refusals,
      cursor: typeof answer['cursor'] === 'string' ? answer['cursor'] : null,
      serverTime: typeof skewed === 'string' ? (parseMicros(skewed) ?? null) : null,
    };
  }

  /** A page of events behind `cursor`, or from the beginning. */
  async since(query: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Page> {
    const answer = await this.json(`/events/since?${new URLSearchParams(query).toString()}`, {}, signal);
    if (!Array.isArray(answer['events']) || typeof answer['cursor'] !== 'string') throw malformed('events and cursor');
    return answer as unknown as Page;
  }

  /**
   * The state of every entity of a type, and the cursor to go on from. `take` gets them in chunks. Undefined if the server
   * does not offer snapshots.
   */
  async snapshot(type: string, chunk: number, take: (states: Baseline[]) => Promise<void>, signal: AbortSignal): Promise<string | undefined> {
    const silence = new Silence();
    const { silenceMs = SILENCE_MS } = this.options;
    const either = AbortSignal.any([signal, silence.signal]);
    try {
      silence.listen(silenceMs);
      const response = await this.request(`/entities/${encodeURIComponent(type)}/snapshot`, { headers: { accept: 'application/x-ndjson' } }, either);
      let cursor = response.headers.get('headwater-cursor') ?? undefined;
      let states: Baseline[] = [];
      let complete = false;
      for await (const line of lines(response, either)) {
        silence.rest();
        const row = rowOf(line);
        if (typeof row['cursor'] === 'string') {
          cursor = row['cursor'];
          complete = true;
        } else {
          states.push(baselineOf(type, row));
        }
        if (states.length >= chunk) {
          await take(states);
          states = [];
        }
        silence.listen(silenceMs);
      }
      silence.rest();
      await take(states);
      if (cursor === undefined || !complete) throw incomplete();
      return cursor;
    } catch (thrown) {
      if (isMissing(thrown)) return undefined;
      throw silence.signal.aborted && !signal.aborted ? timedOut() : thrown;
    } finally {
      silence.rest();
    }
  }

  /** One entity's state as it was at an instant (RFC 3339); null where there was none. */
  async stateAt(type: string, id: string, instant: string, signal: AbortSignal): Promise<JsonObject | null> {
    try {
      const { state = null } = await this.json(`/entities/${encodeURIComponent(type)}/${encodeURIComponent(id)}?as_of=${encodeURIComponent(instant)}`, {}, signal);
      return isObject(state) ? state : null;
    } catch (thrown) {
      if (isMissing(thrown)) return null;
      throw thrown;
    }
  }

  /** One entity's state; `state: null` where there is none. */
  async entity(type: string, id: string, signal: AbortSignal): Promise<Baseline> {
    try {
      const row = await this.json(`/entities/${encodeURIComponent(type)}/${encodeURIComponent(id)}`, {}, signal);
      return baselineOf(type, { ...row, entity_id: id });
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
      return baselineOf(type, { entity_id: id, state: null });
    }
  }

  /** What happened to an entity, from the server. */
  async history(type: string, id: string, signal: AbortSignal): Promise<readonly WireEvent[]> {
    const events: WireEvent[] = [];
    let cursor: string | undefined;
    for (;;) {
      const page = await this.since({ entity_type: type, entity_id: id, limit: '1000', ...(cursor === undefined ? {} : { cursor }) }, signal);
      events.push(...page.events);
      if (!page.has_more) return events;
      cursor = page.cursor;
    }
  }

  private async json(path: string, init: RequestInit, signal: AbortSignal): Promise<JsonObject> {
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), this.options.timeoutMs ?? 30_000);
    try {
      const response = await this.request(path, init, AbortSignal.any([signal, timeout.signal]));
      const answer = await jsonOf(response);
      if (!isObject(answer)) throw malformed('an object');
      return answer;
    } catch (thrown) {
      throw timeout.signal.aborted && !signal.aborted ? timedOut() : connectionError(thrown);
    } finally {
      clearTimeout(timer);
    }
  }

  private withTenant(path: string): string {
    const { tenantId, getToken } = this.options;
    if (tenantId === undefined || getToken !== undefined || path === '/events/batch') return path;
    return `${path}${path.includes('?') ? '&' : '?'}tenant_id=${encodeURIComponent(tenantId)}`;
  }

  /** An answer of 2xx; a refused token is asked for anew, once. */
  async request(path: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
    for (const again of [false, true]) {
      const token = await abortable(this.token(again), signal);
      const headers = new Headers(init.headers);
      if (token !== null) headers.set('authorization', `Bearer ${token}`);
      let response: Response;
      try {
        response = await this.fetch(`${this.address}${this.withTenant(path)}`, { ...init, headers, signal, cache: 'no-store', credentials: 'omit' });
      } catch (thrown) {
        throw connectionError(thrown);
      }
      if (response.ok) return response;
      const error = await problemOf(response, path);
      if (response.status !== 401 || again || this.options.getToken === undefined) throw error;
    }
    throw new HeadwaterError('unauthorized', 'the server refuses the token', { status: 401, retryable: true });
  }

  /** Where the API stands. */
  get address(): string {
    return `${this.options.url.replace(/\/+$/, '')}${PREFIX}`;
  }

  /** The token to present next; a new one where the server has refused or outlived the last. */
  async token(refresh = false): Promise<string | null> {
    const anew = refresh || this.expired;
    try {
      const token = (await this.options.getToken?.({ refresh: anew })) ?? null;
      this.expired = false;
      return token;
    } catch (thrown) {
      throw new HeadwaterError('no_token', `getToken failed: ${asError(thrown).message}`, { retryable: true, cause: thrown });
    }
  }

  /** The server said that the token has expired, or refused it. */
  tokenExpired(): void {
    this.expired = true;
  }
}

async function problemOf(response: Response, path: string): Promise<HeadwaterError> {
  const said: unknown = await response.json().catch(() => undefined);
  const { code, detail, title } = isObject(said) ? said : {};
  const { status } = response;
  const retryAfter = Number(response.headers.get('retry-after') ?? NaN);
  const [place = path] = path.split('?');
  const details = {
    status,
    // 401 and 403 may end with the next token; what the request itself is wrong about will not.
    retryable: status >= 500 || status === 401 || status === 403 || status === 408 || status === 425 || status === 429,
    ...(Number.isFinite(retryAfter) ? { retryAfterMs: retryAfter * 1000 } : {}),
  };
  if (typeof code !== 'string') {
    return new HeadwaterError(`${NOT_OURS}${status}`, `${place} was answered with ${status}, and not by Headwater: look at the address, and at what stands before the server`, details);
  }
  const text = [detail, title].find((one) => typeof one === 'string');
  return new HeadwaterError(code, text ?? `the server answered ${status}`, details);
}

/** With such codes begin answers that no Headwater gave: a proxy's, or another server's. */
const NOT_OURS = 'http_';

/** Whether Headwater itself says that there is no such thing. A proxy's 404 says nothing of what the server has. */
function isMissing(thrown: unknown): boolean {
  return thrown instanceof HeadwaterError && thrown.details.status === 404 && !thrown.code.startsWith(NOT_OURS);
}

/** What Headwater says of a batch that will be wrong the next time, too. */
const REFUSALS: readonly string[] = ['malformed_json', 'not_utf8', 'invalid_batch'];

/** Whether a batch was refused for what is in it. A proxy may find it too large; whatever else one says may be over in a minute. */
export function isRefusal(thrown: unknown): thrown is HeadwaterError {
  return thrown instanceof HeadwaterError && (thrown.details.status === 413 || REFUSALS.includes(thrown.code));
}

async function jsonOf(response: Response): Promise<unknown> {
  const text = await response.text();
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw malformed('JSON');
  }
}

function rowOf(line: string): JsonObject {
  try {
    return JSON.parse(line) as JsonObject;
  } catch {
    // Cut off in the middle.
    throw incomplete();
  }
}

function incomplete(): HeadwaterError {
  return new HeadwaterError('incomplete', 'the snapshot broke off', { retryable: true });
}

function timedOut(): HeadwaterError {
  return new HeadwaterError('timeout', 'the server did not answer in time', { retryable: true });
}

/** What fetch and streams throw means that the network failed. */
export function connectionError(thrown: unknown): Error {
  if (thrown instanceof HeadwaterError) return thrown;
  const error = asError(thrown);
  return new HeadwaterError('unreachable', `the server cannot be reached: ${error.message}`, { retryable: true, cause: error });
}

export function malformed(what: string): HeadwaterError {
  return new HeadwaterError('malformed_answer', `the server's answer lacks ${what}; is this address Headwater's?`, { retryable: true });
}

function baselineOf(type: string, row: JsonObject): Baseline {
  const { entity_id, state, position, last } = row;
  const stamp = isObject(last) && typeof last['timestamp'] === 'string' ? parseMicros(last['timestamp']) : undefined;
  return {
    entity_type: type,
    entity_id: typeof entity_id === 'string' ? entity_id : '',
    state: isObject(state) ? state : null,
    position: typeof position === 'number' ? position : 0,
    last: isObject(last) && stamp !== undefined && typeof last['id'] === 'string' ? { timestamp: stamp, id: last['id'].toLowerCase() } : null,
  };
}

async function* lines(response: Response, signal: AbortSignal): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await abortable(reader.read(), signal);
      if (done) break;
      const parts = (rest + value).split('\n');
      rest = parts.pop() ?? '';
      for (const line of parts) if (line.trim() !== '') yield line;
    }
    if (rest.trim() !== '') yield rest;
  } catch (thrown) {
    throw connectionError(thrown);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** A promise that a signal can cut short: not every fetch ends its body's reads itself. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => undefined);
  if (signal.aborted) throw asError(signal.reason);
  let abort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(asError(signal.reason));
    signal.addEventListener('abort', abort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (abort !== undefined) signal.removeEventListener('abort', abort);
  }
}

async function gzip(text: string): Promise<ArrayBuffer> {
  return new Response(new Blob([text]).stream().pipeThrough(new CompressionStream('gzip'))).arrayBuffer();
}

