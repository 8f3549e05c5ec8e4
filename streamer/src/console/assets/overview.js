// @ts-check
/** How it goes: state, plots, slots, clients. */

import { call } from './api.js';
import { h, heading, notice, put, statement, table } from './dom.js';
import { bytes, count, rate, span } from './format.js';
import { plot } from './plot.js';

const EVERY_MS = 2000;
/** As much as the streamer keeps. */
const KEPT = 450;

const STATES = /** @type {Record<string, [string, string]>} */ ({
  active: ['good', 'Following the write-ahead log'],
  starting: ['warn', 'Catching up with Postgres'],
  unavailable: ['bad', 'No connection to Postgres; trying again'],
});

const WAL = /** @type {Record<string, [string, string]>} */ ({
  reserved: ['good', 'within max_wal_size'],
  extended: ['warn', 'beyond max_wal_size: kept for this slot'],
  unreserved: ['bad', 'the next checkpoint may remove WAL that it needs'],
  lost: ['bad', 'WAL that it needs is gone: the slot is of no use'],
});

/** @type {any[]} What the page has of the last minutes, whichever view is open. */
let samples = [];

/** @param {import('./main.js').Place} place */
export async function overview({ root, signal }) {
  const status = h('span', { class: 'pill' }, 'Asking…');
  const who = h('p', { class: 'muted' });
  const alarms = h('div', { role: 'status' });
  const tiles = h('dl', { class: 'tiles' });
  const rates = plot({ title: 'Events per second', say: (value) => `${rate(value)}/s`, colour: 'blue' });
  const lag = plot({ title: 'Replication lag', say: bytes, sizes: true, colour: 'violet' });
  const clients = plot({ title: 'Connected clients', say: (value) => count(Math.round(value)), colour: 'green' });
  const retained = plot({ title: 'WAL kept for this streamer', say: bytes, sizes: true, colour: 'orange' });
  const slots = h('section', { 'aria-labelledby': 'slots' });
  const transports = h('section', { 'aria-labelledby': 'transports' });
  const backend = h('section', { 'aria-labelledby': 'backend' });
  put(root,
    heading('Overview', status), who, alarms, tiles,
    h('div', { class: 'plots' }, rates.element, lag.element, clients.element, retained.element),
    slots,
    h('div', { class: 'pair' }, transports, backend));

  /** @type {Record<string, string>} */
  const drawn = {};
  /** Draws only what has changed: selections and the focus stay. @param {string} name @param {unknown} data @param {() => void} draw */
  const when = (name, data, draw) => {
    const text = JSON.stringify(data);
    if (drawn[name] === text) return;
    drawn[name] = text;
    draw();
  };

  while (!signal.aborted) {
    try {
      const now = await call('overview', { query: { after: samples.at(-1)?.number }, signal });
      const first = now.samples[0];
      // Another streamer, or the same one after a restart, counts anew.
      if (first !== undefined && samples.length > 0 && first.number <= samples.at(-1).number) samples = [];
      samples = [...samples, ...now.samples].slice(-KEPT);
      when('status', now.status, () => {
        const [kind, text] = STATES[now.status] ?? ['warn', now.status];
        status.className = `pill ${kind}`;
        status.textContent = text;
      });
      when('alarms', [now.slots_problem, now.slots?.map((/** @type {any} */ slot) => [slot.name, slot.wal_status, slot.active])], () => put(alarms, warnings(now)));
      put(who, `Streamer ${now.replica}, version ${now.version}, up for ${span(now.uptime_seconds * 1000)}`);
      draw(now);
    } catch (error) {
      if (signal.aborted) return;
      when('status', 'not reached', () => {
        status.className = 'pill bad';
        status.textContent = 'Not reached';
      });
      when('alarms', String(error), () => put(alarms, notice('bad', 'The streamer is not reached', h('p', null, error instanceof Error ? error.message : String(error)))));
    }
    await pause(EVERY_MS, signal);
  }

  /** @param {any} now */
  function draw(now) {
    const last = samples.at(-1);
    const speed = speeds();
    rates.update(speed);
    lag.update(samples.map((sample) => ({ at: sample.at_ms, value: sample.lag_bytes })));
    clients.update(samples.map((sample) => ({ at: sample.at_ms, value: sample.clients })));
    retained.update(samples.map((sample) => ({ at: sample.at_ms, value: sample.retained_bytes })));
    const open = Object.values(now.clients).reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one, 0);
    put(tiles,
      tile('Events per second', last === undefined ? '–' : rate(speed.at(-1)?.value ?? 0), last && `${count(last.events)} since the start`),
      tile('Replication lag', bytes(last?.lag_bytes), 'WAL written and not read yet'),
      tile('Connected clients', count(open), 'streams, waiting polls and shapes'),
      tile('Pollers read up to', now.watermark === null ? '–' : count(now.watermark), now.watermark_age_ms > 5000 ? `found ${span(now.watermark_age_ms)} ago: a writer is open` : 'the watermark, a position'),
      tile('Ring', bytes(now.ring.bytes), 'newest events, in memory'),
      tile('Database connections', `${now.pool.busy} of ${now.pool.most}`, now.pool.waiting > 0 ? `${now.pool.waiting} requests wait` : 'busy; none waits'));
    when('slots', now.slots, () => put(slots, h('h2', { id: 'slots' }, 'Replication slots'), slotTable(now)));
    when('clients', now.clients, () => put(transports, h('h2', { id: 'transports' }, 'Clients by transport'), bars(now.clients)));
    when('backend', now.notification, () => put(backend, h('h2', { id: 'backend' }, 'Notification backend'), notification(now.notification)));
  }
}

/** @returns {{at: number, value: number | null}[]} */
function speeds() {
  return samples.slice(1).map((sample, index) => {
    const before = samples[index];
    const seconds = (sample.at_ms - before.at_ms) / 1000;
    return { at: sample.at_ms, value: sample.streaming && seconds > 0 ? Math.max(0, (sample.events - before.events) / seconds) : null };
  });
}

/** @param {string} name @param {any} value @param {any} more */
const tile = (name, value, more) => h('div', null, h('dt', null, name), h('dd', null, value), h('dd', { class: 'muted' }, more || ' '));

/** @param {any} now */
function warnings(now) {
  if (now.slots_problem) return [notice('bad', 'The slots could not be read', h('p', null, now.slots_problem.detail))];
  return (now.slots ?? []).flatMap((/** @type {any} */ slot) => {
    const [kind, text] = WAL[slot.wal_status] ?? ['good', ''];
    if (kind === 'bad') return [notice('bad', `Slot ${slot.name} is ${slot.wal_status}`, h('p', null, `${text}. Let its consumer catch up, or raise max_slot_wal_keep_size.`))];
    if (!slot.active && slot.headwater) return [notice('warn', `Nobody reads slot ${slot.name}, and it keeps ${bytes(slot.retained_bytes)} of WAL`, h('p', null, 'Start the streamer of that name, or, if it is not to come back:'), statement(`select pg_drop_replication_slot('${slot.name}');`))];
    return [];
  });
}

/** @param {any} now */
function slotTable(now) {
  if (now.slots === null) return h('p', { class: 'muted' }, 'Postgres does not answer just now.');
  return table('Replication slots', ['Slot', 'State', 'WAL status', 'WAL kept', 'Room left', 'Database'], now.slots.map((/** @type {any} */ slot) => {
    const [kind, text] = WAL[slot.wal_status] ?? ['warn', ''];
    return [
      h('span', null, h('code', null, slot.name), slot.name === now.slot ? h('span', { class: 'tag' }, 'this streamer') : null),
      slot.active ? 'read' : 'not read',
      h('span', { class: `pill ${kind}`, title: text }, slot.wal_status ?? 'unknown'),
      bytes(slot.retained_bytes),
      slot.safe_bytes === null ? 'no limit set' : bytes(slot.safe_bytes),
      slot.database ?? 'physical',
    ];
  }));
}

const TRANSPORTS = /** @type {Record<string, string>} */ ({ sse: 'Server-Sent Events', websocket: 'WebSocket', poll: 'Long poll', shape: 'Shapes' });

/** @param {Record<string, number>} clients */
function bars(clients) {
  const most = Math.max(1, ...Object.values(clients));
  return h('ul', { class: 'bars' }, ['sse', 'websocket', 'poll', 'shape'].map((name) => {
    const open = clients[name] ?? 0;
    const bar = h('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.width = `${(open / most) * 100}%`;
    return h('li', null, h('span', null, TRANSPORTS[name]), h('span', { class: 'track' }, bar), h('strong', null, count(open)));
  }));
}

/** @param {any} notification */
function notification({ backend, redis }) {
  const texts = /** @type {Record<string, string>} */ ({
    memory: 'Clients are pushed to from this process’ memory.',
    noop: 'Nothing is pushed: clients poll.',
    redis: 'Clients are pushed to, and every event is published to Redis.',
  });
  return [
    h('p', null, h('span', { class: 'pill' }, backend), ' ', texts[backend] ?? '', ' Entities may have their own.'),
    redis && h('p', null, h('span', { class: `pill ${redis.connected ? 'good' : 'bad'}` }, redis.connected ? 'Redis answers' : 'Redis does not answer'), ` ${count(redis.published)} published, ${count(redis.gaps)} gaps, ${count(redis.rewinds)} times Redis came back with less.`),
  ];
}

/**
 * Until it is time to ask again; longer where nobody looks.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      if (document.hidden && !signal.aborted) return;
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', end);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(() => {
      document.addEventListener('visibilitychange', end);
      end();
    }, milliseconds);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}
