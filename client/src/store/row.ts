/**
 * An event as a row: short names for what is indexed, everything else as JSON, a list by place. IndexedDB clones objects ten times as slowly as
 * JSON is read, and writes the names of members into every row.
 */

import type { EventSource, EventStatus, LocalEvent, Rejection } from '../event.js';
import type { JsonObject } from '../json.js';

/** A row of the table `events`. */
export interface Row {
  /** Entity type, entity id, event id: the key. */
  readonly t: string;
  readonly e: string;
  readonly i: string;
  /** `client_seq` while it is unsent. */
  readonly u?: number;
  /** `client_seq` while it is refused. */
  readonly x?: number;
  /** `recorded_at` once the server's copy is here. */
  readonly r?: number;
  /** Everything else: a JSON list by place; nulls at the end are left out. What an earlier client wrote is the list itself. */
  readonly d: string | readonly unknown[];
}

const STATUSES: readonly EventStatus[] = ['accepted', 'pending', 'sent', 'rejected'];
const SOURCES: readonly EventSource[] = ['client', 'sql', 'capture'];

export function rowOf(event: LocalEvent): Row {
  const prefix = `${event.entity_type}.`;
  const d: unknown[] = [
    event.event_type.startsWith(prefix) ? event.event_type.slice(prefix.length) : [event.event_type],
    event.payload,
    event.timestamp,
    STATUSES.indexOf(event.status),
    event.client_seq,
    event.schema_version,
    SOURCES.indexOf(event.source),
    event.applies ? 1 : 0,
    event.user_id,
    event.client_id,
    event.tenant_id,
    event.server_position,
    event.recorded_at,
    event.idempotency_key,
    event.again,
    event.rejection,
  ];
  while (d.at(-1) === null) d.pop();
  return {
    t: event.entity_type,
    e: event.entity_id,
    i: event.id,
    ...(event.status === 'pending' || event.status === 'sent' ? { u: event.client_seq } : {}),
    ...(event.status === 'rejected' ? { x: event.client_seq } : {}),
    ...(event.status === 'accepted' && event.recorded_at !== null ? { r: event.recorded_at } : {}),
    d: JSON.stringify(d),
  };
}

export function eventOf({ t, e, i, d: list }: Row): LocalEvent {
  const d = typeof list === 'string' ? (JSON.parse(list) as readonly unknown[]) : list;
  const name = d[0] as string | readonly [string];
  return {
    id: i,
    event_type: typeof name === 'string' ? `${t}.${name}` : name[0],
    entity_type: t,
    entity_id: e,
    payload: d[1] as JsonObject,
    timestamp: d[2] as number,
    status: STATUSES[d[3] as number] ?? 'accepted',
    client_seq: d[4] as number,
    schema_version: d[5] as number,
    source: SOURCES[d[6] as number] ?? 'client',
    applies: d[7] === 1,
    user_id: (d[8] as string | null | undefined) ?? null,
    client_id: (d[9] as string | null | undefined) ?? null,
    tenant_id: (d[10] as string | null | undefined) ?? null,
    server_position: (d[11] as number | null | undefined) ?? null,
    recorded_at: (d[12] as number | null | undefined) ?? null,
    idempotency_key: (d[13] as string | null | undefined) ?? null,
    again: (d[14] as LocalEvent['again'] | undefined) ?? null,
    rejection: (d[15] as Rejection | null | undefined) ?? null,
  };
}
