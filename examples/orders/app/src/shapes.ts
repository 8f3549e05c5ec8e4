/** The orders as ElectricSQL's own client sees them: no Headwater code on this page. */

import { Shape, ShapeStream, type Row } from '@electric-sql/client';
import './styles.css';

const stream = new ShapeStream({ url: new URL('/v1/shape', location.href).href, params: { table: 'public.orders' } });
const shape = new Shape(stream);
const body = element('rows');
const state = element('state');

shape.subscribe(({ rows }) => {
  const sorted = [...rows].sort((one, other) => Number(one['table_number'] ?? 0) - Number(other['table_number'] ?? 0));
  body.replaceChildren(...sorted.map(line));
  state.textContent = `${rows.length} ${rows.length === 1 ? 'row' : 'rows'}, up to date at ${new Date().toLocaleTimeString()}`;
});
stream.subscribe(
  () => undefined,
  (error) => {
    state.textContent = `No shape: ${error.message}`;
  },
);

function line(row: Row): HTMLTableRowElement {
  const items = Array.isArray(row['items']) ? row['items'] : [];
  const made = document.createElement('tr');
  for (const text of [row['table_number'] ?? '–', row['status'] ?? '–', items.length, row['id']]) {
    made.insertCell().textContent = String(text);
  }
  return made;
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element #${id}`);
  return found;
}
