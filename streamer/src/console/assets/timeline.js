// @ts-check
/** What happened to one entity, and what it was at any instant. */

import { call } from './api.js';
import { h, heading, notice, put, trouble } from './dom.js';
import { facts } from './events.js';
import { brief, clock, count } from './format.js';

const PAGE = 200;

/** @param {import('./main.js').Place} place */
export async function timeline({ root, path, query, signal }) {
  const [type = '', id = ''] = path;
  const tenant = query.get('tenant_id') ?? '';
  const types = h('input', { id: 'of-type', name: 'type', value: type, required: true, list: 'entity-types', autocomplete: 'off', placeholder: 'order' });
  const ids = h('input', { id: 'of-id', name: 'id', value: id, required: true, autocomplete: 'off', placeholder: 'id' });
  const tenants = h('input', { id: 'of-tenant', name: 'tenant', value: tenant, autocomplete: 'off', placeholder: 'any' });
  const known = h('datalist', { id: 'entity-types' });
  const look = (/** @type {Event} */ event) => {
    event.preventDefault();
    const whose = tenants.value.trim();
    location.hash = `#/timeline/${encodeURIComponent(types.value.trim())}/${encodeURIComponent(ids.value.trim())}${whose ? `?tenant_id=${encodeURIComponent(whose)}` : ''}`;
  };
  const body = h('div', { class: 'stack' });
  put(root, heading('Timeline'),
    h('form', { class: 'filters', onsubmit: look },
      h('label', { for: 'of-type' }, 'Entity', types, known),
      h('label', { for: 'of-id' }, 'Id', ids),
      h('label', { for: 'of-tenant' }, 'Tenant', tenants),
      h('button', { type: 'submit' }, 'Show')),
    body);
  void call('entities', { signal }).then(({ entities }) => put(known, entities.map((/** @type {any} */ entity) => h('option', { value: entity.entity_type }))), () => undefined);
  if (type === '' || id === '') {
    put(body, notice('calm', 'Whose history?', h('p', null, 'Name an entity and the id of one of its rows, or open one from ', h('a', { href: '#/events' }, 'the live events'), '. Parts of a composite key are joined by ', h('code', null, '/'), '.')));
    return;
  }

  const base = `entities/${encodeURIComponent(type)}/${encodeURIComponent(id)}`;
  /** @type {any[]} */
  const all = [];
  let more = true;
  /** @type {Map<number, Promise<any>>} States behind so many events. */
  const states = new Map();

  const load = async () => {
    const last = all.at(-1);
    const { events } = await call(`${base}/history`, { query: { tenant_id: tenant, since: last?.timestamp, after: last?.id, limit: PAGE }, signal });
    all.push(...events);
    more = events.length === PAGE;
  };
  /** The state behind the first `index` events. @param {number} index */
  const behind = (index) => {
    let state = states.get(index);
    if (state === undefined) {
      const event = all[index - 1];
      // Before the first event: what the row was when the table was enabled, if it was.
      const asOf = event?.timestamp ?? before(all[0]?.timestamp);
      state = call(`${base}/state`, { query: { tenant_id: tenant, as_of: asOf }, signal }).then(({ state: found }) => found);
      state.catch(() => states.delete(index));
      states.set(index, state);
    }
    return state;
  };

  try {
    await load();
  } catch (error) {
    if (!signal.aborted) put(body, trouble(error));
    return;
  }
  if (all.length === 0) {
    put(body, notice('calm', 'Nothing is recorded of this one', h('p', null, 'It may never have changed since its table was enabled, or the id is spelt otherwise.')), await present());
    return;
  }

  const slider = h('input', { type: 'range', min: 0, max: all.length, value: all.length, id: 'moment' });
  const where = h('output', { for: 'moment' });
  const instant = h('input', { type: 'text', id: 'instant', placeholder: '2026-01-02T03:04:05Z', autocomplete: 'off' });
  const list = h('ol', { class: 'moments', 'aria-label': 'What happened, oldest first' });
  const state = h('div', { class: 'state', 'aria-live': 'polite' });
  const further = h('button', { type: 'button', onclick: () => void load().then(draw) }, 'Load more');
  let chosen = 0;

  const choose = async (/** @type {number} */ index) => {
    chosen = index;
    slider.value = String(index);
    where.textContent = index === 0 ? 'before the first event' : `after event ${count(index)} of ${count(all.length)}${more ? ' or more' : ''}`;
    for (const [place, button] of [...list.querySelectorAll('button.moment')].entries()) {
      if (place + 1 === index) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
      button.classList.toggle('future', place + 1 > index);
    }
    try {
      const [then, previous] = await Promise.all([behind(index), index > 0 ? behind(index - 1) : null]);
      if (chosen === index) put(state, compare(then, previous, index > 0));
    } catch (error) {
      if (!signal.aborted && chosen === index) put(state, trouble(error));
    }
  };
  slider.addEventListener('input', () => void choose(Number(slider.value)));
  const at = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const time = new Date(instant.value.trim());
    chosen = -1;
    if (Number.isNaN(time.getTime())) {
      put(state, notice('warn', 'That is not a time', h('p', null, 'As 2026-01-02T03:04:05Z, or 2026-01-02 03:04 of your own zone.')));
      return;
    }
    try {
      const asOf = /[zZ]$/.test(instant.value.trim()) ? instant.value.trim() : time.toISOString();
      const found = await call(`${base}/state`, { query: { tenant_id: tenant, as_of: asOf }, signal });
      where.textContent = `at ${found.as_of}`;
      put(state, compare(found.state, null, false));
    } catch (error) {
      if (!signal.aborted) put(state, trouble(error));
    }
  };

  function draw() {
    slider.max = String(all.length);
    put(list, all.map((event, place) => h('li', null,
      h('button', { type: 'button', class: 'moment', onclick: () => void choose(place + 1) },
        h('span', { class: 'when' }, clock(event.timestamp)),
        h('strong', null, event.event_type),
        h('span', { class: `tag source ${event.source}` }, event.source),
        h('span', { class: 'payload' }, brief(event.payload, 90))),
      h('details', null, h('summary', null, 'Details'), facts(event), h('pre', { tabindex: '0' }, JSON.stringify(event.payload, null, 2))))));
    further.hidden = !more;
    void choose(all.length);
  }
  put(body,
    h('div', { class: 'travel card' },
      h('label', { for: 'moment' }, 'State ', where), slider,
      h('form', { class: 'inline', onsubmit: at }, h('label', { for: 'instant' }, 'or at the instant'), instant, h('button', { type: 'submit' }, 'Look'))),
    h('div', { class: 'pair wide' },
      h('section', { 'aria-labelledby': 'happened' }, h('h2', { id: 'happened' }, 'What happened'), list, further),
      h('section', { class: 'then', 'aria-labelledby': 'state' }, h('h2', { id: 'state' }, 'What it was then'), state)));
  draw();

  async function present() {
    try {
      const { state: now } = await call(`${base}/state`, { query: { tenant_id: tenant }, signal });
      return now === null ? null : h('section', null, h('h2', null, 'Its state'), compare(now, null, false));
    } catch {
      return null;
    }
  }
}

/** A microsecond earlier. JavaScript's dates know milliseconds only. @param {string} time */
function before(time) {
  const whole = Date.parse(`${time.slice(0, 19)}Z`);
  const micros = Number(time.slice(20, 26)) - 1;
  if (micros >= 0) return `${time.slice(0, 19)}.${String(micros).padStart(6, '0')}Z`;
  return `${new Date(whole - 1000).toISOString().slice(0, 19)}.999999Z`;
}

/** @param {any} then @param {any} previous @param {boolean} marked */
function compare(then, previous, marked) {
  if (then === null) return notice('calm', 'It did not exist');
  const names = [...new Set([...Object.keys(then), ...Object.keys(previous ?? {})])];
  return h('dl', { class: 'fields' }, names.map((name) => {
    const [value, old] = [lines(then[name]), lines(previous?.[name])];
    const changed = marked && value.join('\n') !== old.join('\n');
    const tag = old.length === 0 ? 'new' : value.length === 0 ? 'gone' : 'changed';
    return h('div', { class: changed ? 'changed' : '' },
      h('dt', null, name, changed ? h('span', { class: 'tag' }, tag) : null),
      h('dd', null, (changed ? difference(old, value) : value.map((text) => /** @type {[string, string]} */ (['span', text]))).map(([kind, text]) => h(kind, null, text, '\n'))));
  }));
}

/** @param {unknown} value @returns {string[]} none where there is no value */
const lines = (value) => (value === undefined ? [] : JSON.stringify(value, null, 2).split('\n'));

/** More lines than this are shown as a whole, old and new: to compare them takes the product of their numbers. */
const COMPARED = 400;

/**
 * Which lines went (`del`), came (`ins`) and stayed (`span`), by the longest common subsequence.
 * @param {string[]} old
 * @param {string[]} value
 * @returns {[string, string][]}
 */
function difference(old, value) {
  if (old.length > COMPARED || value.length > COMPARED) return [...old.map((text) => /** @type {[string, string]} */ (['del', text])), ...value.map((text) => /** @type {[string, string]} */ (['ins', text]))];
  const common = Array.from({ length: old.length + 1 }, () => new Uint16Array(value.length + 1));
  /** @param {number} i @param {number} j */
  const at = (i, j) => common[i]?.[j] ?? 0;
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = value.length - 1; j >= 0; j -= 1) {
      const row = common[i];
      if (row !== undefined) row[j] = old[i] === value[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  /** @type {[string, string][]} */
  const found = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < value.length) {
    if (i < old.length && j < value.length && old[i] === value[j]) {
      found.push(['span', value[j] ?? '']);
      i += 1;
      j += 1;
    } else if (i < old.length && (j >= value.length || at(i + 1, j) >= at(i, j + 1))) {
      found.push(['del', old[i] ?? '']);
      i += 1;
    } else {
      found.push(['ins', value[j] ?? '']);
      j += 1;
    }
  }
  return found;
}
