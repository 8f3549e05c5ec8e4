/** Events: as they travel, and as they lie in the device's store. */

import { formatMicros, parseMicros } from './clock.js';
import type { JsonObject } from './json.js';

/** Where an own event stands. Others' events are `accepted`. */
export type EventStatus = 'pending' | 'sent' | 'accepted' | 'rejected';

/** How the server came to an event: posted, emitted in SQL, or recorded by triggers. */
export type EventSource = 'client' | 'sql' | 'capture';

/** Why the server refused an event: a stable code, and a reason for people. */
export interface Rejection {
  readonly code: string;
  readonly reason: string;
  readonly [detail: string]: unknown;
}

/** An event as the server sends it. */
export interface WireEvent {
  readonly id: string;
  readonly position: number;
  readonly entity_type: string;
  readonly entity_id: string;
  readonly event_type: string;
  readonly payload: JsonObject;
  readonly schema_version: number;
  /** RFC 3339. */
  readonly timestamp: string;
  readonly recorded_at: string;
  readonly user_id: string | null;
  readonly client_id: string | null;
  readonly tenant_id: string | null;
  readonly source: EventSource;
  readonly applies: boolean;
}

/** An event in the device's store. */
export interface LocalEvent {
  /** UUID, lower case. */
  readonly id: string;
  readonly event_type: string;
  readonly entity_type: string;
  readonly entity_id: string;
  readonly payload: JsonObject;
  /** When it happened: integer microseconds since 1970. */
  readonly timestamp: number;
  readonly user_id: string | null;
  readonly client_id: string | null;
  readonly tenant_id: string | null;
  /**
   * `pending`: the server has not answered yet. `sent`: to be sent once more, for the server lost it. `accepted`: the server has it.
   * `rejected`: it refused it; the event counts no more and waits for a person.
   */
  readonly status: EventStatus;
  /** The server's position; null until the server's own copy of the event came. */
  readonly server_position: number | null;
  readonly idempotency_key: string | null;
  readonly schema_version: number;
  /** The order in which this device recorded its events, from 1; 0 for others' events and while it is being written. */
  readonly client_seq: number;
  readonly source: EventSource;
  readonly applies: boolean;
  /** When the server took it, integer microseconds; null as `server_position` is. */
  readonly recorded_at: number | null;
  readonly rejection: Rejection | null;
  /** Why it is sent once more: its stamp was ahead of the server, or the server was restored from a backup. */
  readonly again: 'restamped' | 'restored' | null;
}

/** What `recordEvent` takes. */
export interface EventDraft {
  readonly event_type: string;
  readonly entity_type: string;
  readonly entity_id: string;
  readonly payload: JsonObject;
  readonly idempotency_key?: string;
}

/** The state of an entity beneath its stored events. */
export interface Baseline {
  readonly entity_type: string;
  readonly entity_id: string;
  readonly state: JsonObject | null;
  /** The server's events of this entity up to this position are in it; 0 if it was made here, by compaction. */
  readonly position: number;
  /** The last event in it, in the order of the fold; null if there is none. */
  readonly last: { readonly timestamp: number; readonly id: string } | null;
  /** The schema version of the state; 1 where there is none. */
  readonly version?: number;
}

/** An entity: its type and its id. */
export type EntityRef = readonly [entityType: string, entityId: string];

/** The name of an event within its entity: `item_added` of `order.item_added`. */
export function nameOf(event: { readonly event_type: string; readonly entity_type: string }): string {
  return event.event_type.slice(event.entity_type.length + 1);
}

/** Whether the server's copy of it is here, or it is the server's anyway. */
export function isConfirmed(event: LocalEvent): boolean {
  return event.status === 'accepted' && event.server_position !== null;
}

/** Whether it must still be sent. */
export function isUnsent(event: LocalEvent): boolean {
  return event.status === 'pending' || event.status === 'sent';
}

/** A server's event for the store. `own` is what the store has under this id. Undefined if it cannot be read. */
export function fromWire(event: WireEvent, own?: LocalEvent): LocalEvent | undefined {
  const timestamp = parseMicros(event.timestamp);
  const recordedAt = parseMicros(event.recorded_at);
  if (timestamp === undefined || recordedAt === undefined) return undefined;
  return {
    id: event.id.toLowerCase(),
    event_type: event.event_type,
    entity_type: event.entity_type,
    entity_id: event.entity_id,
    payload: event.payload,
    timestamp,
    user_id: event.user_id,
    client_id: event.client_id,
    tenant_id: event.tenant_id,
    status: 'accepted',
    server_position: event.position,
    idempotency_key: own?.idempotency_key ?? null,
    schema_version: event.schema_version,
    client_seq: own?.client_seq ?? 0,
    source: event.source,
    applies: event.applies,
    recorded_at: recordedAt,
    rejection: null,
    again: null,
  };
}

/** An own event as it is posted. */
export function toWire(event: LocalEvent): Record<string, unknown> {
  const { id, event_type, entity_type, entity_id, payload, schema_version } = event;
  return {
    id,
    event_type,
    entity_type,
    entity_id,
    payload,
    schema_version,
    timestamp: formatMicros(event.timestamp),
    ...(event.client_id === null ? {} : { client_id: event.client_id }),
    ...(event.user_id === null ? {} : { user_id: event.user_id }),
    ...(event.tenant_id === null ? {} : { tenant_id: event.tenant_id }),
    ...(event.idempotency_key === null ? {} : { idempotency_key: event.idempotency_key }),
  };
}
