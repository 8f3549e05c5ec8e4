// @ts-check
/** A line over the last minutes: SVG by hand, scaled by the browser, its value under the pointer or the arrow keys. */

import { h, put, s } from './dom.js';

const WIDTH = 600;
const HEIGHT = 120;
/** What is shown, in milliseconds: what there is, from a minute up to as much as the streamer keeps. */
const LEAST = 60_000;
const MOST = 15 * 60_000;

/** @param {number} value the next of 1, 2, 5, 10, 20, … at or above it */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  for (const step of [1, 2, 5, 10]) if (value <= step * power) return step * power;
  return value;
}

/** @param {number} value the next power of two, so that sizes have round names */
const binary = (value) => 2 ** Math.ceil(Math.log2(Math.max(value, 1024)));

/**
 * @param {{title: string, say: (value: number) => string, sizes?: boolean, colour: string}} options
 * @returns {{element: Element, update: (points: {at: number, value: number | null}[]) => void}}
 */
export function plot({ title, say, sizes = false, colour }) {
  const area = s('path', { class: 'area' });
  const line = s('path', { class: 'line' });
  const cross = s('line', { class: 'cross', y1: 0, y2: HEIGHT, visibility: 'hidden' });
  const grid = [0.5, 1].map((share) => s('line', { class: 'grid', x1: 0, x2: WIDTH, y1: HEIGHT * (1 - share) + 0.5, y2: HEIGHT * (1 - share) + 0.5 }));
  const picture = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, grid, area, line, cross);
  const now = h('span', { class: 'plot-now' }, '–');
  const top = h('span', { class: 'plot-top' });
  const from = h('span', null);
  const tip = h('span', { class: 'plot-tip', 'aria-live': 'polite' });
  const canvas = h('div', { class: 'plot-canvas', tabindex: '0', role: 'img', 'aria-label': title }, picture, top);
  const element = h('figure', { class: `plot ${colour}` },
    h('figcaption', null, h('span', { class: 'plot-title' }, title), now),
    canvas,
    h('div', { class: 'plot-foot' }, from, tip, h('span', null, 'now')));

  /** @type {{at: number, value: number | null}[]} */
  let points = [];
  let place = -1;
  let shown = LEAST;

  /** @param {number} at */
  const x = (at) => WIDTH - ((points.at(-1)?.at ?? 0) - at) / shown * WIDTH;

  const show = () => {
    const point = points[place];
    if (point === undefined) {
      cross.setAttribute('visibility', 'hidden');
      tip.textContent = '';
      return;
    }
    cross.setAttribute('x1', String(x(point.at)));
    cross.setAttribute('x2', String(x(point.at)));
    cross.setAttribute('visibility', 'visible');
    put(tip, new Date(point.at).toLocaleTimeString('en-GB'), '  ', h('strong', null, point.value === null ? 'unknown' : say(point.value)));
  };

  canvas.addEventListener('pointermove', (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    const at = (points.at(-1)?.at ?? 0) - (1 - (event.clientX - box.left) / box.width) * shown;
    place = points.reduce((best, point, index) => (Math.abs(point.at - at) < Math.abs((points[best]?.at ?? Infinity) - at) ? index : best), 0);
    show();
  });
  const leave = () => {
    place = -1;
    show();
  };
  canvas.addEventListener('pointerleave', leave);
  canvas.addEventListener('blur', leave);
  canvas.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
    const steps = /** @type {Record<string, number>} */ ({ ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 });
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    place = Math.max(0, Math.min(points.length - 1, (place < 0 ? points.length : place) + step));
    show();
  });

  const update = (/** @type {{at: number, value: number | null}[]} */ given) => {
    points = given.filter(({ at }) => at > (given.at(-1)?.at ?? 0) - MOST);
    shown = Math.max(LEAST, (points.at(-1)?.at ?? 0) - (points[0]?.at ?? 0));
    from.textContent = shown < 120_000 ? `${Math.round(shown / 1000)} s ago` : `${Math.round(shown / 60_000)} min ago`;
    const most = Math.max(0, ...points.map(({ value }) => value ?? 0));
    const high = sizes ? binary(most) : ceiling(most);
    const parts = [];
    let pen = false;
    let first = 0;
    let areas = '';
    for (const { at, value } of points) {
      if (value === null) {
        if (pen) areas += `L${x(at).toFixed(1)} ${HEIGHT}L${first} ${HEIGHT}Z`;
        pen = false;
        continue;
      }
      const point = `${x(at).toFixed(1)} ${(HEIGHT - (value / high) * (HEIGHT - 4)).toFixed(1)}`;
      if (!pen) first = Number(x(at).toFixed(1));
      parts.push(`${pen ? 'L' : 'M'}${point}`);
      areas += `${pen ? 'L' : 'M'}${point}`;
      pen = true;
    }
    if (pen) areas += `L${WIDTH} ${HEIGHT}L${first} ${HEIGHT}Z`;
    line.setAttribute('d', parts.join(''));
    area.setAttribute('d', areas);
    const last = points.at(-1)?.value;
    now.textContent = last === null || last === undefined ? '–' : say(last);
    top.textContent = say(high);
    canvas.setAttribute('aria-label', `${title}: now ${now.textContent}, at most ${say(most)} since ${from.textContent}. Arrow keys read values.`);
    show();
  };
  return { element, update };
}
