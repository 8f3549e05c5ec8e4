/** JSON Schema, as far as generated code uses it, behind the interface of Standard Schema (standardschema.dev, version 1). */

import { equal, isObject, member, type Json, type JsonObject } from './json.js';

export type { Json, JsonObject } from './json.js';

/** What is wrong, and where. */
export interface Issue {
  readonly message: string;
  readonly path: readonly (string | number)[];
}

/** A schema that forms and validators know. It changes nothing: what goes in comes out. */
export interface StandardSchema<Output> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: 'headwater';
    readonly validate: (value: unknown) => { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly Issue[] };
    readonly types?: { readonly input: Output; readonly output: Output };
  };
}

/** Schemas of several payloads, by event type. */
export type SchemasOf<Payloads> = { readonly [Type in keyof Payloads]: StandardSchema<Payloads[Type]> };

/** A schema, all references followed. Unknown words say nothing. */
export type Schema = JsonObject;

/** A Standard Schema of a JSON Schema. */
export function standardSchema<Output>(schema: Schema): StandardSchema<Output> {
  const validate = (value: unknown): { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly Issue[] } => {
    const issues = issuesOf(schema, value, []);
    return issues.length > 0 ? { issues } : { value: value as Output };
  };
  return { '~standard': { version: 1, vendor: 'headwater', validate } };
}

/** The first thing that is wrong with a value, as one text; undefined if it fits. */
export function wrongWith(schema: StandardSchema<unknown>, value: unknown): string | undefined {
  const [issue] = schema['~standard'].validate(value).issues ?? [];
  return issue === undefined ? undefined : `${issue.path.length > 0 ? `"${issue.path.join('.')}"` : 'the payload'} ${issue.message}`;
}

type Path = readonly (string | number)[];

function issuesOf(schema: Schema, value: unknown, path: Path): Issue[] {
  const wrong = (message: string): Issue[] => [{ message, path }];
  const inner = (name: string): Schema | undefined => {
    const found = member(schema, name);
    return isObject(found) ? found : undefined;
  };
  const listed = (name: string): readonly Json[] | undefined => {
    const found = member(schema, name);
    return Array.isArray(found) ? (found as readonly Json[]) : undefined;
  };
  const constant = member(schema, 'const');
  if (constant !== undefined && !equal(constant, value as Json)) return wrong(`must be ${JSON.stringify(constant)}`);
  const values = listed('enum');
  if (values !== undefined && !values.some((one) => equal(one, value as Json))) return wrong(`must be one of ${JSON.stringify(values)}`);
  const alternatives = listed('anyOf') as readonly Schema[] | undefined;
  if (alternatives !== undefined) {
    const failures = alternatives.map((alternative) => issuesOf(alternative, value, path));
    // The deepest failure is of the alternative that was meant.
    if (failures.every((issues) => issues.length > 0)) return failures.reduce((a, b) => (depth(b) > depth(a) ? b : a));
  }
  for (const part of (listed('allOf') ?? []) as readonly Schema[]) {
    const issues = issuesOf(part, value, path);
    if (issues.length > 0) return issues;
  }
  const type = member(schema, 'type');
  const types = typeof type === 'string' ? [type] : (listed('type') as readonly string[] | undefined);
  if (types !== undefined && !types.some((one) => isOfType(value, one))) return wrong(`must be ${types.join(' or ')}, not ${nameOf(value)}`);
  if (typeof value === 'string') return textIssues(schema, value).flatMap(wrong);
  if (typeof value === 'number') return numberIssues(schema, value).flatMap(wrong);
  if (Array.isArray(value)) {
    const items = inner('items');
    return items === undefined ? [] : value.flatMap((item: unknown, index) => issuesOf(items, item, [...path, index]));
  }
  return isObject(value) ? objectIssues(schema, value, path) : [];
}

function objectIssues(schema: Schema, value: JsonObject, path: Path): Issue[] {
  const properties = member(schema, 'properties');
  const additional = member(schema, 'additionalProperties');
  const issues: Issue[] = [];
  for (const [name, item] of Object.entries(value)) {
    // As `undefined` in an object of JavaScript is: not there.
    if ((item as unknown) === undefined) continue;
    const known = isObject(properties) ? member(properties, name) : undefined;
    if (isObject(known)) issues.push(...issuesOf(known, item, [...path, name]));
    else if (additional === false) issues.push({ message: 'is not known here', path: [...path, name] });
    else if (isObject(additional)) issues.push(...issuesOf(additional, item, [...path, name]));
  }
  for (const name of (member(schema, 'required') ?? []) as readonly string[]) {
    if (member(value, name) === undefined) issues.push({ message: 'is missing', path: [...path, name] });
  }
  const fewest = member(schema, 'minProperties');
  if (typeof fewest === 'number' && Object.keys(value).length < fewest) issues.push({ message: `must have ${fewest} or more members`, path });
  return issues;
}

function textIssues(schema: Schema, value: string): string[] {
  const { pattern, minLength, maxLength } = schema;
  // Postgres counts characters, not halves of surrogate pairs.
  const length = (): number => Array.from(value).length;
  if (typeof pattern === 'string' && !new RegExp(pattern, 'u').test(value)) return [`must look like ${pattern}`];
  if (typeof maxLength === 'number' && value.length > maxLength && length() > maxLength) return [`must have ${maxLength} characters or fewer`];
  if (typeof minLength === 'number' && length() < minLength) return [`must have ${minLength} characters or more`];
  return [];
}

function numberIssues(schema: Schema, value: number): string[] {
  const { minimum, maximum } = schema;
  if (typeof minimum === 'number' && value < minimum) return [`must be ${minimum} or more`];
  if (typeof maximum === 'number' && value > maximum) return [`must be ${maximum} or less`];
  return [];
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case 'null':
      return value === null;
    case 'integer':
      return Number.isInteger(value);
    case 'number':
      return typeof value === 'number' && Number.isFinite(value);
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    default:
      return typeof value === type;
  }
}

function nameOf(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
}

function depth(issues: readonly Issue[]): number {
  return Math.max(...issues.map(({ path }) => path.length));
}
