import { newId, useOrder, useOrderMutations } from '../generated/index.js';
import { itemsOf, MENU, nextState, price, totalOf } from '../restaurant.js';

interface Properties {
  readonly id: string;
  /** Called before the order is paid, and so leaves the room. */
  readonly onPaid: () => void;
  /** Called when the order was cancelled. */
  readonly onCancelled: () => void;
}

/** One order: what is on it, what can be added, and how it goes on. */
export function Ticket({ id, onPaid, onCancelled }: Properties) {
  const { data: order } = useOrder(id);
  const { itemAdded, itemRemoved, stateChanged, deleted } = useOrderMutations(id);
  if (order === null) return null;
  const items = itemsOf(order);
  const next = nextState(order.status);
  const goOn = (): void => {
    if (next === undefined) return;
    if (next === 'paid') onPaid();
    stateChanged({ status: next });
  };
  const takeOff = (item: string, button: HTMLButtonElement): void => {
    // The button goes with its line; who works with the keyboard stays in the list.
    const line = button.closest('li');
    (line?.nextElementSibling ?? line?.previousElementSibling)?.querySelector('button')?.focus();
    itemRemoved({ item_id: item });
  };
  const cancel = (): void => {
    deleted({});
    onCancelled();
  };
  return (
    <section className="card" aria-labelledby="ticket-title">
      <h2 id="ticket-title">
        Table {order.table_number} <span className={`state ${order.status ?? ''}`}>{order.status}</span>
      </h2>
      <ul className="items">
        {items.map((item) => (
          <li key={item.id}>
            <span>{item.name}</span>
            <span>{price(item.cents)}</span>
            <button type="button" aria-label={`Take ${item.name} off`} onClick={(click) => takeOff(item.id, click.currentTarget)}>
              ×
            </button>
          </li>
        ))}
        {items.length === 0 && <li className="hint">Nothing ordered yet.</li>}
      </ul>
      <p className="total">
        <span>Total</span> <strong>{price(totalOf(order))}</strong>
      </p>
      <div className="menu" role="group" aria-label="Menu">
        {MENU.map((dish) => (
          <button key={dish.name} type="button" onClick={() => itemAdded({ item: { id: newId(), ...dish } })}>
            {dish.name} <small>{price(dish.cents)}</small>
          </button>
        ))}
      </div>
      <div className="actions">
        {next !== undefined && (
          <button type="button" className="primary" onClick={goOn}>
            Mark as {next}
          </button>
        )}
        <button type="button" className="quiet" onClick={cancel}>
          Cancel the order
        </button>
      </div>
    </section>
  );
}
