/**
 * React hooks over a client. Made by `useSyncExternalStore`, so they never tear, stand StrictMode's double mounting, and render
 * on a server, where everything is still loading.
 */

import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import type { HeadwaterClient } from './client.js';
import { asError } from './error.js';
import type { LocalEvent } from './event.js';
import { equal, isObject, type Json } from './json.js';
import { INITIAL_SYNC_STATUS, type RejectedEvent, type SyncStatus } from './status.js';
import { LIST_LOADING, LOADING, type EntityView } from './views.js';

/** One entity. */
export interface EntityResult<Entity> {
  /** Null: there is none, or it is still being read. */
  readonly data: Entity | null;
  readonly isLoading: boolean;
  readonly error: Error | null;
}

/** The entities of a type. */
export interface ListResult<Entity> {
  readonly data: readonly Entity[];
  readonly isLoading: boolean;
  readonly error: Error | null;
}

/** What happened to an entity. */
export interface HistoryResult<Event> {
  readonly data: readonly Event[];
  readonly isLoading: boolean;
  readonly error: Error | null;
}

/** Which entities: those whose members equal the given ones, or that a function picks. */
export type Filter<Entity> = Partial<Entity> | ((entity: Entity) => boolean);

/** Of an entity that is not named yet: there is nothing to wait for. */
const NOTHING: EntityView = Object.freeze({ data: null, isLoading: false, error: null });
const NONE: readonly RejectedEvent[] = Object.freeze([]);
const EMPTY: readonly LocalEvent[] = Object.freeze([]);

/** The hooks of a client, for the generated code to give types to. */
export function createHooks(client: HeadwaterClient) {
  /** The entity's state, kept up to date. An id of null or undefined shows nothing, and is not loading. */
  function useEntity<Entity>(type: string, id: string | null | undefined): EntityResult<Entity> {
    const subscribe = useCallback(
      (listener: () => void) => (id == null ? () => undefined : client.views.subscribe([type, id], listener)),
      [type, id],
    );
    const snapshot = useCallback(() => (id == null ? NOTHING : client.views.entity([type, id])), [type, id]);
    return useSyncExternalStore(subscribe, snapshot, () => (id == null ? NOTHING : LOADING)) as EntityResult<Entity>;
  }

  /** The entities of a type, kept up to date, in the order of their ids. */
  function useEntities<Entity>(type: string, filter?: Filter<Entity>): ListResult<Entity> {
    const subscribe = useCallback((listener: () => void) => client.views.subscribeList(type, listener), [type]);
    const snapshot = useCallback(() => client.views.list(type), [type]);
    const list = useSyncExternalStore(subscribe, snapshot, () => LIST_LOADING);
    const stable = useStable(filter);
    return useMemo(() => {
      const entities = list.data.map(({ data }) => data as Entity);
      return { data: stable === undefined ? entities : entities.filter(predicate(stable)), isLoading: list.isLoading, error: list.error };
    }, [list, stable]);
  }

  /**
   * What happened to an entity: at once what is on the device, then all of it from the server. Again when the entity changes, when
   * everything is sent, and when the connection is back.
   */
  function useHistory<Event = LocalEvent>(type: string, id: string): HistoryResult<Event> {
    const { data: version } = useEntity(type, id);
    const { connection, unsynced } = useSyncStatus();
    const isConnected = connection === 'live' || connection === 'polling';
    const isSent = unsynced === 0;
    const [result, setResult] = useState<{ key: string; data: readonly LocalEvent[]; isLoading: boolean; error: Error | null }>({ key: '', data: EMPTY, isLoading: true, error: null });
    const key = `${type}:${id}`;
    useEffect(() => {
      const stop = new AbortController();
      const showLocal = (local: readonly LocalEvent[]): void => {
        // What the server told before stays until it tells again.
        if (!stop.signal.aborted) setResult((before) => ({ key, data: before.key === key ? followed(before.data, local) : local, isLoading: true, error: null }));
      };
      const showAll = (all: readonly LocalEvent[]): void => {
        if (!stop.signal.aborted) setResult({ key, data: all, isLoading: false, error: null });
      };
      const fail = (thrown: unknown): void => {
        // Offline: what the device has stands.
        if (!stop.signal.aborted) setResult((before) => ({ key, data: before.key === key ? before.data : EMPTY, isLoading: false, error: asError(thrown) }));
      };
      void client
        .getEventsForEntity(type, id)
        .then(showLocal)
        .then(() => client.history(type, id, stop.signal))
        .then(showAll)
        .catch(fail);
      return () => stop.abort();
    }, [type, id, key, version, isConnected, isSent]);
    return (result.key === key ? result : { data: EMPTY, isLoading: true, error: null }) as HistoryResult<unknown> as HistoryResult<Event>;
  }

  /** How syncing stands. */
  function useSyncStatus(): SyncStatus {
    return useSyncExternalStore(subscribeStatus, () => client.syncStatus(), () => INITIAL_SYNC_STATUS);
  }

  /** What the server refused, each with `retry` and `discard`. */
  function useRejectedEvents(): readonly RejectedEvent[] {
    return useSyncExternalStore(subscribeStatus, () => client.rejectedEvents(), () => NONE);
  }

  const subscribeStatus = (listener: () => void): (() => void) => client.subscribeStatus(listener);

  return { useEntity, useEntities, useHistory, useSyncStatus, useRejectedEvents };
}

/** A history that was read before, with what the device knows now: events stand as they stand there, new ones at the end. */
function followed(before: readonly LocalEvent[], local: readonly LocalEvent[]): readonly LocalEvent[] {
  const here = new Map(local.map((event) => [event.id, event]));
  const known = new Set(before.map((event) => event.id));
  const still = before.filter((event) => event.server_position !== null || here.has(event.id));
  return [...still.map((event) => here.get(event.id) ?? event), ...local.filter((event) => !known.has(event.id))];
}

/** The same object as long as it says the same: filters are written in place, anew for every rendering. */
function useStable<Entity>(filter: Filter<Entity> | undefined): Filter<Entity> | undefined {
  const last = useRef(filter);
  const same = typeof filter === 'object' && typeof last.current === 'object' ? equal(filter as Json, last.current as Json) : filter === last.current;
  const stable = same ? last.current : filter;
  useEffect(() => {
    last.current = stable;
  }, [stable]);
  return stable;
}

function predicate<Entity>(filter: Filter<Entity>): (entity: Entity) => boolean {
  if (typeof filter === 'function') return filter;
  const wanted = Object.entries(filter as Record<string, Json | undefined>).filter(([, value]) => value !== undefined);
  return (entity) => isObject(entity) && wanted.every(([name, value]) => equal(entity[name] ?? null, value ?? null));
}
