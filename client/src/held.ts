/**
 * An entity in memory: its events, or a state that was folded of them with the events that came since, and what they make. Folds when
 * somebody asks; a newest event is folded in at once.
 */

import { applyStored, baseState, foldsAlike, type EntityDefinition } from './entity.js';
import type { Baseline, EntityRef, LocalEvent } from './event.js';
import { compareEvents, type State } from './fold.js';
import type { Folded, StoredEntity } from './store/database.js';

export class HeldEntity {
  readonly ref: EntityRef;
  private readonly definition: () => EntityDefinition;
  private baseline: Baseline | null = null;
  /** What the events make that were not read; those in `events` came since. */
  private folded: Folded | null = null;
  private events: LocalEvent[] = [];
  /** Whether the events are in the order of the fold. */
  private sorted = true;
  /** Undefined: to be folded when somebody asks. */
  private known: State | null | undefined = null;

  constructor(ref: EntityRef, definition: () => EntityDefinition) {
    this.ref = ref;
    this.definition = definition;
  }

  /** Not all of its events were read: only what they make. */
  get isFolded(): boolean {
    return this.folded !== null;
  }

  /** What is stored of it, and own events that are being written: those that are not among the stored ones come behind. */
  take({ baseline, events, folded }: StoredEntity, unstored: ReadonlyMap<string, LocalEvent>): void {
    this.baseline = baseline;
    this.folded = folded ?? null;
    this.events = [...events];
    if (unstored.size > 0) {
      const stored = new Set(events.map((event) => event.id));
      for (const event of unstored.values()) {
        if (event.entity_id === this.ref[1] && event.entity_type === this.ref[0] && !stored.has(event.id)) this.events.push(event);
      }
    }
    this.sorted = false;
    this.known = undefined;
  }

  /** Whether it belongs among events that were not read: they must be, for the state to be right. */
  isAmongUnread(event: LocalEvent): boolean {
    return this.folded !== null && compareEvents(event, this.folded.last) <= 0;
  }

  /** An own event that stands otherwise now, and changes no state that has it. Undefined where the state may lack it: the events must be read. */
  restand(event: LocalEvent): boolean | undefined {
    if (this.folded === null || indexOf(this.events, event.id) !== -1) return this.replace(event);
    // Another tab may have stored it, and died before it could tell.
    return event.client_seq <= this.folded.seq && this.isAmongUnread(event) ? false : undefined;
  }

  /** A new event. One that belongs among unread ones stands behind them until they are read. */
  insert(event: LocalEvent): void {
    const last = this.sorted ? (this.events.at(-1) ?? this.folded?.last) : undefined;
    const isNewest = this.sorted && (last === undefined || compareEvents(event, last) > 0);
    this.events.push(event);
    const before = this.known;
    this.sorted = isNewest;
    this.known = undefined;
    // Where a merge function of the application throws, it is unknown: whoever asks is told.
    if (isNewest && before !== undefined) this.known = this.applied(before, event);
  }

  private applied(state: State | null, event: LocalEvent): State | null | undefined {
    try {
      return applyStored(state, event, this.definition(), this.baseline);
    } catch {
      return undefined;
    }
  }

  /** An event as it is now, in place of what was held under its id. Whether the state may be another. */
  replace(event: LocalEvent): boolean {
    const at = indexOf(this.events, event.id);
    const before = this.events[at];
    if (before === undefined) {
      this.insert(event);
      return true;
    }
    this.events[at] = event;
    if (foldsAlike(before, event, this.baseline)) return false;
    this.sorted &&= before.timestamp === event.timestamp;
    this.known = undefined;
    return true;
  }

  /** Whether it was there. */
  takeOut(event: LocalEvent): boolean {
    const at = indexOf(this.events, event.id);
    if (at === -1) return false;
    this.events.splice(at, 1);
    this.known = undefined;
    return true;
  }

  /** Its events in the order of the fold: those that were read, and those that came since. */
  ordered(): readonly LocalEvent[] {
    if (!this.sorted) this.events.sort(compareEvents);
    this.sorted = true;
    return this.events;
  }

  /** What they make. Null: no entity. */
  state(): State | null {
    if (this.known === undefined) {
      const definition = this.definition();
      const beneath = this.folded === null ? baseState(this.baseline, definition) : this.folded.state;
      this.known = this.ordered().reduce((state, event) => applyStored(state, event, definition, this.baseline), beneath);
    }
    return this.known;
  }
}

/** Where the event of that id stands, or -1. The newest are asked for most. */
function indexOf(events: readonly LocalEvent[], id: string): number {
  let at = events.length - 1;
  while (at >= 0 && events[at]?.id !== id) at -= 1;
  return at;
}
