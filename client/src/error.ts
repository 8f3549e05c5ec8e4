/** What the runtime throws. */

/** What else is known. */
export interface ErrorDetails {
  /** Of the server's answer. */
  readonly status?: number;
  readonly retryAfterMs?: number;
  readonly retryable?: boolean;
  readonly cause?: unknown;
}

/** An error with a stable code. `retryable` says that the same may succeed later. */
export class HeadwaterError extends Error {
  override readonly name = 'HeadwaterError';

  readonly code: string;
  readonly details: ErrorDetails;

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
    this.code = code;
    this.details = details;
  }

  get retryable(): boolean {
    return this.details.retryable ?? false;
  }
}

/** An error of the application's own code, told as one that nobody caught: it must keep nobody else from being told. */
export function report(thrown: unknown): void {
  if (typeof globalThis.reportError === 'function') globalThis.reportError(thrown);
  else {
    queueMicrotask(() => {
      throw thrown;
    });
  }
}

/** Calls all of them, whatever one of them throws. */
export function tell(listeners: Iterable<() => void>): void {
  for (const listener of [...listeners]) {
    try {
      listener();
    } catch (thrown) {
      report(thrown);
    }
  }
}

/** What was asked of a session that has ended. */
export function closed(): HeadwaterError {
  return new HeadwaterError('closed', 'the client was closed; configure() opens it again', { retryable: true });
}

/** What IndexedDB throws: a full device has a code of its own, for somebody can do something about it. */
export function storageError(thrown: unknown): Error {
  const error = asError(thrown);
  const full = /quota/i.test(`${error.name} ${error.message}`);
  return full ? new HeadwaterError('storage_full', 'the device has no room left for events; free some space', { retryable: true, cause: error }) : error;
}

/** Any thrown value as an error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
