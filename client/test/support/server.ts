/**
 * A model of the server behind `fetch`: receipts, positions, the fold, cursors with an epoch, the stream. It says what
 * docs/http.md says, from memory, and can be told to fail in every way a network fails.
 */

import { formatMicros, parseMicros } from '../../src/clock.js';
import type { EntityDefinition } from '../../src/entity.js';
import { compareEvents, fold, type FoldEvent, type State } from '../../src/fold.js';
import type { JsonObject } from '../../src/json.js';
import { ruleOf } from '../../src/rules.js';

interface Stored extends FoldEvent {
  readonly position: number;
  readonly wire: JsonObject;
}

/** What the network does to one request; tests script it. */
export type Fault = 'none' | 'lost' | 'answer lost' | 'twice' | 'slow' | 'unavailable';

export interface ServerOptions {
  /** Whether it offers snapshots and single entities. */
  readonly snapshots?: boolean;
  /** Microseconds. */
  readonly now?: () => number;
  /** Refuses an event with a code. */
  readonly judge?: (event: JsonObject) => string | undefined;
  /** Whether events are to be polled: streams say so, and pass over them. */
  readonly pushesNothing?: boolean;
  /** Whether the token lets in. */
  readonly admits?: (authorization: string | null) => boolean;
}

const SKEW_MICROS = 300_000_000;

export class ModelServer {
  events: Stored[] = [];
  fault: () => Fault = () => 'none';
  /** Every id of every batch that arrived, in order. */
  readonly posted: string[] = [];
  readonly requests: string[] = [];
  private receipts = new Map<string, JsonObject | null>();
  private position = 0;
  private epoch = 1;
  private readonly streams = new Set<() => void>();
  private backup: { events: Stored[]; receipts: Map<string, JsonObject | null>; position: number } | undefined;

  private readonly definition: EntityDefinition;
  private readonly options: ServerOptions;

  constructor(
    definition: EntityDefinition,
    options: ServerOptions = {},
  ) {
    this.definition = definition;
    this.options = options;
  }

  /** What clients call. */
  readonly fetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(input instanceof Request ? input.url : input);
    const path = url.pathname.replace('/api/v1', '');
    this.requests.push(path);
    init.signal?.throwIfAborted();
    const fault = this.fault();
    await new Promise((resolve) => setTimeout(resolve, fault === 'slow' ? 20 : 0));
    init.signal?.throwIfAborted();
    if (fault === 'lost') throw new TypeError('failed to fetch');
    if (fault === 'unavailable') return problem(503, 'unavailable');
    if (this.options.admits?.(new Headers(init.headers).get('authorization')) === false) return problem(401, 'unauthorized');
    const answer = await this.answer(path, url, init);
    if (fault === 'twice' && path === '/events/batch') await this.answer(path, url, init);
    if (fault === 'answer lost') throw new TypeError('connection reset');
    return answer;
  };

  /** A write of somebody else, captured. */
  capture(name: string, entityId: string, payload: JsonObject, timestamp = this.now()): void {
    const id = `0190b0b0-0000-7000-9000-${String(this.position).padStart(12, '0')}`;
    this.store({ id, timestamp, name, captured: true, payload }, entityId, {});
  }

  /** The truth. */
  state(entityId: string): State | null {
    return fold(null, this.of(entityId), this.definition.rules, this.definition.customs);
  }

  /** The cursor behind everything. */
  head(): string {
    return this.cursor(this.position);
  }

  entityIds(): string[] {
    return [...new Set(this.events.map((event) => String(event.wire['entity_id'])))];
  }

  breakStreams(): void {
    for (const end of [...this.streams]) end();
  }

  /** The streams' token has expired. */
  expireStreams(): void {
    for (const say of [...this.goodbyes]) say();
  }

  makeBackup(): void {
    this.backup = { events: [...this.events], receipts: new Map(this.receipts), position: this.position };
  }

  /** What came after the backup is lost; cursors from before are refused. */
  restoreBackup(): void {
    if (this.backup === undefined) return;
    ({ events: this.events, position: this.position } = { ...this.backup, events: [...this.backup.events] });
    this.receipts = new Map(this.backup.receipts);
    this.epoch += 1;
    this.breakStreams();
  }

  private now(): number {
    return this.options.now?.() ?? Date.now() * 1000;
  }

  private of(entityId: string): Stored[] {
    return this.events.filter((event) => event.wire['entity_id'] === entityId && event.wire['applies'] !== false);
  }

  private async answer(path: string, url: URL, init: RequestInit): Promise<Response> {
    const [, entities, type = '', id] = path.split('/');
    if (path === '/events/batch') return Response.json(this.batch(await bodyOf(init)));
    if (path === '/events/since') return this.since(url);
    if (path === '/events/stream') return this.stream(url, init.signal ?? undefined);
    if (entities !== 'entities' || this.options.snapshots !== true) return problem(404, 'not_found');
    if (id === 'snapshot') return this.snapshot();
    const one = this.stateRow(decodeURIComponent(id ?? ''));
    return one === undefined ? problem(404, 'not_found') : Response.json({ ...one, entity_type: type });
  }

  private batch(body: JsonObject): JsonObject {
    const accepted: string[] = [];
    const rejected: JsonObject[] = [];
    (body['events'] as readonly JsonObject[]).forEach((event, index) => {
      const id = String(event['id']);
      this.posted.push(id);
      const sent = parseMicros(String(event['timestamp'])) ?? NaN;
      let verdict = this.receipts.get(id);
      if (verdict === undefined) {
        if (sent > this.now() + SKEW_MICROS) {
          rejected.push({ id, index, code: 'clock_skew', reason: 'ahead', server_time: formatMicros(this.now()) });
          return;
        }
        const name = String(event['event_type']).split('.')[1] ?? '';
        const code = this.options.judge?.(event) ?? (ruleOf(this.definition.rules, name) === undefined ? 'unknown_event_type' : undefined);
        verdict = code === undefined ? null : { code, reason: `refused: ${code}` };
        this.receipts.set(id, verdict);
        if (verdict === null) {
          const timestamp = Math.min(sent, this.now());
          this.store({ id, timestamp, name, captured: false, payload: event['payload'] as JsonObject }, String(event['entity_id']), event);
        }
      }
      if (verdict === null) accepted.push(id);
      else rejected.push({ id, index, ...verdict });
    });
    return { accepted, rejected, cursor: this.cursor(this.position) };
  }

  private store(event: FoldEvent, entityId: string, sent: JsonObject): void {
    this.position += 1 + (this.position % 3);
    const wire: JsonObject = {
      id: event.id,
      position: this.position,
      entity_type: this.definition.type,
      entity_id: entityId,
      event_type: `${this.definition.type}.${event.name}`,
      payload: event.payload,
      schema_version: sent['schema_version'] ?? 1,
      timestamp: formatMicros(event.timestamp),
      recorded_at: formatMicros(this.now()),
      user_id: sent['user_id'] ?? null,
      client_id: sent['client_id'] ?? null,
      tenant_id: sent['tenant_id'] ?? null,
      source: event.captured ? 'capture' : 'client',
      applies: true,
    };
    this.events.push({ ...event, position: this.position, wire });
    for (const wake of [...this.wakes]) wake();
  }

  private readonly wakes = new Set<() => void>();
  private readonly goodbyes = new Set<() => void>();

  private cursor(position: number): string {
    return `${this.epoch}-${position}`;
  }

  private positionOf(cursor: string | null): number | undefined {
    if (cursor === null) return 0;
    const [epoch, position] = cursor.split('-').map(Number);
    return epoch === this.epoch ? position : undefined;
  }

  private since(url: URL): Response {
    const after = this.positionOf(url.searchParams.get('cursor'));
    if (after === undefined) return problem(410, 'cursor_expired');
    const limit = Math.min(Number(url.searchParams.get('limit') ?? 100), 7);
    const entity = url.searchParams.get('entity_id');
    const found = this.events.filter((event) => event.position > after && (entity === null || event.wire['entity_id'] === entity));
    const page = found.slice(0, limit);
    const upTo = found.length > limit ? (page.at(-1)?.position ?? after) : this.position;
    return Response.json({ events: page.map((event) => event.wire), cursor: this.cursor(upTo), has_more: found.length > limit });
  }

  private stream(url: URL, signal: AbortSignal | undefined): Response {
    const cursor = url.searchParams.get('cursor');
    let at = cursor === null ? this.position : this.positionOf(cursor);
    const encoder = new TextEncoder();
    let wake: () => void = () => undefined;
    let end: () => void = () => undefined;
    const stop = (): void => {
      this.wakes.delete(wake);
      this.streams.delete(end);
      this.goodbyes.delete(goodbye);
    };
    let goodbye: () => void = () => undefined;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const send = (text: string): void => controller.enqueue(encoder.encode(text));
        if (at === undefined) {
          send('id:\nevent: headwater.reset\ndata: {"code":"cursor_expired"}\n\n');
          controller.close();
          return;
        }
        send(`retry: 1000\nid: ${this.cursor(at)}\n\n`);
        if (this.options.pushesNothing === true) send('event: headwater.polling\ndata: {"entity_types":["order"]}\n\n');
        wake = () => {
          for (const event of this.events) {
            if (event.position <= (at ?? 0)) continue;
            at = event.position;
            if (this.options.pushesNothing === true) {
              send(`id: ${this.cursor(at)}\n\n`);
              continue;
            }
            const text = `id: ${this.cursor(at)}\nevent: ${String(event.wire['event_type'])}\ndata: ${JSON.stringify(event.wire)}\n\n`;
            // In two pieces: blocks arrive torn.
            send(text.slice(0, 20));
            send(text.slice(20));
          }
        };
        end = () => {
          if (!this.streams.has(end)) return;
          stop();
          controller.error(new TypeError('connection reset'));
        };
        goodbye = () => {
          stop();
          send('event: headwater.expired\ndata: {"code":"token_expired"}\n\n');
          controller.close();
        };
        this.goodbyes.add(goodbye);
        signal?.addEventListener('abort', end);
        this.wakes.add(wake);
        this.streams.add(end);
        wake();
      },
      cancel: stop,
    });
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  }

  private stateRow(entityId: string): JsonObject | undefined {
    const ordered = [...this.of(entityId)].sort(compareEvents);
    const last = ordered.at(-1);
    const state = this.state(entityId);
    if (last === undefined || state === null) return undefined;
    return {
      entity_id: entityId,
      state,
      position: Math.max(...ordered.map((event) => event.position)),
      last: { timestamp: formatMicros(last.timestamp), id: last.id },
    };
  }

  private snapshot(): Response {
    const rows = this.entityIds().flatMap((id) => this.stateRow(id) ?? []);
    const lines = [...rows, { cursor: this.cursor(this.position) }].map((row) => `${JSON.stringify(row)}\n`);
    return new Response(lines.join(''));
  }
}

async function bodyOf(init: RequestInit): Promise<JsonObject> {
  const body = new Response(init.body ?? '');
  const packed = new Headers(init.headers).get('content-encoding') === 'gzip';
  const text = packed ? new Response(body.body?.pipeThrough(new DecompressionStream('gzip'))) : body;
  return (await text.json()) as JsonObject;
}

function problem(status: number, code: string): Response {
  return Response.json({ code, title: code }, { status, headers: { 'content-type': 'application/problem+json' } });
}
