// @ts-check
/** How numbers, sizes and times are shown. */

const number = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** @param {number} value */
export const count = (value) => number.format(value);

/** @param {number} value per second */
export const rate = (value) => (value >= 100 || value === 0 ? number.format(Math.round(value)) : short.format(value));

/** @param {number | null | undefined} value in bytes */
export function bytes(value) {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${value < 0 ? '−' : ''}${size >= 100 || unit === 0 ? Math.round(size) : short.format(size)} ${units[unit]}`;
}

/** @param {number} milliseconds */
export function span(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return `${Math.round(milliseconds)} ms`;
  if (seconds < 60) return `${short.format(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

/** @param {string | null | undefined} time RFC 3339 */
export function ago(time) {
  if (!time) return 'never';
  const past = Date.now() - Date.parse(time);
  return past < 1500 ? 'now' : `${span(past).replace(/\.\d+ s$/, ' s')} ago`;
}

/** @param {string} time RFC 3339, with microseconds; in the reader's own zone, to the millisecond */
export function clock(time) {
  const date = new Date(time);
  const today = new Date().toDateString() === date.toDateString();
  const day = today ? '' : `${date.toLocaleDateString('en-CA')} `;
  return `${day}${date.toLocaleTimeString('en-GB')}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

/** @param {unknown} time RFC 3339 in UTC; whole, with all its digits */
export const exact = (time) => (typeof time === 'string' ? time.replace('T', ' ').replace(/Z$/, ' UTC') : 'unknown');

/** @param {unknown} value @param {number} [most] */
export function brief(value, most = 160) {
  const text = JSON.stringify(value) ?? '';
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
