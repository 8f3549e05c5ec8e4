import { useId, useState } from 'react';
import { foldOrder, useOrder, useOrderHistory } from '../generated/index.js';
import { counted, itemsOf, price, totalOf } from '../restaurant.js';

/** What happened to an order, and what it was at any of these moments: the fold of the events up to there. */
export function Timeline({ id }: { readonly id: string }) {
  const { data: events, isLoading, error } = useOrderHistory(id);
  const [chosen, setChosen] = useState<number>();
  const slider = useId();
  const at = Math.min(chosen ?? events.length, events.length);
  const { data: present } = useOrder(id);
  // Without the server some of what happened may be missing: then only the present is known.
  const state = at === events.length ? present : error === null ? foldOrder(events.slice(0, at)) : undefined;
  const last = events[at - 1];
  return (
    <section className="card" aria-labelledby="timeline-title" aria-busy={isLoading}>
      <h2 id="timeline-title">History</h2>
      {error !== null && <p className="hint">Only what this device has: the server cannot be asked now.</p>}
      <label htmlFor={slider}>
        After event {at} of {events.length}
      </label>
      <input id={slider} type="range" min={0} max={events.length} value={at} onChange={(change) => setChosen(change.target.valueAsNumber)} />
      <p className="then">
        {state === undefined ? (
          'What it was then, only the server can tell.'
        ) : state === null ? (
          'There was no order.'
        ) : (
          <>
            Table {state.table_number}, {state.status ?? 'open'}, {counted(itemsOf(state).length)}, {price(totalOf(state))}
            {last !== undefined && <small>{new Date(last.timestamp / 1000).toLocaleString()}</small>}
          </>
        )}
      </p>
      <ol className="events" reversed>
        {events
          .map((event, index) => (
            <li key={event.id} className={index >= at ? 'future' : ''}>
              <button type="button" className="link" aria-current={index === at - 1 ? 'true' : undefined} onClick={() => setChosen(index + 1)}>
                {event.event_type}
              </button>
              <small>
                {new Date(event.timestamp / 1000).toLocaleTimeString()} · {event.user_id ?? event.source}
                {event.status === 'pending' || event.status === 'sent' ? ' · not sent yet' : ''}
              </small>
            </li>
          ))
          .reverse()}
      </ol>
    </section>
  );
}
