/** What the sync engine did lately, for a person to export and send along with a report. Holds no payloads and no tokens. */

/** One line. */
export interface DebugEntry {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly what: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Some hours of ordinary use, and some hundred kilobytes at most. */
const MAX_ENTRIES = 1000;

export class DebugLog {
  private entries: DebugEntry[] = [];

  add(what: string, details?: Readonly<Record<string, unknown>>): void {
    this.entries.push({ at: Date.now(), what, ...(details === undefined ? {} : { details }) });
    if (this.entries.length > 2 * MAX_ENTRIES) this.entries = this.entries.slice(-MAX_ENTRIES);
  }

  /** One JSON object a line, oldest first. */
  export(): string {
    return this.entries
      .slice(-MAX_ENTRIES)
      .map((entry) => JSON.stringify({ ...entry, at: new Date(entry.at).toISOString() }))
      .join('\n');
  }
}
