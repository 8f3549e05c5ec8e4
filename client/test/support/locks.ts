/**
 * Web Locks for Node 20, which has none: one holder at a time, the others in the order in which they came; whoever gives up, before
 * or while it waits, is told so at once.
 */

/** Shared by everything in this process, as a browser's are by its tabs. */
const queues = new Map<string, { turn: Promise<unknown>; length: number }>();

export const locks = {
  async request(name: string, { signal, ifAvailable }: { signal?: AbortSignal; ifAvailable?: boolean }, hold: (lock: { name: string } | null) => Promise<unknown>): Promise<unknown> {
    signal?.throwIfAborted();
    const queue = queues.get(name) ?? { turn: Promise.resolve(), length: 0 };
    queues.set(name, queue);
    if (ifAvailable === true && queue.length > 0) return hold(null);
    queue.length += 1;
    const granted = queue.turn.then(() => {
      signal?.removeEventListener('abort', giveUp);
      // Its turn passes on to the next.
      return signal?.aborted === true ? undefined : hold({ name });
    });
    queue.turn = granted
      .catch(() => undefined)
      .finally(() => {
        queue.length -= 1;
      });
    let giveUp: () => void = () => undefined;
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = () => reject(signal?.reason as Error);
      signal?.addEventListener('abort', giveUp);
    });
    return Promise.race([granted, givenUp]);
  },
} as unknown as LockManager;
