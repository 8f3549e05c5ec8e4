// @ts-check
/** Puts the page together: the door, the frame, and the view that the address names. */

import { isSignedIn, signOut } from './api.js';
import { h, put } from './dom.js';
import { entities } from './entities.js';
import { events } from './events.js';
import { letters } from './letters.js';
import { overview } from './overview.js';
import { problems } from './problems.js';
import { door } from './signin.js';
import { timeline } from './timeline.js';

/**
 * What a view gets: where to draw, the rest of the address, and a signal that ends when another view opens.
 * @typedef {{root: HTMLElement, path: string[], query: URLSearchParams, signal: AbortSignal}} Place
 */

/** @type {[string, string, (place: Place) => void | Promise<void>][]} */
const VIEWS = [
  ['overview', 'Overview', overview],
  ['entities', 'Entities', entities],
  ['events', 'Live events', events],
  ['timeline', 'Timeline', timeline],
  ['dead-letters', 'Dead letters', letters],
  ['setup', 'Set-up', problems],
];

const app = /** @type {HTMLElement} */ (document.getElementById('app'));
let ending = new AbortController();
/** @type {HTMLElement | undefined} */
let content;

function frame() {
  content = h('main', { id: 'content' });
  put(app,
    h('a', { class: 'skip', href: '#content', onclick: (/** @type {Event} */ event) => {
      event.preventDefault();
      content?.querySelector('h1')?.focus();
    } }, 'Skip to the content'),
    h('div', { class: 'frame' },
      h('div', { class: 'side' },
        h('div', { class: 'brand' }, h('img', { src: new URL('icon.svg', import.meta.url).href, alt: '', width: 28, height: 28 }), h('span', null, 'Headwater')),
        h('nav', { 'aria-label': 'Views' }, VIEWS.map(([id, title]) => h('a', { href: `#/${id}`, 'data-view': id }, title))),
        h('button', { type: 'button', class: 'quiet sign-out', onclick: signOut }, 'Sign out')),
      content));
}

function open() {
  ending.abort();
  ending = new AbortController();
  if (!isSignedIn()) {
    content = undefined;
    document.title = 'Sign in · Headwater console';
    put(app, door(open));
    return;
  }
  const moved = content !== undefined;
  if (content === undefined) frame();
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const [id = '', ...rest] = path.split('/').map(decodeURIComponent);
  const [name, title, view] = VIEWS.find(([known]) => known === id) ?? /** @type {(typeof VIEWS)[0]} */ (VIEWS[0]);
  document.title = `${title} · Headwater console`;
  for (const link of app.querySelectorAll('[data-view]')) {
    if (link.getAttribute('data-view') === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const root = h('div', { class: `view ${name}` });
  put(/** @type {HTMLElement} */ (content), root);
  void view({ root, path: rest, query: new URLSearchParams(query), signal: ending.signal });
  if (moved) root.querySelector('h1')?.focus({ preventScroll: true });
}

addEventListener('hashchange', open);
addEventListener('signed-out', open);
open();
