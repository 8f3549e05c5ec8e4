/** The orders example, as the generated code would declare it. */

import type { EntityDefinition } from '../../src/entity.js';
import { parseRules } from '../../src/rules.js';

export const order: EntityDefinition = {
  type: 'order',
  rules: parseRules({
    created: { rule: 'create' },
    item_added: { rule: 'append', field: 'items', value: 'item' },
    item_removed: { rule: 'remove', field: 'items', where: { id: 'item_id' } },
    state_changed: { rule: 'set', fields: ['status'] },
    tipped: { rule: 'increment', field: 'tip', by: 'amount' },
    deleted: { rule: 'delete' },
  }),
  keyOf: (id) => ({ id }),
};
