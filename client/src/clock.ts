/** Instants as integer microseconds since 1970 (exact in a double until the year 2255), and a device's hybrid logical clock. */

/** Microseconds in a millisecond, the step of the device's own clock. */
const MICROS_PER_MILLI = 1000;

/** The years 1 to 9999: what Postgres and JavaScript both read. */
const FIRST_MILLIS = Date.parse('0001-01-01T00:00:00Z');
const LAST_MILLIS = Date.parse('9999-12-31T23:59:59Z');

const RFC_3339 = /^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)$/;

/** Reads an RFC 3339 instant of any precision and zone; finer digits than microseconds are cut off. Undefined if it is none. */
export function parseMicros(text: string): number | undefined {
  const match = RFC_3339.exec(text);
  if (match === null) return undefined;
  const [, year, month, day, hour, minute, second, fraction = '', zone = 'Z'] = match;
  const millis = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}${zone.toUpperCase()}`);
  if (!(millis >= FIRST_MILLIS && millis <= LAST_MILLIS) || Number(day) > daysOf(Number(year), Number(month))) return undefined;
  return millis * MICROS_PER_MILLI + Number(fraction.padEnd(6, '0').slice(0, 6));
}

/** How many days a month has: `Date.parse` takes a 31st of any. */
function daysOf(year: number, month: number): number {
  return new Date(Date.UTC(year + 400, month, 0)).getUTCDate();
}

/** RFC 3339 in UTC with six digits: `2026-11-22T12:40:00.000001Z`. */
export function formatMicros(micros: number): string {
  const millis = Math.floor(micros / MICROS_PER_MILLI);
  const rest = micros - millis * MICROS_PER_MILLI;
  return new Date(millis).toISOString().replace('Z', `${String(rest).padStart(3, '0')}Z`);
}

/**
 * Stamps a device's events: microseconds that never repeat or run backwards, behind everything that the device has seen,
 * and corrected by what the server says of the time.
 */
export class HybridClock {
  private last = 0;
  private offset = 0;

  private readonly now: () => number;

  /** `now` gives the device's own clock in milliseconds. */
  constructor(now: () => number = Date.now) {
    this.now = now;
  }

  /** How far the device's own clock was corrected, for it to be remembered. */
  get offsetMicros(): number {
    return this.offset;
  }

  /** The last stamp given or seen. */
  get lastStamp(): number {
    return this.last;
  }

  /** Goes on where a former run of the application stood. */
  resume(lastStamp: number, offsetMicros: number): void {
    this.offset = offsetMicros;
    this.last = Math.max(this.last, lastStamp);
  }

  /** The stamp of the next event. */
  tick(): number {
    this.last = Math.max(this.time(), this.last + 1);
    return this.last;
  }

  /** An event was seen: later ones sort behind it. A stamp far ahead of our time is no reason to follow it. */
  witness(stamp: number): void {
    if (stamp <= this.time() + MAX_LEAD_MICROS) this.last = Math.max(this.last, stamp);
  }

  /** The server's time was so many microseconds just now. Later stamps start from there, earlier than those before if need be. */
  correct(serverMicros: number): void {
    this.offset = serverMicros - Math.floor(this.now() * MICROS_PER_MILLI);
    this.last = 0;
  }

  /**
   * The server has recorded something at that time, so it is past. Where the device was put right after its clock was corrected, the correction
   * has become too large by what is missing, and ends. Whether it is another now.
   */
  isPast(serverMicros: number): boolean {
    const missing = serverMicros - this.time();
    if (this.offset >= 0 || missing <= 0) return false;
    this.offset = Math.min(0, this.offset + missing);
    return true;
  }

  /** The tab that talks to the server has corrected the device's clock so. */
  follow(offsetMicros: number): void {
    if (offsetMicros === this.offset) return;
    this.offset = offsetMicros;
    this.last = Math.min(this.last, this.time());
  }

  /** The device's time in microseconds, corrected. */
  time(): number {
    return Math.floor(this.now() * MICROS_PER_MILLI) + this.offset;
  }
}

/** The server refuses what is dated five minutes ahead of it; following others' stamps must not lead a device there. */
const MAX_LEAD_MICROS = 60 * 1_000_000;
