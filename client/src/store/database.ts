/** The device's database: one for each server, tenant and user. */

import { Dexie, type EntityTable, type Table } from 'dexie';
import type { Baseline, LocalEvent } from '../event.js';

/** A remembered value: the cursor, the device's id, the clock. */
export interface MetaRow {
  readonly key: string;
  readonly value: unknown;
}

/** The tables. */
export class Database extends Dexie {
  readonly events!: EntityTable<LocalEvent, 'id'>;
  readonly baselines!: Table<Baseline, [string, string]>;
  readonly meta!: EntityTable<MetaRow, 'key'>;

  constructor(name: string, durability: 'relaxed' | 'strict') {
    super(name, { chromeTransactionDurability: durability });
    this.version(1).stores({
      // By entity for the fold; by status in recorded order for the sender; by age for compaction.
      events: 'id, [entity_type+entity_id], [status+client_seq], [status+recorded_at]',
      baselines: '[entity_type+entity_id]',
      meta: 'key',
    });
  }
}

/** The database's name. Parts are escaped, so that two different owners never share one. */
export function databaseName(url: string, tenantId: string | null, userId: string | null): string {
  return ['headwater', url, tenantId ?? '', userId ?? ''].map(encodeURIComponent).join(':');
}
