// @ts-check
/** Dead letters: what was refused, why, and what to do with it. */

import { Problem, call } from './api.js';
import { h, heading, notice, put, statement, trouble } from './dom.js';
import { link } from './events.js';
import { ago, count, exact } from './format.js';
import { pause } from './overview.js';

const EVERY_MS = 5000;

/** @param {import('./main.js').Place} place */
export async function letters({ root, signal }) {
  const body = h('div', { class: 'stack' });
  const said = h('p', { role: 'status', class: 'outcome' });
  put(root, heading('Dead letters'), h('p', { class: 'muted' }, 'Events that clients sent and the server refused. A replay judges one again, as its sender’s; what is discarded stays refused.'), said, body);
  let drawn = '';
  const show = async () => {
    const found = await call('dead-letters', { signal });
    const text = JSON.stringify(found);
    if (text === drawn) return;
    drawn = text;
    put(body, list(found));
  };
  while (!signal.aborted) {
    try {
      await show();
    } catch (error) {
      if (signal.aborted) return;
      drawn = '';
      put(body, trouble(error));
    }
    await pause(EVERY_MS, signal);
  }

  /** @param {any} found */
  function list(found) {
    if (found.letters === null) return notice('warn', 'The streamer’s role may not see dead letters', h('p', null, 'They hold whatever clients sent, of every tenant, so only headwater_admin sees them. To allow it, run as a superuser:'), statement(found.statement));
    if (found.letters.length === 0) return notice('good', 'No dead letters', h('p', null, 'Nothing that clients sent waits for a decision.'));
    return [
      !found.writes && notice('calm', 'Only reading', h('p', null, 'To replay and discard here, start the streamer with ', h('code', null, '--console-writes'), '. In SQL it can be done at any time:'), statement('select headwater.retry_rejected(id, tenant_id) from headwater.rejected_event;')),
      h('p', { class: 'muted' }, found.count > found.letters.length ? `The newest ${count(found.letters.length)} of ${count(found.count)}.` : `${count(found.count)} of them.`),
      h('div', { class: 'cards' }, found.letters.map((/** @type {any} */ letter) => card(letter, found.writes))),
    ];
  }

  /** @param {any} letter @param {boolean} writes */
  function card(letter, writes) {
    const event = letter.event;
    const decide = async (/** @type {string} */ decision) => {
      for (const button of buttons.querySelectorAll('button')) button.disabled = true;
      try {
        const { outcome } = await call(`dead-letters/${letter.id}/${decision}`, { method: 'POST', query: { tenant_id: letter.tenant_id ?? undefined }, signal });
        const refused = outcome?.rejected?.[0];
        said.textContent = decision === 'discard' ? `${event.event_type} was discarded.` : refused ? `${event.event_type} was refused again: ${refused.reason}` : `${event.event_type} was accepted.`;
        said.className = `outcome ${refused ? 'bad' : 'good'}`;
      } catch (error) {
        if (signal.aborted) return;
        said.textContent = error instanceof Problem ? error.message : String(error);
        said.className = 'outcome bad';
      }
      for (const button of buttons.querySelectorAll('button')) button.disabled = false;
      await show().catch(() => undefined);
    };
    const sure = h('button', { type: 'button', class: 'danger', hidden: true, onclick: () => void decide('discard') }, 'Discard for good');
    const discard = h('button', { type: 'button', onclick: () => {
      discard.hidden = true;
      sure.hidden = false;
      sure.focus();
    } }, 'Discard');
    const buttons = h('footer', null, h('button', { type: 'button', class: 'primary', onclick: () => void decide('retry') }, 'Replay'), discard, sure);
    return h('article', { class: 'card letter', 'aria-label': `${event.event_type}, refused` },
      h('header', null, h('h2', null, event.event_type), h('span', { class: 'pill bad' }, letter.code), h('span', { class: 'muted' }, ago(letter.rejected_at))),
      h('p', { class: 'reason' }, letter.reason),
      h('dl', { class: 'facts' }, [['Entity', h('a', { href: link({ ...event, tenant_id: letter.tenant_id }) }, `${event.entity_type} ${event.entity_id}`)], ['Tenant', letter.tenant_id ?? 'none'], ['User', letter.user_id ?? event.user_id ?? 'unknown'], ['Device', event.client_id ?? 'none'], ['Happened', exact(event.timestamp)], ['Id', letter.id]].map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value)))),
      h('details', null, h('summary', null, 'Payload'), h('pre', { tabindex: '0' }, JSON.stringify(event.payload, null, 2))),
      writes && buttons);
  }
}
