// @ts-check
/** Makes elements. Text is always text: whatever an event holds, it becomes no markup. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @param {string} name
 * @param {Record<string, any> | null} [properties] `class`, `on…` listeners, attributes; false and undefined are left out
 * @param {...any} children
 * @returns {any}
 */
export function h(name, properties, ...children) {
  return fill(document.createElement(name), properties, children);
}

/**
 * The same for SVG.
 * @param {string} name
 * @param {Record<string, any> | null} [properties]
 * @param {...any} children
 * @returns {any}
 */
export function s(name, properties, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

/**
 * @param {Element} element
 * @param {Record<string, any> | null | undefined} properties
 * @param {any[]} children
 */
function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === false || value === undefined || value === null) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} parent
 * @param {any} child
 */
function append(parent, child) {
  if (Array.isArray(child)) for (const one of child) append(parent, one);
  else if (child !== null && child !== undefined && child !== false) parent.append(child instanceof Node ? child : String(child));
}

/**
 * Puts new children in place of the old ones.
 * @param {Element} parent
 * @param {...any} children
 */
export function put(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * A heading for a view. It takes the focus when the view opens, so that keyboards and screen readers start there.
 * @param {string} title
 * @param {...any} more
 */
export const heading = (title, ...more) => h('header', { class: 'view-head' }, h('h1', { tabindex: '-1' }, title), ...more);

/**
 * Something that is empty or wrong, and what to do about it.
 * @param {string} kind `calm`, `good`, `warn` or `bad`
 * @param {string} title
 * @param {...any} more
 */
export const notice = (kind, title, ...more) => h('div', { class: `notice ${kind}` }, h('p', { class: 'notice-title' }, title), ...more);

/** @param {unknown} error */
export const trouble = (error) => notice('bad', 'This could not be read', h('p', null, error instanceof Error ? error.message : String(error)));

/**
 * A statement to run somewhere else, with a button that copies it.
 * @param {string} text
 */
export function statement(text) {
  const code = h('code', null, text);
  const button = h('button', {
    type: 'button',
    class: 'quiet',
    'aria-label': `Copy: ${text}`,
    onclick: async () => {
      const done = await copy(text, code);
      button.textContent = done ? 'Copied' : 'Press Ctrl+C';
      setTimeout(() => (button.textContent = 'Copy'), 2000);
    },
  }, 'Copy');
  return h('div', { class: 'statement' }, h('pre', { tabindex: '0' }, code), button);
}

/**
 * @param {string} text
 * @param {Element} element
 */
async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not over plain HTTP: then it is at least selected.
    getSelection()?.selectAllChildren(element);
    return false;
  }
}

/**
 * A table that scrolls by itself where it does not fit.
 * @param {string} caption
 * @param {string[]} heads
 * @param {any[][]} rows
 * @param {string} [kind]
 */
export const table = (caption, heads, rows, kind = '') =>
  h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', { class: kind },
      h('thead', null, h('tr', null, heads.map((head) => h('th', { scope: 'col' }, head)))),
      h('tbody', null, rows.map((cells) => h('tr', null, cells.map((cell, place) => h('td', { 'data-label': heads[place] }, cell)))))));
