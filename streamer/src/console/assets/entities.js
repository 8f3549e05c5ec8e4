// @ts-check
/** What is enabled, by which rules, and how much there is of it. */

import { call } from './api.js';
import { h, heading, notice, put, statement, table, trouble } from './dom.js';
import { ago, bytes, count } from './format.js';
import { pause } from './overview.js';

const EVERY_MS = 10_000;
/** While a backfill goes on, it is watched. */
const EVERY_MS_AT_WORK = 1500;

/** @param {import('./main.js').Place} place */
export async function entities({ root, signal }) {
  const list = h('div', { class: 'cards' });
  put(root, heading('Entities'), h('p', { class: 'muted' }, 'A table that was enabled is an entity: every change of its rows is an event.'), list);
  let drawn = '';
  let open = new Set();
  while (!signal.aborted) {
    let atWork = false;
    try {
      const found = await call('entities', { signal });
      atWork = found.entities.some((/** @type {any} */ entity) => entity.backfill !== null);
      // Times are shown relative to now; they alone are no reason to disturb who reads.
      const text = JSON.stringify(found);
      if (text !== drawn) {
        open = new Set([...list.querySelectorAll('details[open]')].map((one) => one.getAttribute('data-entity')));
        const focused = document.activeElement?.closest('[data-entity]')?.getAttribute('data-entity');
        put(list, found.entities.length === 0 ? none() : found.entities.map((/** @type {any} */ entity) => card(entity, found, open)));
        if (focused) /** @type {HTMLElement | null} */ (list.querySelector(`details[data-entity="${CSS.escape(focused)}"] summary`))?.focus();
        drawn = text;
      }
    } catch (error) {
      if (signal.aborted) return;
      drawn = '';
      put(list, trouble(error));
    }
    await pause(atWork ? EVERY_MS_AT_WORK : EVERY_MS, signal);
  }
}

const none = () => notice('calm', 'No table is an entity yet', h('p', null, 'Enable one, as its owner or a superuser. From then on every change of its rows is an event, and this page has it:'), statement("select headwater.enable('public.orders', entity => 'order', tenant_column => 'tenant_id');"));

/** @param {any} entity @param {any} found @param {Set<string | null>} open */
function card(entity, found, open) {
  const type = entity.entity_type;
  const id = h('input', { name: 'id', 'aria-label': `Id of ${type}`, placeholder: 'id', required: true, autocomplete: 'off' });
  const look = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = `#/timeline/${encodeURIComponent(type)}/${encodeURIComponent(id.value.trim())}`;
  };
  const facts = [
    ['Rows', entity.rows === null ? '–' : `about ${count(entity.rows)}`],
    ['Events', `${found.events_exact ? '' : 'about '}${count(entity.events)}`],
    ['Last event', entity.last_event_at ? ago(entity.last_event_at) : 'none of late'],
    ['Tenants', entity.tenant_column ? h('code', null, entity.tenant_column) : 'shared by all'],
    ['Key', h('code', null, entity.key_columns.join(', '))],
    ['Notification', entity.notification ?? `${found.notification} (the streamer’s)`],
    ['Schema version', String(entity.schema_version)],
    ['Excluded', entity.excluded.length === 0 ? 'nothing' : h('code', null, entity.excluded.join(', '))],
  ];
  return h('article', { class: 'card', 'aria-labelledby': `entity-${type}` },
    h('header', null,
      h('h2', { id: `entity-${type}` }, type),
      h('code', { class: 'muted' }, entity.table ?? 'its table is gone'),
      !entity.enabled ? h('span', { class: 'pill warn' }, 'disabled: history only') : entity.table === null ? h('span', { class: 'pill bad' }, 'table gone') : h('span', { class: 'pill good' }, 'captured')),
    h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value)))),
    backfill(entity),
    h('details', { 'data-entity': type, open: open.has(type) },
      h('summary', null, `Rules of ${Object.keys(entity.rules).length} events`),
      table(`Rules of ${type}`, ['Event', 'What it does to the row'], Object.entries(entity.rules).map(([event, rule]) => [h('code', null, `${type}.${event}`), says(rule)]))),
    h('footer', null,
      h('a', { href: `#/events?entity_type=${encodeURIComponent(type)}` }, 'Watch its events'),
      h('form', { class: 'inline', onsubmit: look }, id, h('button', { type: 'submit' }, 'Open timeline'))));
}

/** @param {any} entity */
function backfill(entity) {
  if (!entity.enabled || (entity.backfilled && entity.backfill === null)) return null;
  const progress = entity.backfill;
  if (progress === null) return h('div', { class: 'backfill' }, h('p', null, 'Rows that were there before may lack their baseline. Until then each gets one with its first change.'), statement(`call headwater.backfill('${entity.table}');`));
  const share = progress.pages > 0 ? progress.pages_done / progress.pages : 1;
  return h('div', { class: 'backfill' },
    h('label', null, `Backfill: ${Math.floor(share * 100)} %, ${count(progress.written)} baselines written, ${bytes((progress.pages - progress.pages_done) * 8192)} to read`,
      h('progress', { max: 1, value: share })));
}

/** A merge rule in words. @param {any} rule */
function says(rule) {
  const field = h('code', null, rule.field);
  const list = (/** @type {string[]} */ names) => names.map((name, place) => [place > 0 ? ', ' : '', h('code', null, name)]);
  switch (rule.rule) {
    case 'create': return 'creates it from the payload; if it is there, sets the given fields';
    case 'set': return rule.fields ? ['sets ', list(rule.fields)] : 'sets the fields that the payload has';
    case 'unset': return ['empties ', list(rule.fields ?? [rule.field])];
    case 'append': return ['appends the payload’s ', h('code', null, rule.value), ' to ', field];
    case 'remove': return ['removes from ', field, ' where ', Object.entries(rule.where ?? {}).map(([key, value], place) => [place > 0 ? ' and ' : '', h('code', null, `${key} = ${value}`)])];
    case 'increment': return ['adds the payload’s ', h('code', null, rule.by), ' to ', field];
    case 'delete': return 'deletes it';
    case 'ignore': return 'nothing: history only';
    case 'custom': return ['what ', h('code', null, rule.function), ' makes of it'];
    default: return h('code', null, JSON.stringify(rule));
  }
}
