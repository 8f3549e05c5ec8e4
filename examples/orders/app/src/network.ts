/** The switch in the page that cuts the network for the app: what runs is broken off, what comes is refused. */

let connected = true;
let cut = new AbortController();
const listeners = new Set<() => void>();

/** Like the browser's own, unless the switch is off. */
export const switchedFetch: typeof fetch = (input, init) => {
  if (!connected) return Promise.reject(new TypeError('the network is switched off'));
  const signals = [cut.signal, ...(init?.signal == null ? [] : [init.signal])];
  return fetch(input, { ...init, signal: AbortSignal.any(signals) });
};

/** Whether the switch is on. */
export const isConnected = (): boolean => connected;

/** Turns it. */
export function setConnected(on: boolean): void {
  if (on === connected) return;
  connected = on;
  if (on) {
    cut = new AbortController();
    // What a browser says when the network is back: the client tries again at once.
    dispatchEvent(new Event('online'));
  } else {
    cut.abort(new TypeError('the network was switched off'));
  }
  for (const listener of listeners) listener();
}

/** Calls `listener` when it was turned. */
export function subscribeConnected(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
