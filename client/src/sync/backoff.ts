/** Waiting between tries: longer each time, with jitter, so that a thousand devices do not come back at once. */

/** How long to wait. */
export interface BackoffOptions {
  readonly baseMs: number;
  readonly maxMs: number;
}

/** A second at first; a minute at most, so that a device that was away is back soon. */
export const DEFAULT_BACKOFF: BackoffOptions = { baseMs: 1000, maxMs: 60_000 };

export class Backoff {
  /** Failures in a row. */
  failures = 0;

  private readonly options: BackoffOptions;

  constructor(options: BackoffOptions) {
    this.options = options;
  }

  /** The wait after one more failure, in milliseconds: between half and all of `base × 2^failures`. */
  next(atLeastMs = 0): number {
    const full = Math.min(this.options.maxMs, this.options.baseMs * 2 ** Math.min(this.failures, 30));
    this.failures += 1;
    return Math.max(atLeastMs, full * (0.5 + Math.random() / 2));
  }

  reset(): void {
    this.failures = 0;
  }
}

/** Resolves after so long, or when `signal` aborts; never rejects. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}
