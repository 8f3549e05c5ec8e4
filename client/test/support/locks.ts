/** Web Locks for Node 20, which has none: one holder at a time, the others in the order in which they came. */

/** Shared by everything in this process, as a browser's are by its tabs. */
const queues = new Map<string, Promise<unknown>>();

export const locks = {
  async request(name: string, options: { signal?: AbortSignal }, hold: () => Promise<unknown>): Promise<unknown> {
    const turn = (queues.get(name) ?? Promise.resolve()).then(() => {
      options.signal?.throwIfAborted();
      return hold();
    });
    queues.set(name, turn.catch(() => undefined));
    return turn;
  },
} as unknown as LockManager;
