/** UUIDv7 (RFC 9562), monotonic: a device's later id sorts behind its earlier one. */

/** The 12 bits behind the milliseconds count events within one; 74 random bits less 12 remain. */
const COUNTER_LIMIT = 1 << 12;

/** A random UUID (version 4). Not `crypto.randomUUID`: pages by plain HTTP, as from a phone to a laptop, do not have that. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** Makes ids. */
export class IdSource {
  private millis = 0;
  private counter = 0;

  private readonly random: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array;

  constructor(random: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array = (bytes) => crypto.getRandomValues(bytes)) {
    this.random = random;
  }

  /** An id for an event stamped so (integer microseconds). */
  next(micros: number): string {
    const millis = Math.max(Math.floor(micros / 1000), 0);
    if (millis > this.millis) {
      this.millis = millis;
      this.counter = 0;
    } else if (++this.counter === COUNTER_LIMIT) {
      this.millis += 1;
      this.counter = 0;
    }
    const bytes = this.random(new Uint8Array(8));
    bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x80;
    const tail = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    const time = this.millis.toString(16).padStart(12, '0');
    const counter = this.counter.toString(16).padStart(3, '0');
    return `${time.slice(0, 8)}-${time.slice(8)}-7${counter}-${tail.slice(0, 4)}-${tail.slice(4)}`;
  }
}
