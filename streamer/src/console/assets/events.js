// @ts-check
/** The newest events, and those that come, as they come. */

import { call } from './api.js';
import { h, heading, notice, put, trouble } from './dom.js';
import { brief, clock, count, exact } from './format.js';
import { pause } from './overview.js';

/** Rows that are shown; older ones make room. */
const SHOWN = 200;
const RETRY_MS = 2000;

/** @param {import('./main.js').Place} place */
export async function events({ root, query, signal }) {
  const asked = { entity_type: query.get('entity_type') ?? '', entity_id: query.get('entity_id') ?? '', source: query.get('source') ?? '', tenant_id: query.get('tenant_id') ?? '' };
  const type = h('select', { id: 'tail-type', name: 'entity_type' }, h('option', { value: '' }, 'All entities'), asked.entity_type && h('option', { value: asked.entity_type, selected: true }, asked.entity_type));
  const id = h('input', { id: 'tail-id', name: 'entity_id', value: asked.entity_id, placeholder: 'any', autocomplete: 'off' });
  const tenant = h('input', { id: 'tail-tenant', name: 'tenant_id', value: asked.tenant_id, placeholder: 'any', autocomplete: 'off' });
  const source = h('select', { id: 'tail-source', name: 'source' }, [['', 'All sources'], ['client', 'client: posted'], ['sql', 'sql: emitted'], ['capture', 'capture: plain SQL']].map(([value, text]) => h('option', { value, selected: value === asked.source }, text)));
  const state = h('span', { class: 'pill', role: 'status' }, 'Asking…');
  const hold = h('button', { type: 'button', 'aria-pressed': 'false' }, 'Pause');
  const list = h('ol', { class: 'tail', 'aria-label': 'Events, newest first' });
  const note = h('div', null);
  const narrow = (/** @type {Event} */ event) => {
    event.preventDefault();
    const wanted = new URLSearchParams();
    for (const input of [type, id, tenant, source]) if (input.value.trim() !== '') wanted.set(input.name, input.value.trim());
    location.hash = `#/events${wanted.size > 0 ? `?${wanted}` : ''}`;
  };
  put(root,
    heading('Live events', state),
    h('form', { class: 'filters', onsubmit: narrow, onchange: (/** @type {Event} */ event) => event.target !== id && event.target !== tenant && narrow(event) },
      h('label', { for: 'tail-type' }, 'Entity', type),
      h('label', { for: 'tail-id' }, 'Entity id', id),
      h('label', { for: 'tail-tenant' }, 'Tenant', tenant),
      h('label', { for: 'tail-source' }, 'Source', source),
      h('button', { type: 'submit' }, 'Filter'),
      hold),
    note, list);

  /** @type {any[]} What came while the list was held. */
  let waiting = [];
  let held = false;
  const seen = new Set();
  const say = () => {
    state.className = `pill ${held ? 'warn' : 'good'}`;
    state.textContent = held ? `Paused${waiting.length > 0 ? ` · ${count(waiting.length)} new` : ''}` : 'Live';
  };
  hold.addEventListener('click', () => {
    held = !held;
    hold.setAttribute('aria-pressed', String(held));
    hold.textContent = held ? 'Go on' : 'Pause';
    if (!held) {
      show(waiting);
      waiting = [];
    }
    say();
  });
  /** @param {any[]} news oldest first */
  const show = (news) => {
    for (const event of news.slice(-SHOWN)) list.prepend(row(event));
    while (list.children.length > SHOWN) list.lastElementChild?.remove();
    if (news.length > 0) put(note);
  };

  void call('entities', { signal }).then(({ entities }) => {
    for (const { entity_type: name } of entities) if (name !== asked.entity_type) type.append(h('option', { value: name }, name));
  }, () => undefined);

  /** @type {string | null} */
  let cursor = null;
  while (!signal.aborted) {
    try {
      if (cursor === null) {
        const found = await call('events', { query: { ...asked, limit: 100 }, signal });
        // Nothing is certain yet while the streamer starts: then it is asked again.
        cursor = found.cursor;
        put(list);
        seen.clear();
        for (const event of found.events) seen.add(event.id);
        show(found.events.reverse());
        if (found.events.length === 0) put(note, empty(asked));
        say();
        if (cursor === null) await pause(RETRY_MS, signal);
        continue;
      }
      const found = await call('tail', { query: { cursor, entity_type: asked.entity_type, entity_id: asked.entity_id }, signal });
      cursor = found.cursor;
      const news = found.events.filter((/** @type {any} */ event) => !seen.has(event.id) && (asked.source === '' || event.source === asked.source) && (asked.tenant_id === '' || event.tenant_id === asked.tenant_id));
      // What comes twice comes soon.
      if (seen.size > 5000) seen.clear();
      for (const event of news) seen.add(event.id);
      if (held) waiting = [...waiting, ...news].slice(-SHOWN);
      else show(news);
      say();
    } catch (error) {
      if (signal.aborted) return;
      state.className = 'pill bad';
      state.textContent = 'Not live';
      if (list.children.length === 0) put(note, trouble(error));
      // Another history, or one of which the beginning is gone: the list is made anew.
      if (/** @type {any} */ (error).status === 410) cursor = null;
      await pause(RETRY_MS, signal);
    }
  }
}

/** @param {Record<string, string>} asked */
function empty(asked) {
  if (Object.values(asked).some((text) => text !== '')) return notice('calm', 'No such event yet', h('p', null, 'What comes and fits the filter appears here at once.'));
  return notice('calm', 'Nothing has happened yet', h('p', null, 'Change a row of an enabled table with plain SQL, or post an event: it appears here at once.'));
}

/** @param {any} event */
function row(event) {
  const [, name = event.event_type] = event.event_type.split(/\.(.*)/s);
  return h('li', null, h('details', null,
    h('summary', null,
      h('time', { datetime: event.timestamp, title: event.timestamp }, clock(event.recorded_at)),
      h('span', { class: 'what' }, h('span', { class: 'muted' }, `${event.entity_type}.`), h('strong', null, name)),
      h('code', { class: 'id' }, event.entity_id),
      h('span', { class: `tag source ${event.source}` }, event.source),
      h('span', { class: 'payload' }, brief(event.payload))),
    h('div', { class: 'event' },
      h('a', { href: link(event) }, 'Open its timeline'),
      facts(event),
      h('pre', { tabindex: '0' }, JSON.stringify(event.payload, null, 2)))));
}

/** @param {any} event */
export const link = (event) => `#/timeline/${encodeURIComponent(event.entity_type)}/${encodeURIComponent(event.entity_id)}${event.tenant_id ? `?tenant_id=${encodeURIComponent(event.tenant_id)}` : ''}`;

/** @param {any} event */
export const facts = (event) => h('dl', { class: 'facts' }, [
  ['Happened', exact(event.timestamp)], ['Recorded', exact(event.recorded_at)], ['Tenant', event.tenant_id ?? 'none'], ['User', event.user_id ?? 'unknown'],
  ['Device', event.client_id ?? 'none'], ['Position', count(event.position)], ['Id', event.id], ['Changes state', event.applies ? 'yes' : 'no: history only'],
].map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value))));
