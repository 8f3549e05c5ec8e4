/** What the restaurant has: tables, a menu, and how an order goes on. */

import type { Order } from './generated/index.js';

/** A line of an order. */
export interface Item {
  readonly id: string;
  readonly name: string;
  readonly cents: number;
}

/** A dish. */
export type Dish = Omit<Item, 'id'>;

export const TABLES = Array.from({ length: 12 }, (_, index) => index + 1);

export const MENU: readonly Dish[] = [
  { name: 'Lentil soup', cents: 650 },
  { name: 'Leaf salad', cents: 780 },
  { name: 'Trout', cents: 1890 },
  { name: 'Gnocchi', cents: 1450 },
  { name: 'Apple tart', cents: 590 },
  { name: 'Spring water', cents: 320 },
  { name: 'Cider', cents: 480 },
  { name: 'Espresso', cents: 260 },
];

/** From sitting down to leaving. */
export const STATES = ['open', 'cooking', 'served', 'paid'] as const;

/** What comes behind a state; nothing behind the last. */
export function nextState(status: string | null | undefined): (typeof STATES)[number] | undefined {
  return STATES[STATES.findIndex((state) => state === status) + 1];
}

/** The lines of an order; `items` is jsonb, and so anything that somebody wrote there. */
export function itemsOf(order: Order | null): readonly Item[] {
  const items: unknown = order?.items;
  return Array.isArray(items) ? items.filter(isItem) : [];
}

export function totalOf(order: Order | null): number {
  return itemsOf(order).reduce((sum, item) => sum + item.cents, 0);
}

const EUROS = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' });

export const price = (cents: number): string => EUROS.format(cents / 100);

function isItem(value: unknown): value is Item {
  const item = value as Partial<Item> | null;
  return typeof item === 'object' && typeof item?.id === 'string' && typeof item.name === 'string' && typeof item.cents === 'number';
}

/** How many dishes, in words. */
export const counted = (items: number): string => (items === 1 ? '1 item' : `${items} items`);
