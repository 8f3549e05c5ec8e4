/** Events as they happen: by Server-Sent Events, or over a WebSocket where a proxy holds those back. Both bring the same blocks. */

import { HeadwaterError } from '../error.js';
import type { WireEvent } from '../event.js';
import { isObject, type JsonObject } from '../json.js';
import { Silence, SILENCE_MS } from './silence.js';
import { SseParser, type SseBlock } from './sse.js';
import { abortable, connectionError, malformed, type Transport } from './transport.js';

/** What a stream brings. */
export interface StreamPart {
  readonly events: readonly WireEvent[];
  /** The cursor behind them; null where there is none yet. */
  readonly cursor: string | null;
  /** The cursor belongs to another history: read everything anew. */
  readonly reset: boolean;
  /** The token has expired; the stream ends. */
  readonly expired: boolean;
}

/** What is asked for. */
export interface StreamQuery {
  readonly entity_type: string;
  readonly cursor?: string;
}

/** The code of a stream of entities whose events are not pushed (`notification: noop`). */
export const POLLING_ONLY = 'polling_only';

/** A stream's first word comes with its headers: one that has not said it by then is held back by something in between. */
const FIRST_WORD_MS = 10_000;

/** Characters that are read ahead, and that are written into the store in one go: two thousand events or so. A mutation waits behind them. */
const AHEAD = 1024 * 1024;

/** How the server closes a WebSocket for want of a good token. */
const CLOSE_UNAUTHENTICATED = 4401;
/** How it closes one that it refuses otherwise. */
const CLOSE_REFUSED = 4400;

/**
 * Events by SSE, in parts of what had arrived when the reader came for more. Ends when the server closes; throws when the
 * connection breaks or is silent for too long.
 */
export async function* streamBySse(transport: Transport, query: StreamQuery, signal: AbortSignal): AsyncGenerator<StreamPart> {
  const silence = new Silence();
  const { silenceMs = SILENCE_MS } = transport.options;
  const either = AbortSignal.any([signal, silence.signal]);
  const pieces = new Queue();
  try {
    silence.listen(Math.min(silenceMs, FIRST_WORD_MS));
    const response = await transport.request(`/events/stream?${new URLSearchParams({ ...query }).toString()}`, { headers: { accept: 'text/event-stream' } }, either);
    if (response.body === null) throw malformed('a body');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const readAhead = async (): Promise<void> => {
      for (;;) {
        const { done, value } = await abortable(reader.read(), either);
        silence.rest();
        if (done) return;
        pieces.push(value);
        if (await pieces.room()) silence.listen(silenceMs);
      }
    };
    readAhead().then(() => pieces.end(), (thrown: unknown) => pieces.end(thrown));
    try {
      yield* parts(pieces, transport);
    } finally {
      pieces.end();
      await reader.cancel().catch(() => undefined);
    }
  } catch (thrown) {
    throw silence.signal.aborted && !signal.aborted ? new HeadwaterError('silent', 'the stream fell silent', { retryable: true }) : connectionError(thrown);
  } finally {
    silence.rest();
  }
}

/** The same over a WebSocket. The token stands in the first message, never in the address. */
export async function* streamBySocket(transport: Transport, query: StreamQuery, signal: AbortSignal): AsyncGenerator<StreamPart> {
  const silence = new Silence();
  const pieces = new Queue();
  const { WebSocket = globalThis.WebSocket, tenantId, getToken, silenceMs = SILENCE_MS } = transport.options;
  const token = await abortable(transport.token(), signal);
  const socket = new WebSocket(`${transport.address.replace(/^http/, 'ws')}/events/ws`);
  const stop = (): void => pieces.end(signal.reason);
  const silent = (): void => pieces.end(new HeadwaterError('silent', 'the stream fell silent', { retryable: true }));
  signal.addEventListener('abort', stop);
  silence.signal.addEventListener('abort', silent);
  socket.onopen = () => {
    const who = token === null ? (tenantId === undefined || getToken !== undefined ? {} : { tenant_id: tenantId }) : { token };
    socket.send(JSON.stringify({ type: 'subscribe', ...query, ...who }));
  };
  silence.listen(Math.min(silenceMs, FIRST_WORD_MS));
  socket.onmessage = ({ data }: MessageEvent<string>) => {
    silence.listen(silenceMs);
    pieces.push(data);
  };
  socket.onclose = ({ code, reason }) => pieces.end(closed(code, reason));
  try {
    yield* parts(pieces, transport);
  } catch (thrown) {
    throw connectionError(thrown);
  } finally {
    signal.removeEventListener('abort', stop);
    silence.rest();
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
  }
}

/** Why a socket ended; undefined: the server has said goodbye. */
function closed(code: number, reason: string): Error | undefined {
  if (code === 1000 || code === 1001) return undefined;
  if (code === CLOSE_UNAUTHENTICATED) return new HeadwaterError(reason || 'unauthorized', 'the server refuses the token', { status: 401, retryable: true });
  if (code === CLOSE_REFUSED) return new HeadwaterError(reason || 'refused', 'the server refuses the stream', { status: reason === 'cursor_expired' ? 410 : 400, retryable: true });
  return new HeadwaterError('unreachable', `the WebSocket closed with ${code}`, { retryable: true });
}

async function* parts(pieces: Queue, transport: Transport): AsyncGenerator<StreamPart> {
  const parser = new SseParser();
  for (;;) {
    const waiting = await pieces.take();
    if (waiting === undefined) return;
    const part = partOf(waiting.flatMap((piece) => parser.push(piece)));
    if (part.expired) transport.tokenExpired();
    yield part;
    if (part.reset) return;
  }
}

function partOf(blocks: readonly SseBlock[]): StreamPart {
  const events: WireEvent[] = [];
  let cursor: string | null = null;
  for (const { id, event, data } of blocks) {
    if (event === 'headwater.reset') return { events, cursor, reset: true, expired: false };
    if (event === 'headwater.expired') return { events, cursor, reset: false, expired: true };
    if (event === 'headwater.error') throw refusal(data);
    // It passes over some of what was asked for, and its cursor moves on nevertheless: nothing of it may be taken.
    if (event === 'headwater.polling') throw new HeadwaterError(POLLING_ONLY, 'the server does not push events of some of these entities', { retryable: true });
    // Other words of the server's own are for newer clients.
    if (data !== null && !event.startsWith('headwater.')) events.push(parsed(data) as unknown as WireEvent);
    if (id !== '') cursor = id;
  }
  return { events, cursor, reset: false, expired: false };
}

function parsed(data: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    value = undefined;
  }
  if (!isObject(value)) throw malformed('JSON in its stream');
  return value;
}

function refusal(data: string | null): HeadwaterError {
  const { code, detail, status } = parsed(data ?? '{}');
  const text = typeof detail === 'string' ? detail : 'the server refuses the stream';
  return new HeadwaterError(typeof code === 'string' ? code : 'refused', text, { retryable: true, ...(typeof status === 'number' ? { status } : {}) });
}

/** What arrived and was not taken yet. */
class Queue {
  private pieces: string[] = [];
  private length = 0;
  private ended: { readonly reason: unknown } | undefined;
  private wake: () => void = () => undefined;
  private makeRoom: () => void = () => undefined;

  push(piece: string): void {
    this.pieces.push(piece);
    this.length += piece.length;
    this.wake();
  }

  /** Nothing more comes; with a reason, because of that. The first counts. */
  end(reason?: unknown): void {
    this.ended ??= { reason };
    this.wake();
    this.makeRoom();
  }

  /** Resolves when more may be read; false: nobody wants more. */
  async room(): Promise<boolean> {
    while (this.length > AHEAD && this.ended === undefined) await new Promise<void>((resolve) => (this.makeRoom = resolve));
    return this.ended === undefined;
  }

  /** What waits, at least one piece and no more than is good at once; undefined at the end. */
  async take(): Promise<readonly string[] | undefined> {
    while (this.pieces.length === 0) {
      if (this.ended?.reason !== undefined) throw this.ended.reason as Error;
      if (this.ended !== undefined) return undefined;
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    let count = 0;
    let length = 0;
    while (count < this.pieces.length && (count === 0 || length < AHEAD)) {
      length += this.pieces[count]?.length ?? 0;
      count += 1;
    }
    const taken = this.pieces.splice(0, count);
    this.length -= length;
    this.makeRoom();
    return taken;
  }
}
