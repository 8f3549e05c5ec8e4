import { useRejectedEvents } from '../generated/index.js';

/** What the server refused: out of the orders, and kept here until somebody decides. */
export function Rejected() {
  const rejected = useRejectedEvents();
  if (rejected.length === 0) return null;
  return (
    <section className="card rejected" aria-labelledby="rejected-title">
      <h2 id="rejected-title">Refused by the server</h2>
      <ul>
        {rejected.map(({ event, retry, discard }) => (
          <li key={event.id}>
            <div>
              <strong>{event.event_type}</strong> <code>{JSON.stringify(event.payload)}</code>
              <p>
                {event.rejection?.code}: {event.rejection?.reason}
              </p>
            </div>
            <button type="button" onClick={() => void retry()}>
              Try again
            </button>
            <button type="button" className="quiet" onClick={() => void discard()}>
              Discard
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
