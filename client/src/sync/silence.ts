/** A connection that says nothing for too long is given up. Only the time in which somebody listens counts. */

/** The server says something every 15 s: after three of those a stream is dead. */
export const SILENCE_MS = 45_000;

export class Silence {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** Aborts when it lasted too long. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** From now on something must come within so long. */
  listen(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.controller.abort(), ms);
  }

  /** Something came, and nobody listens until the next `listen`. */
  rest(): void {
    clearTimeout(this.timer);
  }
}
