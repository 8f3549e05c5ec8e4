/**
 * A collection of TanStack DB over the entities of a type: for its live queries, joins and indexes. Needs nothing of TanStack's: it gives the
 * options that `createCollection` takes. Rows change by events alone, so it takes no `insert`, `update` and `delete`.
 */

import type { HeadwaterClient } from './client.js';
import { joinKey } from './key.js';
import type { ListView } from './views.js';

/** What TanStack DB gives whoever fills a collection, as far as it is used here. */
export interface CollectionSync<Entity> {
  readonly begin: () => void;
  readonly write: (change: { readonly type: 'insert' | 'update' | 'delete'; readonly value: Entity }) => void;
  readonly commit: () => unknown;
  readonly markReady: () => void;
  readonly markError?: (error: unknown) => void;
}

/** What `createCollection` takes. */
export interface CollectionOptions<Entity extends object> {
  readonly id: string;
  /** The entity's id. */
  readonly getKey: (entity: Entity) => string;
  readonly sync: { readonly rowUpdateMode: 'full'; readonly sync: (collection: CollectionSync<Entity>) => () => void };
}

/** The entities of a type as a collection. `key` names their key columns. */
export function collectionOptions<Entity extends object>(client: HeadwaterClient, type: string, key: readonly string[]): CollectionOptions<Entity> {
  return {
    id: `headwater:${type}`,
    getKey: (entity) => joinKey(key.map((column) => String((entity as Record<string, unknown>)[column]))),
    sync: { rowUpdateMode: 'full', sync: (collection) => fill(collection, client, type) },
  };
}

/** Keeps the collection as the views are, until the result is called. */
function fill<Entity>(collection: CollectionSync<Entity>, client: HeadwaterClient, type: string): () => void {
  let shown: ReadonlyMap<string, Entity> = new Map();
  let isReady = false;
  let isDue = false;
  let isOver = false;

  const show = ({ data, isLoading, error }: ListView): void => {
    const next = new Map(data.map((item) => [item.id, item.data as Entity]));
    const gone = [...shown].filter(([id]) => !next.has(id));
    const others = [...next].filter(([id, value]) => shown.get(id) !== value);
    if (gone.length + others.length > 0) {
      collection.begin();
      for (const [, value] of gone) collection.write({ type: 'delete', value });
      for (const [id, value] of others) collection.write({ type: shown.has(id) ? 'update' : 'insert', value });
      collection.commit();
    }
    shown = next;
    if (isReady || isLoading) return;
    if (error !== null && collection.markError !== undefined) {
      collection.markError(error);
      return;
    }
    isReady = true;
    collection.markReady();
  };

  // A batch from the server tells once an entity; the collection gets all of it at once.
  const soon = (): void => {
    if (isDue) return;
    isDue = true;
    queueMicrotask(() => {
      isDue = false;
      if (!isOver) show(client.views.list(type));
    });
  };
  const stop = client.views.subscribeList(type, soon);
  show(client.views.list(type));
  return () => {
    isOver = true;
    stop();
  };
}
