/**
 * An application on ElectricSQL's React hook and on TanStack DB, as npm has them. It runs in Node and, as a page, in Chromium: a test
 * calls `app` and gets JSON back.
 */

import { preloadShape, useShape } from '@electric-sql/react';
import type { ShapeStreamOptions } from '@electric-sql/client';
import { BTreeIndex, createCollection, createLiveQueryCollection, eq } from '@tanstack/db';
import { electricCollectionOptions, type ElectricCollectionConfig } from '@tanstack/electric-db-collection';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';

/** What the tests' tables hold. */
export interface Sale {
  readonly [column: string]: string | number | boolean | null;
  readonly id: number;
  readonly buyer: number;
  readonly title: string;
  readonly open: boolean;
}

interface Buyer {
  readonly [column: string]: string | number;
  readonly id: number;
  readonly name: string;
}

/** A write as it goes to the application's own server. */
export type Write = { readonly insert: Sale } | { readonly update: number; readonly title: string } | { readonly delete: number };

export interface Place {
  /** The streamer. */
  readonly url: string;
  /** The application's own server: takes a write, answers with its transaction's id. */
  readonly backend: string;
  readonly sales: string;
  readonly buyers: string;
  readonly mode: NonNullable<ElectricCollectionConfig['syncMode']>;
}

/** How long a write may take to come back in the stream. By default five seconds, which a machine under load may not keep. */
const CONFIRM_MS = 20_000;

async function send(backend: string, write: Write): Promise<{ txid: number; timeout: number }> {
  const response = await fetch(backend, { method: 'POST', body: JSON.stringify(write) });
  if (!response.ok) throw new Error(`refused: ${await response.text()}`);
  return { ...((await response.json()) as { txid: number }), timeout: CONFIRM_MS };
}

function collections({ url, backend, sales, buyers, mode }: Place) {
  const shape = (table: string) => ({ url: `${url}/v1/shape`, params: { table } });
  // With indexes it asks for what a query needs alone, where it may.
  const indexed = { autoIndex: 'eager', defaultIndexType: BTreeIndex } as const;
  const sale = createCollection(
    electricCollectionOptions<Sale>({
      id: sales,
      syncMode: mode,
      ...indexed,
      shapeOptions: shape(sales),
      getKey: ({ id }) => id,
      onInsert: ({ transaction }) => send(backend, { insert: transaction.mutations[0].modified }),
      onUpdate: ({ transaction }) => send(backend, { update: transaction.mutations[0].original.id, title: transaction.mutations[0].modified.title }),
      onDelete: ({ transaction }) => send(backend, { delete: transaction.mutations[0].original.id }),
    }),
  );
  const buyer = createCollection(electricCollectionOptions<Buyer>({ id: buyers, syncMode: mode, ...indexed, shapeOptions: shape(buyers), getKey: ({ id }) => id }));
  const joined = createLiveQueryCollection({
    id: `${sales}-joined`,
    query: (query) =>
      query
        .from({ sale })
        .innerJoin({ buyer }, ({ sale, buyer }) => eq(sale.buyer, buyer.id))
        .where(({ sale }) => eq(sale.open, true))
        .select(({ sale, buyer }) => ({ id: sale.id, title: sale.title, name: buyer.name })),
    getKey: ({ id }) => id,
  });
  const newest = createLiveQueryCollection({
    id: `${sales}-newest`,
    query: (query) => query.from({ sale }).orderBy(({ sale }) => sale.id, 'desc').limit(5).select(({ sale }) => ({ id: sale.id, title: sale.title })),
    getKey: ({ id }) => id,
  });
  return { sale, buyer, joined, newest };
}

let at: ReturnType<typeof collections> | undefined;

function here(): ReturnType<typeof collections> {
  if (at === undefined) throw new Error('open first');
  return at;
}

/** Rows by id, with their own members alone: TanStack DB adds such as `$synced`. */
const byId = <T extends { id: number }>(rows: readonly T[]): T[] =>
  [...rows].sort((a, b) => a.id - b.id).map((row) => Object.fromEntries(Object.entries(row).filter(([name]) => !name.startsWith('$'))) as T);

/** The outcome of an optimistic write: what the join showed at once, and how it ended. */
export interface Outcome {
  readonly atOnce: readonly unknown[];
  readonly end: string;
}

async function outcome(transaction: { readonly isPersisted: { readonly promise: Promise<unknown> } }): Promise<Outcome> {
  const atOnce = byId(here().joined.toArray);
  const end = await transaction.isPersisted.promise.then(
    () => 'confirmed',
    (error: unknown) => String(error),
  );
  return { atOnce, end };
}

function List({ options }: { readonly options: ShapeStreamOptions }) {
  const { data, isLoading, isError } = useShape<Buyer>(options);
  return <p id="shape">{isLoading ? 'loading' : isError ? 'error' : JSON.stringify(byId(data).map(({ id, name }) => [id, name]))}</p>;
}

const listOptions = (url: string, table: string, liveSse: boolean): ShapeStreamOptions => ({ url: `${url}/v1/shape`, params: { table }, liveSse });

export const app = {
  /** Opens the collections and waits until the queries have their first rows. */
  async open(place: Place): Promise<void> {
    at = collections(place);
    // Somebody looks: a query without subscribers is dropped after five seconds.
    for (const query of [at.joined, at.newest]) query.subscribeChanges(() => undefined);
    await Promise.all([at.joined.preload(), at.newest.preload()]);
  },

  /** The open sales with their buyers' names. */
  joined: () => Promise.resolve(byId(here().joined.toArray)),
  /** The five newest sales. */
  newest: () => Promise.resolve(byId(here().newest.toArray)),
  /** How many sales this device holds. */
  held: () => Promise.resolve(here().sale.size),
  /** Five others. */
  async turnTo(offset: number): Promise<void> {
    await here().newest.utils.setWindow({ offset, limit: 5 });
  },
  insert: (row: Sale) => outcome(here().sale.insert(row)),
  rename: (id: number, title: string) =>
    outcome(
      here().sale.update(id, (draft) => {
        draft.title = title;
      }),
    ),
  remove: (id: number) => outcome(here().sale.delete(id)),

  async close(): Promise<void> {
    const { sale, buyer, joined, newest } = here();
    await Promise.all([joined.cleanup(), newest.cleanup()]);
    await Promise.all([sale.cleanup(), buyer.cleanup()]);
    at = undefined;
  },

  /** Renders the hook into the page. */
  show: (url: string, table: string, liveSse: boolean) => {
    createRoot(document.body).render(
      <StrictMode>
        <List options={listOptions(url, table, liveSse)} />
      </StrictMode>,
    );
    return Promise.resolve();
  },

  /** What the hook renders on a server once the shape is there. */
  async render(url: string, table: string): Promise<string> {
    const ending = new AbortController();
    const options = { ...listOptions(url, table, false), signal: ending.signal };
    await preloadShape(options as never);
    const html = renderToString(<List options={options} />);
    ending.abort();
    return html;
  },
};

export type App = typeof app;

declare global {
  interface Window {
    app: App;
  }
}

if (typeof window !== 'undefined') window.app = app;
