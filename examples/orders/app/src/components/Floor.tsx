import type { Order } from '../generated/index.js';
import { counted, itemsOf, price, TABLES, totalOf } from '../restaurant.js';

interface Properties {
  readonly orders: readonly Order[];
  readonly isLoading: boolean;
  readonly chosen: number | undefined;
  readonly onChoose: (table: number) => void;
}

/** The room: a tile for each table, with what stands there. */
export function Floor({ orders, isLoading, chosen, onChoose }: Properties) {
  const others = orders.flatMap(({ table_number: table }) => (table == null || TABLES.includes(table) ? [] : [table]));
  const tables = [...TABLES, ...new Set(others.sort((one, other) => one - other))];
  return (
    <section className="card" aria-labelledby="floor-title" aria-busy={isLoading}>
      <h2 id="floor-title">Tables</h2>
      <ul className="floor">
        {tables.map((table) => {
          const order = orders.filter((one) => one.table_number === table).at(-1);
          return (
            <li key={table}>
              <button
                type="button"
                className={`tile ${order?.status ?? 'free'}`}
                aria-pressed={chosen === table}
                onClick={() => onChoose(table)}
              >
                <strong>{table}</strong>
                <span>{order?.status ?? 'free'}</span>
                {order !== undefined && <small>{counted(itemsOf(order).length)}</small>}
                {order !== undefined && <small>{price(totalOf(order))}</small>}
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
