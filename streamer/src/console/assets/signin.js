// @ts-check
/** The door: asks for the secret, once. */

import { Problem, signIn } from './api.js';
import { h } from './dom.js';

/** @param {() => void} done @returns {Element} */
export function door(done) {
  const input = h('input', { id: 'secret', type: 'password', autocomplete: 'current-password', required: true, 'aria-describedby': 'secret-help secret-error' });
  const error = h('p', { id: 'secret-error', class: 'form-error', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const secret = input.value.trim();
    if (secret === '') return;
    button.setAttribute('disabled', '');
    error.textContent = '';
    try {
      await signIn(secret);
      done();
    } catch (reason) {
      error.textContent = reason instanceof Problem && reason.code === 'invalid_token' ? 'That is not the secret of this streamer, nor a token that it takes.' : String(reason instanceof Error ? reason.message : reason);
      button.removeAttribute('disabled');
      input.focus();
      input.select();
    }
  };
  queueMicrotask(() => input.focus());
  return h('main', { class: 'door' },
    h('img', { class: 'mark', src: new URL('icon.svg', import.meta.url).href, alt: '', width: 44, height: 44 }),
    h('h1', null, 'Headwater console'),
    h('form', { onsubmit: submit },
      // Password managers keep the secret under a name.
      h('input', { type: 'text', autocomplete: 'username', value: 'operator', hidden: true, 'aria-hidden': 'true', tabindex: '-1' }),
      h('label', { for: 'secret' }, 'Administrators’ secret, or an operator’s token'),
      input,
      h('p', { id: 'secret-help', class: 'muted' }, 'What ', h('code', null, 'headwater serve --admin-secret'), ' was started with; of ', h('code', null, 'make demo'), ' it stands in ', h('code', null, '.headwater/console.password'), '. It is kept in this tab until you close it.'),
      error,
      button));
}
