/**
 * An entity's id: the text of its key, the parts of a composite key joined by `/`.
 *
 * A single-column key stands as it is. In a composite key each part is escaped, `~` as `~0` and `/` as `~1`, so that
 * different keys never share a text.
 */

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
