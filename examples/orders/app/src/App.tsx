import { useEffect, useRef, useState } from 'react';
import { Floor } from './components/Floor.js';
import { Header } from './components/Header.js';
import { Rejected } from './components/Rejected.js';
import { Ticket } from './components/Ticket.js';
import { Timeline } from './components/Timeline.js';
import { newId, recordEvent, useOrders, type Order } from './generated/index.js';

/** The whole page: the room, the order at one table, and what happened to it. */
export function App({ waiter }: { readonly waiter: string }) {
  const { data: orders, isLoading, error } = useOrders();
  const [table, setTable] = useState<number>();
  const [finished, setFinished] = useState<string>();
  const atTable = useRef<HTMLDivElement>(null);
  // A paid order stays in view until another table is chosen.
  const current = orders.filter((order) => order.table_number === table && (isRunning(order) || order.id === finished)).at(-1);

  // On a telephone the room fills the screen: what was chosen lies beneath it.
  useEffect(() => {
    if (table === undefined || !matchMedia(NARROW).matches) return;
    atTable.current?.scrollIntoView({ behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
  }, [table]);

  const choose = (chosen: number): void => {
    setTable(chosen);
    setFinished(undefined);
  };
  const seat = (chosen: number): void => {
    recordEvent({ event_type: 'order.created', entity_type: 'order', entity_id: newId(), payload: { table_number: chosen, status: 'open', items: [] } });
    choose(chosen);
  };

  return (
    <>
      <Header waiter={waiter} />
      {error !== null && <p role="alert" className="banner">The orders on this device cannot be read: {error.message}</p>}
      <main>
        <Rejected />
        <div className="columns">
          <Floor orders={orders.filter(isRunning)} isLoading={isLoading} chosen={table} onChoose={choose} />
          <div className="chosen" ref={atTable} tabIndex={-1}>
            {current !== undefined ? (
              <Ticket key={`ticket ${current.id}`} id={current.id} onPaid={() => setFinished(current.id)} onCancelled={() => atTable.current?.focus()} />
            ) : (
              <section className="card empty" aria-label="Order">
                {table === undefined ? <p>Choose a table.</p> : <p>Nobody sits at table {table}.</p>}
                {table !== undefined && (
                  <button type="button" className="primary" onClick={() => seat(table)}>
                    Open an order
                  </button>
                )}
              </section>
            )}
          </div>
          {current !== undefined && <Timeline key={`timeline ${current.id}`} id={current.id} />}
        </div>
      </main>
      <footer>
        <p>
          Open this page in a second window, or change <code>public.orders</code> with psql: every change shows here at once. Switch
          the network off, go on working, reload, switch it on again.
        </p>
        <p>
          <a href="./shapes.html">The same table through ElectricSQL’s client</a> ·{' '}
          <button type="button" className="link" onClick={mistake}>
            Send an order that the table refuses
          </button>
        </p>
      </footer>
    </>
  );
}

/** One column: as in styles.css, two of 20 rem do not fit. */
const NARROW = '(max-width: 43rem)';

const isRunning = (order: Order): boolean => order.status !== 'paid';

/** A time that is none: only the table can know, so the server refuses it, and the list of refused events shows it. */
function mistake(): void {
  recordEvent({ event_type: 'order.created', entity_type: 'order', entity_id: newId(), payload: { table_number: 13, updated_at: 'in a moment' } });
}
