/** Payloads as the application gives them: checked and copied, so that a later change of its object changes no event. */

import { HeadwaterError } from './error.js';
import { put, type Json, type JsonObject } from './json.js';

/** What the server takes at most, as JSON text in UTF-8. */
const MAX_PAYLOAD_BYTES = 1024 * 1024;
/** How deep the server takes a payload. */
const MAX_PAYLOAD_DEPTH = 64;

/** A frozen copy. Throws `invalid_payload` or `too_large` for what the server would refuse; undefined members are left out. */
export function checkedPayload(payload: unknown): JsonObject {
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) throw invalid('payload', 'must be an object');
  const copy = copied(payload, 'payload', 1) as JsonObject;
  const bytes = new TextEncoder().encode(JSON.stringify(copy)).length;
  if (bytes > MAX_PAYLOAD_BYTES) {
    throw new HeadwaterError('too_large', `the payload has ${bytes} bytes; at most ${MAX_PAYLOAD_BYTES} are taken: store large things elsewhere and put their address into the event`);
  }
  return copy;
}

function copied(value: unknown, path: string, depth: number): Json {
  switch (typeof value) {
    case 'boolean':
      return value;
    case 'string':
      return text(value, path);
    case 'number':
      if (!Number.isFinite(value)) throw invalid(path, `is ${value}, which JSON does not have`);
      return value;
    case 'object': {
      if (value === null) return null;
      if (depth > MAX_PAYLOAD_DEPTH) throw new HeadwaterError('too_large', `${path} is nested deeper than ${MAX_PAYLOAD_DEPTH}`);
      if (Array.isArray(value)) return Object.freeze(value.map((item: unknown, index) => copied(item, `${path}[${index}]`, depth + 1)));
      const prototype: unknown = Object.getPrototypeOf(value);
      if (prototype !== null && prototype !== Object.prototype) {
        const name = (value as { constructor?: { name?: string } }).constructor?.name ?? 'object';
        throw invalid(path, `is a ${name}; send it as text or number`);
      }
      const copy: Record<string, Json> = {};
      for (const [name, member] of Object.entries(value)) {
        if (member !== undefined) put(copy, text(name, path), copied(member, `${path}.${name}`, depth + 1));
      }
      return Object.freeze(copy);
    }
    default:
      throw invalid(path, `is a ${typeof value}, which JSON does not have`);
  }
}

function text(value: string, path: string): string {
  const unfit = unfitText(value);
  if (unfit !== undefined) throw invalid(path, unfit);
  return value;
}

/** Why the server would refuse that text; undefined if it would not. */
export function unfitText(value: string): string | undefined {
  if (value.includes('\0')) return 'has the character \\u0000, which Postgres cannot store';
  const isHalved = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(value);
  return isHalved ? 'has half of a surrogate pair, which is no character' : undefined;
}

function invalid(path: string, what: string): HeadwaterError {
  return new HeadwaterError('invalid_payload', `${path} ${what}`);
}
