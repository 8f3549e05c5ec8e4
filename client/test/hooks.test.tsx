// @vitest-environment happy-dom
/** The hooks in a DOM: StrictMode, rendering on a server, stable results. */

import 'fake-indexeddb/auto';
import { StrictMode, useState, type ReactNode } from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, expect, it } from 'vitest';
import type { HeadwaterClient } from '../src/client.js';
import { createHooks } from '../src/react.js';
import { eventually, newDevice, order, QUICK, start } from './support/orders.js';
import { ModelServer } from './support/server.js';

interface Order {
  readonly id: string;
  readonly status?: string;
}

/** What the store brings by itself renders outside `act`; React need not warn of it. */
(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = false;

const open: { client: HeadwaterClient; unmount: () => void }[] = [];

afterEach(async () => {
  for (const { client, unmount } of open.splice(0)) {
    unmount();
    await client.close();
  }
});

function mount(server: ModelServer, page: (hooks: ReturnType<typeof createHooks>) => ReactNode, more: Parameters<typeof start>[2] = {}) {
  const client = start(server, newDevice(), more);
  const hooks = createHooks(client);
  const element = document.createElement('div');
  const root = createRoot(element);
  const Page = (): ReactNode => page(hooks);
  flushSync(() =>
    root.render(
      <StrictMode>
        <Page />
      </StrictMode>,
    ),
  );
  open.push({ client, unmount: () => root.unmount() });
  const text = (): string => element.textContent;
  const shows = (what: string): Promise<void> =>
    eventually(`the page shows ${what}`, () => text() === what).catch((error: unknown) => {
      throw new Error(`${String(error)}, not ${text()}`);
    });
  return { client, text, shows };
}

function record(client: HeadwaterClient, name: string, payload: Record<string, string>, id = 'o1'): void {
  flushSync(() => {
    client.recordEvent({ event_type: `order.${name}`, entity_type: 'order', entity_id: id, payload });
  });
}

it('shows an entity and its changes at once in StrictMode', async () => {
  const server = new ModelServer(order);
  const { client, text, shows } = mount(server, ({ useEntity }) => {
    const { data, isLoading } = useEntity<Order>('order', 'o1');
    return isLoading ? 'loading' : (data?.status ?? 'none');
  });
  expect(text()).toBe('loading');
  await shows('none');
  record(client, 'created', { status: 'open' });
  expect(text()).toBe('open');
  record(client, 'state_changed', { status: 'paid' });
  expect(text()).toBe('paid');
  await client.sync();
  await eventually('status is clean', () => client.syncStatus().unsynced === 0);
  expect(text()).toBe('paid');
});

it('lists what a filter written in place picks', async () => {
  const server = new ModelServer(order);
  let renderings = 0;
  const { client, shows } = mount(server, ({ useEntities }) => {
    renderings += 1;
    const { data, isLoading } = useEntities<Order>('order', { status: 'open' });
    return isLoading ? 'loading' : data.map(({ id }) => id).join(',');
  });
  await shows('');
  record(client, 'created', { status: 'open' }, 'a');
  record(client, 'created', { status: 'paid' }, 'b');
  record(client, 'created', { status: 'open' }, 'c');
  await shows('a,c');
  record(client, 'state_changed', { status: 'open' }, 'b');
  await shows('a,b,c');
  expect(renderings).toBeLessThan(40);
});

it('shows the status and what was refused', async () => {
  const server = new ModelServer(order, { judge: () => 'forbidden' });
  const { client, shows } = mount(server, ({ useSyncStatus, useRejectedEvents }) => {
    const { unsynced } = useSyncStatus();
    return `${unsynced} unsynced, refused: ${useRejectedEvents()
      .map(({ event }) => event.rejection?.code)
      .join()}`;
  });
  record(client, 'created', { status: 'open' });
  await shows('0 unsynced, refused: forbidden');
  await client.rejectedEvents()[0]?.discard();
  await shows('0 unsynced, refused: ');
});

it('tells the history', async () => {
  const server = new ModelServer(order);
  server.capture('created', 'o1', { status: 'open' });
  const { client, shows } = mount(server, ({ useHistory }) => {
    const { data } = useHistory('order', 'o1');
    return data.map(({ event_type }) => event_type.split('.')[1]).join();
  });
  await shows('created');
  record(client, 'state_changed', { status: 'paid' });
  await shows('created,state_changed');
});

it('asks for the history again when the connection is back', async () => {
  const server = new ModelServer(order);
  server.capture('created', 'o1', { status: 'open' });
  const { client, shows } = mount(server, ({ useHistory }) => {
    const { data, error } = useHistory('order', 'o1');
    return data.map(({ event_type, status }) => `${event_type.split('.')[1] ?? ''} ${status}`).join() + (error === null ? '' : ', and perhaps more');
  });
  await shows('created accepted');
  // So far the server may have told that; the device has to know it by itself.
  await eventually('the device has it', async () => (await client.materialize('order', 'o1')) !== null);
  server.fault = () => 'lost';
  server.breakStreams();
  record(client, 'state_changed', { status: 'open' });
  await shows('created accepted,state_changed pending, and perhaps more');
  server.fault = () => 'none';
  await client.sync().catch(() => undefined);
  await shows('created accepted,state_changed accepted');
});

it('waits for nothing while no entity is named', async () => {
  const server = new ModelServer(order);
  server.capture('created', 'o1', { status: 'open' });
  let go: (id: string | null) => void = () => undefined;
  const { text, shows } = mount(server, ({ useEntity }) => {
    const [id, setId] = useState<string | null>(null);
    go = setId;
    const { data, isLoading } = useEntity<Order>('order', id);
    return isLoading ? 'loading' : (data?.status ?? 'none');
  });
  expect(text()).toBe('none');
  flushSync(() => go('o1'));
  await shows('open');
  flushSync(() => go(null));
  expect(text()).toBe('none');
});

it('renders on a server', () => {
  const server = new ModelServer(order);
  const client = start(server, newDevice());
  const { useEntity, useEntities, useSyncStatus, useRejectedEvents } = createHooks(client);
  const Page = (): ReactNode => [
    String(useEntity('order', 'o1').isLoading),
    String(useEntities('order').isLoading),
    useSyncStatus().connection,
    useRejectedEvents().length,
  ].join();
  expect(renderToString(<Page />)).toBe('true,true,connecting,0');
  open.push({ client, unmount: () => undefined });
});

it('shows no history of another entity when one cannot be read', async () => {
  const server = new ModelServer(order, { snapshots: true });
  server.capture('created', 'o1', { status: 'open' });
  let go: (id: string) => void = () => undefined;
  const { client, shows } = mount(server, ({ useHistory }) => {
    const [id, setId] = useState('o1');
    go = setId;
    const { data, error } = useHistory('order', id);
    return `${id}: ${data.map(({ entity_id }) => entity_id).join()}${error === null ? '' : `, ${error.message}`}`;
  });
  await shows('o1: o1');
  await client.close();
  flushSync(() => go('o2'));
  await shows('o2: , call configure({ url }) first');
});

it('asks a server that is polled for the history when the connection is back', async () => {
  const server = new ModelServer(order);
  server.capture('created', 'o1', { status: 'open' });
  server.fault = () => 'lost';
  const { shows } = mount(
    server,
    ({ useHistory }) => {
      const { data, error } = useHistory('order', 'o2');
      return data.map(({ event_type }) => event_type).join() + (error === null ? '' : 'offline');
    },
    { sync: { ...QUICK, receive: 'polling' } },
  );
  await shows('offline');
  server.fault = () => 'none';
  await shows('');
});

it('keeps what the server told of a history while it is asked again', async () => {
  const server = new ModelServer(order, { snapshots: true });
  server.capture('created', 'o1', { status: 'open' });
  server.capture('updated', 'o1', { status: 'served' });
  const seen: string[] = [];
  const { client, shows } = mount(server, ({ useHistory }) => {
    const { data } = useHistory('order', 'o1');
    const text = data.map(({ event_type, status }) => `${event_type.split('.')[1] ?? ''} ${status}`).join();
    seen.push(text);
    return text;
  });
  await shows('created accepted,updated accepted');
  // The device has a state of them, and no event.
  await eventually('the device has it', async () => (await client.materialize('order', 'o1')) !== null);
  expect(await client.getEventsForEntity('order', 'o1')).toEqual([]);
  seen.length = 0;
  record(client, 'state_changed', { status: 'paid' });
  await shows('created accepted,updated accepted,state_changed accepted');
  expect(seen.filter((text) => !text.startsWith('created accepted,updated accepted'))).toEqual([]);
});
