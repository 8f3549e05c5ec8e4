// @ts-check
/** What is wrong with the set-up, each with the statement that mends it. */

import { call } from './api.js';
import { h, heading, notice, put, statement, trouble } from './dom.js';

/** @param {import('./main.js').Place} place */
export async function problems({ root, signal }) {
  const body = h('div', { 'aria-live': 'polite' });
  const again = h('button', { type: 'button', onclick: () => void look() }, 'Look again');
  put(root, heading('Set-up', again), h('p', { class: 'muted' }, 'What ', h('code', null, 'headwater.check()'), ' finds in this database. The machine itself: ', h('code', null, 'headwater doctor'), '.'), body);
  const look = async () => {
    again.disabled = true;
    try {
      const { problems: found } = await call('problems', { signal });
      put(body, found.length === 0
        ? notice('good', 'All is well', h('p', null, `Looked at ${new Date().toLocaleTimeString('en-GB')}: tables are captured, publications and roles are there, nothing holds back the log.`))
        : h('div', { class: 'cards' }, found.map((/** @type {any} */ one) => h('article', { class: 'card problem' }, h('h2', null, one.problem), h('p', { class: 'muted' }, 'To mend it:'), statement(one.statement)))));
    } catch (error) {
      if (!signal.aborted) put(body, trouble(error));
    }
    again.disabled = false;
  };
  await look();
}
