/** What the runtime throws. */

/** An error with a stable code. `retryable` says that the same may succeed later. */
export class HeadwaterError extends Error {
  override readonly name = 'HeadwaterError';

  constructor(
    readonly code: string,
    message: string,
    readonly details: { readonly status?: number; readonly retryAfterMs?: number; readonly retryable?: boolean; readonly cause?: unknown } = {},
  ) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
  }

  get retryable(): boolean {
    return this.details.retryable ?? false;
  }
}

/** Any thrown value as an error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
