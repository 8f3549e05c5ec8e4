/** The page under test: the orders example without a user interface; tests reach the client as `window.client`. */

import { HeadwaterClient } from '../../src/index.js';
import { parseRules } from '../../src/rules.js';

const parameters = new URLSearchParams(location.search);

const client = new HeadwaterClient([
  {
    type: 'order',
    rules: parseRules({
      created: { rule: 'create' },
      item_added: { rule: 'append', field: 'items', value: 'item' },
      item_removed: { rule: 'remove', field: 'items', where: { id: 'item_id' } },
      state_changed: { rule: 'set', fields: ['status'] },
      deleted: { rule: 'delete' },
    }),
    keyOf: (id) => ({ id }),
  },
]);

const ahead = Number(parameters.get('ahead_ms') ?? 0);

client.configure({
  url: parameters.get('url') ?? '',
  tenantId: 'cafe',
  userId: parameters.get('user') ?? 'ada',
  ...(ahead === 0 ? {} : { now: () => performance.timeOrigin + performance.now() + ahead }),
});

declare global {
  interface Window {
    client: HeadwaterClient;
  }
}

window.client = client;
