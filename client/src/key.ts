/**
 * An entity's id: the text of its key, the parts of a composite key joined by `/`.
 *
 * A single-column key stands as it is. In a composite key each part is escaped, `~` as `~0` and `/` as `~1`, so that
 * different keys never share a text.
 */

import type { Json, JsonObject } from './json.js';

/** The entity id of a key given as its column values in text form: `join(['a/b', 'c~d'])` is `a~1b/c~0d`. */
export function joinKey(parts: readonly string[]): string {
  const [single] = parts;
  if (parts.length === 1 && single !== undefined) return single;
  return parts.map((part) => part.replaceAll('~', '~0').replaceAll('/', '~1')).join('/');
}

/** The column values of an entity id; undefined if it is not the id of a key with that many columns. */
export function splitKey(entityId: string, columns: number): string[] | undefined {
  if (columns === 1) return [entityId];
  const parts = entityId.split('/');
  if (parts.length !== columns || parts.some((part) => /~(?![01])/.test(part))) return undefined;
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** What the text of a key's column stands for: `text` covers everything that travels as text. */
export type KeyKind = 'text' | 'number' | 'boolean';

/** Reads the key columns out of an entity id. */
export function keyReader(columns: readonly (readonly [name: string, kind: KeyKind])[]): (entityId: string) => JsonObject {
  return (entityId) => {
    const parts = splitKey(entityId, columns.length) ?? [];
    return Object.fromEntries(columns.map(([name, kind], index) => [name, valueOf(parts[index] ?? '', kind)]));
  };
}

function valueOf(text: string, kind: KeyKind): Json {
  if (kind === 'number') return Number(text);
  return kind === 'boolean' ? text === 't' || text === 'true' : text;
}
