// @ts-check
/** Asks the streamer. The secret stands in a header of each request, and in this tab's memory of the session; never in an address. */

const BASE = new URL('api/', import.meta.url);
const KEY = 'headwater-console';

/** What went wrong, as a problem document (RFC 9457) says it. */
export class Problem extends Error {
  /**
   * @param {number} status 0 where there was no answer
   * @param {string} code
   * @param {string} detail
   */
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Whether this tab has a secret. */
export const isSignedIn = () => sessionStorage.getItem(KEY) !== null;

/** Forgets the secret. */
export function signOut() {
  sessionStorage.removeItem(KEY);
  dispatchEvent(new Event('signed-out'));
}

/**
 * Tries a secret, and keeps it if it is good.
 * @param {string} secret
 */
export async function signIn(secret) {
  const answer = await ask('sign-in', { method: 'POST' }, secret);
  sessionStorage.setItem(KEY, secret);
  return answer;
}

/**
 * @param {string} path below `/console/api/`
 * @param {{method?: string, query?: Record<string, string | number | undefined>, signal?: AbortSignal}} [options]
 * @returns {Promise<any>}
 */
export async function call(path, options = {}) {
  const secret = sessionStorage.getItem(KEY) ?? '';
  try {
    return await ask(path, options, secret);
  } catch (error) {
    // The secret was changed, or the token has expired.
    if (error instanceof Problem && error.status === 401 && sessionStorage.getItem(KEY) === secret) signOut();
    throw error;
  }
}

/**
 * @param {string} path
 * @param {{method?: string, query?: Record<string, string | number | undefined>, signal?: AbortSignal}} options
 * @param {string} secret
 */
async function ask(path, { method = 'GET', query = {}, signal }, secret) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== '') url.searchParams.set(name, String(value));
  let response;
  try {
    response = await fetch(url, { method, headers: { authorization: `Bearer ${secret}` }, signal: signal ?? null, cache: 'no-store', credentials: 'omit' });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, 'unreachable', 'The streamer does not answer. This page goes on trying.');
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, body.code ?? 'unknown', body.detail ?? `The server answered ${response.status}.`);
  return body;
}
