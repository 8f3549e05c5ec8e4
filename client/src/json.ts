/**
 * JSON values as the fold reads, compares and adds them: the TypeScript twin of `model/src/json.rs`.
 *
 * A number is a double, as everywhere in JavaScript. A decimal text (how int8 and numeric columns travel) is exact.
 */

/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

/** A JSON object. */
export interface JsonObject {
  readonly [name: string]: Json;
}

/** How large an exponent may be: `1e131072` is the largest that Postgres' `numeric` holds. */
const MAX_EXPONENT = 131_072n;

const DECIMAL = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/;

/** An exact decimal: `digits × 10^-scale`. */
interface Decimal {
  readonly digits: bigint;
  readonly scale: bigint;
}

/** Whether a value is a JSON object, and neither null nor an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The member `name` of an object itself, never one of its prototype. */
export function member(object: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Sets a member of a fresh object; `__proto__` too is an ordinary name here. */
export function put(object: Record<string, Json>, name: string, value: Json): void {
  if (name === '__proto__') {
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
  } else {
    object[name] = value;
  }
}

/** Whether two values are equal as JSON: the order of members does not count. */
export function equal(a: Json, b: Json): boolean {
  if (a === b) return true;
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((value: Json, index) => equal(value, b[index] as Json));
  }
  if (!isObject(a) || !isObject(b)) return false;
  const names = Object.keys(a);
  if (names.length !== Object.keys(b).length) return false;
  return names.every((name) => Object.hasOwn(b, name) && equal(a[name] as Json, b[name] as Json));
}

/** Whether a value is a number, or a text that holds one. */
export function isDecimal(value: Json | undefined): boolean {
  return value !== undefined && decimal(value) !== undefined;
}

/**
 * `value + by`, written as `value` was: a number stays a number, a text a text. An absent or null `value` counts as zero
 * and takes the form of `by`. Undefined if either is no decimal, or the sum of numbers is no finite double.
 */
export function add(value: Json | undefined, by: Json | undefined): Json | undefined {
  const amount = by === undefined ? undefined : decimal(by);
  if (amount === undefined) return undefined;
  const before = value === undefined || value === null ? undefined : decimal(value);
  if (before === undefined && value !== undefined && value !== null) return undefined;
  const sum = before === undefined ? amount : plus(before, amount);
  const asText = typeof (before === undefined ? by : value) === 'string';
  if (asText) return plainText(sum);
  const double = Number(`${sum.digits}e${-sum.scale}`);
  return Number.isFinite(double) ? double : undefined;
}

function decimal(value: Json): Decimal | undefined {
  if (typeof value === 'number') return parseDecimal(String(value));
  return typeof value === 'string' ? parseDecimal(value) : undefined;
}

function parseDecimal(text: string): Decimal | undefined {
  const match = DECIMAL.exec(text);
  if (match === null) return undefined;
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match;
  if (whole === '' && fraction === '') return undefined;
  const scale = BigInt(fraction.length) - BigInt(exponent);
  if (scale > MAX_EXPONENT || scale < -MAX_EXPONENT) return undefined;
  const digits = BigInt(whole + fraction);
  return { digits: sign === '-' ? -digits : digits, scale };
}

function plus(a: Decimal, b: Decimal): Decimal {
  const scale = a.scale > b.scale ? a.scale : b.scale;
  return { digits: a.digits * 10n ** (scale - a.scale) + b.digits * 10n ** (scale - b.scale), scale };
}

/** All digits, no exponent. */
function plainText({ digits, scale }: Decimal): string {
  if (scale <= 0n) return (digits * 10n ** -scale).toString();
  const sign = digits < 0n ? '-' : '';
  const text = (digits < 0n ? -digits : digits).toString().padStart(Number(scale) + 1, '0');
  const point = text.length - Number(scale);
  return `${sign}${text.slice(0, point)}.${text.slice(point)}`;
}
