/** Web Locks for Node 20, which has none: one holder at a time, the others in the order in which they came. */

/** Shared by everything in this process, as a browser's are by its tabs. */
const queues = new Map<string, { turn: Promise<unknown>; length: number }>();

export const locks = {
  async request(name: string, options: { signal?: AbortSignal; ifAvailable?: boolean }, hold: (lock: { name: string } | null) => Promise<unknown>): Promise<unknown> {
    const queue = queues.get(name) ?? { turn: Promise.resolve(), length: 0 };
    queues.set(name, queue);
    if (options.ifAvailable === true && queue.length > 0) return hold(null);
    queue.length += 1;
    const turn = queue.turn.then(() => {
      options.signal?.throwIfAborted();
      return hold({ name });
    });
    queue.turn = turn
      .catch(() => undefined)
      .finally(() => {
        queue.length -= 1;
      });
    return turn;
  },
} as unknown as LockManager;
