/**
 * The client: what the generated code stands on. Records events, shows states, syncs in the background. Knows no React.
 */

import { formatMicros, parseMicros } from './clock.js';
import type { Configuration } from './configuration.js';
import { DebugLog } from './debugLog.js';
import { forPeople, versionOf, type EntityDefinition } from './entity.js';
import { HeadwaterError } from './error.js';
import { fromWire, nameOf, type EventDraft, type LocalEvent } from './event.js';
import type { Customs, State } from './fold.js';
import { checkedPayload, unfitText } from './payload.js';
import { misfit, ruleOf } from './rules.js';
import { wrongWith } from './schema.js';
import { Session } from './session.js';
import { StatusBoard, type RejectedEvent, type SyncStatus } from './status.js';
import { IdSource } from './uuid.js';
import { Views } from './views.js';

/** An event that was just recorded. */
export interface RecordedEvent {
  readonly event: LocalEvent;
  /** Resolves when it survives a crash. */
  readonly stored: Promise<void>;
}

/** How a state is asked for. */
export interface FetchOptions {
  /** As it was then: RFC 3339, or a date. */
  readonly asOf?: string | Date;
  readonly signal?: AbortSignal;
}

export class HeadwaterClient {
  readonly views: Views;
  readonly log = new DebugLog();
  private readonly declared: readonly EntityDefinition[];
  /** The declared ones, with the functions of the application that `configure` got. */
  private readonly definitions = new Map<string, EntityDefinition>();
  private readonly ids = new IdSource();
  private readonly board = new StatusBoard(() => this.session?.engine !== undefined);
  private session: Session | undefined;

  constructor(definitions: readonly EntityDefinition[]) {
    this.declared = definitions;
    for (const definition of definitions) this.definitions.set(definition.type, definition);
    this.views = new Views(this.definitions);
  }

  /** Opens the device's database of this server, tenant and user, and begins to sync. A former one is closed. */
  configure(configuration: Configuration): void {
    if (!/^https?:\/\//.test(configuration.url)) {
      throw new HeadwaterError('invalid_url', `url is "${configuration.url}"; it is the server's address and begins with http:// or https://, as https://sync.example`);
    }
    void this.close();
    const { merges = {}, lifts = {} } = configuration;
    for (const definition of this.declared) {
      this.definitions.set(definition.type, { ...definition, customs: { ...definition.customs, ...(merges as Customs) }, lifts: { ...definition.lifts, ...lifts } });
    }
    this.session = new Session(configuration, {
      definitions: this.definitions,
      views: this.views,
      board: this.board,
      log: this.log,
      retry: async ({ event_type, entity_type, entity_id, payload }) => this.recordEvent({ event_type, entity_type, entity_id, payload }).stored,
    });
  }

  /** Stops syncing and closes the database. What is unsent waits for the next time. */
  async close(): Promise<void> {
    const { session } = this;
    if (session === undefined) return;
    this.session = undefined;
    const ended = session.end();
    this.views.attach(undefined);
    this.board.clear();
    await ended;
  }

  /** Closes the database and removes it from the device, unsent events included. */
  async forget(): Promise<void> {
    const { session } = this;
    await this.close();
    await session?.store.destroy();
  }

  /**
   * Records that something happened. It is in the views when this returns, on the device a moment later, at the server when
   * there is a connection. Throws a HeadwaterError for what the server would refuse anyway, and when the device is full.
   */
  recordEvent(draft: EventDraft): RecordedEvent {
    const session = this.open();
    if (this.board.storage === 'full') {
      throw new HeadwaterError('storage_full', 'the device has no room left for events; free some space', { retryable: true });
    }
    const definition = this.definitionOf(draft.entity_type);
    const name = nameOf(draft);
    const rule = draft.event_type.startsWith(`${draft.entity_type}.`) ? ruleOf(definition.rules, name) : undefined;
    if (rule === undefined) {
      throw new HeadwaterError('unknown_event_type', `"${draft.event_type}" is no event of "${draft.entity_type}"; it has ${Object.keys(definition.rules).join(', ')}`);
    }
    const unfit = unfitId(draft.entity_id);
    if (unfit !== undefined) throw new HeadwaterError('invalid_payload', `entity_id ${unfit}`);
    const payload = checkedPayload(draft.payload);
    const { payloads = {} } = definition;
    const schema = Object.hasOwn(payloads, draft.event_type) ? payloads[draft.event_type] : undefined;
    const wrong = misfit(rule, payload) ?? (schema === undefined ? undefined : wrongWith(schema, payload));
    if (wrong !== undefined) throw new HeadwaterError('invalid_payload', `${draft.event_type}: ${wrong}`);
    const timestamp = session.clock.tick();
    const event: LocalEvent = Object.freeze({
      id: this.ids.next(timestamp),
      event_type: draft.event_type,
      entity_type: draft.entity_type,
      entity_id: draft.entity_id,
      payload,
      timestamp,
      user_id: session.configuration.userId ?? null,
      client_id: session.clientId,
      tenant_id: session.configuration.tenantId ?? null,
      status: 'pending',
      server_position: null,
      idempotency_key: draft.idempotency_key ?? null,
      schema_version: versionOf(definition, name),
      client_seq: 0,
      source: 'client',
      applies: true,
      recorded_at: null,
      rejection: null,
      again: null,
    });
    this.views.add(event);
    this.board.set({ counts: { ...this.board.counts, unsynced: this.board.counts.unsynced + 1 } });
    return { event, stored: session.record(event) };
  }

  /** The entity's state, once it is read from the device. Null if there is none. */
  async materialize(type: string, id: string): Promise<State | null> {
    this.open();
    return this.views.state([type, id]);
  }

  /** The entity's events on the device, in the order of the fold. Older ones are at the server: `history`. */
  async getEventsForEntity(type: string, id: string): Promise<readonly LocalEvent[]> {
    this.open();
    return this.views.events([type, id]);
  }

  /** The entity's state at the server: now, or as it was. Null if there is or was none. */
  async fetchState(type: string, id: string, { asOf, signal = new AbortController().signal }: FetchOptions = {}): Promise<State | null> {
    const { transport } = this.open();
    const { keyOf } = this.definitionOf(type);
    const state = asOf === undefined ? (await transport.entity(type, id, signal)).state : await transport.stateAt(type, id, instantOf(asOf), signal);
    return state === null ? null : { ...state, ...keyOf?.(id) };
  }

  /** Everything that happened to the entity, from the server; own events that it does not have yet at the end. */
  async history(type: string, id: string, signal: AbortSignal = new AbortController().signal): Promise<readonly LocalEvent[]> {
    const { transport } = this.open();
    const definition = this.definitionOf(type);
    const [theirs, ours] = await Promise.all([transport.history(type, id, signal), this.getEventsForEntity(type, id)]);
    const known = new Set(theirs.map((event) => event.id.toLowerCase()));
    return [...theirs.flatMap((event) => fromWire(event) ?? []).map((event) => forPeople(event, definition)), ...ours.filter((event) => event.server_position === null && !known.has(event.id))];
  }

  /** Sends soon, together with what else happens until then. */
  scheduleSync(): void {
    this.open().wake(false);
  }

  /** Sends now. Resolves when the server has judged everything recorded so far; rejects when a try fails. */
  async sync(): Promise<void> {
    await this.open().sync();
  }

  /** How syncing stands. */
  syncStatus(): SyncStatus {
    return this.board.status;
  }

  /** What the server refused. The array stays the same until it changes. */
  rejectedEvents(): readonly RejectedEvent[] {
    return this.board.rejected;
  }

  /** Calls `listener` when the status or the refused events change. */
  subscribeStatus(listener: () => void): () => void {
    return this.board.subscribe(listener);
  }

  /** What the sync engine did lately, one JSON object a line; without payloads and tokens. */
  exportDebugLog(): string {
    return this.log.export();
  }

  private open(): Session {
    if (this.session === undefined) throw new HeadwaterError('not_configured', 'call configure({ url }) first');
    return this.session;
  }

  private definitionOf(type: string): EntityDefinition {
    const definition = this.definitions.get(type);
    if (definition === undefined) {
      throw new HeadwaterError('unknown_entity_type', `no entity type is named "${type}"; there are ${[...this.definitions.keys()].join(', ')}`);
    }
    return definition;
  }
}

/** Of an entity's id, in bytes, as the server takes it. */
const MAX_ID_BYTES = 1024;

/** Why the server would refuse that id; undefined if it would not. The types say that it is a text; not everybody has types. */
function unfitId(id: unknown): string | undefined {
  if (typeof id !== 'string') return `must be a string, not ${id === null ? 'null' : typeof id}`;
  if (id === '') return 'is empty';
  const bytes = new TextEncoder().encode(id).length;
  if (bytes > MAX_ID_BYTES) return `has ${bytes} bytes; at most ${MAX_ID_BYTES} are taken`;
  return unfitText(id);
}

/** RFC 3339 to the microsecond: an event's own time must not lose its last digits. */
function instantOf(asOf: string | Date): string {
  const micros = typeof asOf === 'string' ? (parseMicros(asOf) ?? Date.parse(asOf) * 1000) : asOf.getTime() * 1000;
  if (Number.isFinite(micros)) return formatMicros(micros);
  throw new HeadwaterError('invalid_time', `asOf is "${String(asOf)}", which is no time; give a Date, or a text as 2026-01-02T03:04:05Z`);
}
