/**
 * The states that the application sees, in memory: fold(confirmed ∪ own unconfirmed). A mutation is folded in at once,
 * before it is stored; what other tabs and the server change is read from the store.
 */

import { forPeople, type EntityDefinition } from './entity.js';
import { asError, HeadwaterError, tell } from './error.js';
import type { EntityRef, LocalEvent } from './event.js';
import type { State } from './fold.js';
import { HeldEntity } from './held.js';
import { refKey, refOf, type StoredEntity } from './store/database.js';
import type { Delta } from './store/eventStore.js';

/** An entity as hooks show it. The object stays the same until something changes. */
export interface EntityView {
  /** Null: there is no such entity (or not yet, while `isLoading`). */
  readonly data: State | null;
  readonly isLoading: boolean;
  readonly error: Error | null;
}

/** All entities of a type that exist. The object stays the same until one changes. */
export interface ListView {
  readonly data: readonly ListItem[];
  readonly isLoading: boolean;
  readonly error: Error | null;
}

/** One of them. */
export interface ListItem {
  readonly id: string;
  readonly data: State;
}

/** Reads what is stored. */
export interface Source {
  readEntities(refs: readonly EntityRef[]): Promise<readonly StoredEntity[]>;
  readType(type: string): Promise<Map<string, StoredEntity>>;
}

/** Entities read in one transaction. */
const READ_AT_ONCE = 500;

export const LOADING: EntityView = Object.freeze({ data: null, isLoading: true, error: null });
const ABSENT: EntityView = Object.freeze({ data: null, isLoading: false, error: null });
export const LIST_LOADING: ListView = Object.freeze({ data: Object.freeze([]), isLoading: true, error: null });

/** An entity in memory, and what is shown of it. */
interface Held {
  readonly entity: HeldEntity;
  readonly ref: EntityRef;
  loaded: boolean;
  loading: Promise<void> | undefined;
  error: Error | null;
  view: EntityView | undefined;
  /** Counts changes from this tab: a read that began before one must be done again. */
  changes: number;
}

/** A type of which all entities are wanted. */
interface HeldType {
  loaded: boolean;
  loading: Promise<void> | undefined;
  error: Error | null;
  view: ListView | undefined;
}

export class Views {
  private readonly entities = new Map<string, Held>();
  private readonly byType = new Map<string, Map<string, Held>>();
  private readonly types = new Map<string, HeldType>();
  private readonly listeners = new Map<string, Set<() => void>>();
  private source: Source | undefined;
  /** Own events that are being written: no read of the store may have them yet. */
  private readonly unstored = new Map<string, LocalEvent>();

  private readonly definitions: ReadonlyMap<string, EntityDefinition>;

  constructor(definitions: ReadonlyMap<string, EntityDefinition>) {
    this.definitions = definitions;
  }

  /** What is read from now on; everything held before is forgotten. */
  attach(source: Source | undefined): void {
    this.source = source;
    const wanted = [...this.entities.values()].map(({ ref }) => ref);
    const types = [...this.types.keys()];
    this.entities.clear();
    this.byType.clear();
    this.types.clear();
    this.unstored.clear();
    for (const ref of wanted) this.notify(ref);
    for (const type of types) this.emit(typeKey(type));
  }

  /** The entity as it is known now; reading it starts if nobody has yet. */
  entity(ref: EntityRef): EntityView {
    const held = this.hold(ref);
    if (!held.loaded && held.loading === undefined) void this.load(held);
    held.view ??= this.viewOf(held);
    return held.view;
  }

  /** All entities of a type; reading them starts if nobody has yet. */
  list(type: string): ListView {
    const held = this.holdType(type);
    if (!held.loaded && held.loading === undefined) void this.loadType(type, held);
    held.view ??= this.listOf(type, held);
    return held.view;
  }

  /** The entity's state once it is read. */
  async state(ref: EntityRef): Promise<State | null> {
    const held = this.hold(ref);
    if (!held.loaded) await this.load(held);
    const { data, error } = this.viewOf(held);
    if (error !== null) throw error;
    return data;
  }

  /** All entities of a type once they are read. */
  async states(type: string): Promise<readonly ListItem[]> {
    const held = this.holdType(type);
    if (!held.loaded) await this.loadType(type, held);
    const { data, error } = this.list(type);
    if (error !== null) throw error;
    return data;
  }

  /** Its events in the order of the fold. */
  async events(ref: EntityRef): Promise<readonly LocalEvent[]> {
    await this.state(ref);
    const held = this.hold(ref);
    if (held.entity.isFolded) await this.read([held]);
    if (held.error !== null) throw held.error;
    const definition = this.definition(ref[0]);
    return held.entity.ordered().map((event) => forPeople(event, definition));
  }

  /** Calls `listener` when the entity changes. */
  subscribe(ref: EntityRef, listener: () => void): () => void {
    return this.listen(refKey(ref), listener);
  }

  /** Calls `listener` when any entity of the type changes. */
  subscribeList(type: string, listener: () => void): () => void {
    return this.listen(typeKey(type), listener);
  }

  /** How many own events are being written. */
  get unstoredCount(): number {
    return this.unstored.size;
  }

  /** An own event, at once; it is being written. */
  add(event: LocalEvent): void {
    this.unstored.set(event.id, event);
    const held = this.hold(refOf(event));
    held.entity.insert(event);
    if (held.entity.isAmongUnread(event)) void this.read([held]);
    this.changed(held);
  }

  /** An own event was written. A read that began before that may not have seen it. */
  isStored(event: LocalEvent): void {
    this.unstored.delete(event.id);
    this.hold(refOf(event)).changes += 1;
  }

  /** An own event goes again: it could not be stored. */
  takeBack(event: LocalEvent): void {
    this.unstored.delete(event.id);
    const held = this.hold(refOf(event));
    held.entity.takeOut(event);
    this.changed(held);
  }

  /**
   * This tab has just written so much into the store. What is shown follows without reading it again; and nobody is told where
   * the state stays as it is.
   */
  apply({ put, alike, gone }: Delta): void {
    const told = new Map<string, Held>();
    const unread = new Set<Held>();
    const concerned = (event: LocalEvent): Held | undefined => {
      const type = this.types.get(event.entity_type);
      const known = this.entities.has(refKey(refOf(event)));
      if (!known && !(type !== undefined && (type.loaded || type.loading !== undefined))) return undefined;
      const held = this.hold(refOf(event));
      // A read that is under way may or may not have seen this: it will be done again.
      held.changes += 1;
      return held.loaded ? held : undefined;
    };
    for (const event of put) {
      const held = concerned(event);
      if (held === undefined) continue;
      // An own one may be among those that were not read under another stamp, and then it is no new one.
      if (held.entity.isFolded && (event.client_seq > 0 || held.entity.isAmongUnread(event))) unread.add(held);
      else if (held.entity.replace(event)) told.set(refKey(held.ref), held);
    }
    for (const event of alike) {
      const held = concerned(event);
      if (held === undefined) continue;
      const isOther = held.entity.restand(event);
      if (isOther === undefined) unread.add(held);
      else if (isOther) told.set(refKey(held.ref), held);
    }
    for (const event of gone) {
      const held = concerned(event);
      // What goes is refused, or in the baseline: no folded state has it.
      if (held?.entity.takeOut(event) === true) told.set(refKey(held.ref), held);
    }
    for (const held of told.values()) this.changed(held);
    void this.readAll([...unread]);
  }

  /** What is stored of these entities has changed. */
  async refresh(refs: readonly EntityRef[]): Promise<void> {
    const shown = refs.flatMap((ref) => {
      const held = this.entities.get(refKey(ref));
      if (held !== undefined && (held.loaded || held.loading !== undefined)) return [held];
      const type = this.types.get(ref[0]);
      return type !== undefined && (type.loaded || type.loading !== undefined) ? [this.hold(ref)] : [];
    });
    await this.readAll(shown);
  }

  /** What is stored may have changed without a word: all that is shown is read anew. */
  async refreshAll(): Promise<void> {
    const types = [...this.types].filter(([, { loaded, loading }]) => loaded || loading !== undefined);
    const listed = new Set(types.map(([type]) => type));
    const single = [...this.entities.values()].filter(({ ref, loaded, loading }) => !listed.has(ref[0]) && (loaded || loading !== undefined));
    await Promise.all([this.readAll(single), ...types.map(([type, held]) => this.readType(type, held, true))]);
  }

  private async readAll(wanted: readonly Held[]): Promise<void> {
    for (let from = 0; from < wanted.length; from += READ_AT_ONCE) await this.read(wanted.slice(from, from + READ_AT_ONCE));
  }

  private hold(ref: EntityRef): Held {
    const key = refKey(ref);
    let held = this.entities.get(key);
    if (held === undefined) {
      const loaded = this.types.get(ref[0])?.loaded ?? false;
      held = { entity: new HeldEntity(ref, () => this.definition(ref[0])), ref, loaded, loading: undefined, error: null, view: undefined, changes: 0 };
      this.entities.set(key, held);
      let siblings = this.byType.get(ref[0]);
      if (siblings === undefined) {
        siblings = new Map<string, Held>();
        this.byType.set(ref[0], siblings);
      }
      siblings.set(ref[1], held);
    }
    return held;
  }

  private holdType(type: string): HeldType {
    let held = this.types.get(type);
    if (held === undefined) {
      held = { loaded: false, loading: undefined, error: null, view: undefined };
      this.types.set(type, held);
    }
    return held;
  }

  private load(held: Held): Promise<void> {
    held.loading ??= this.read([held]).finally(() => {
      held.loading = undefined;
    });
    return held.loading;
  }

  /** Reads until no change of this tab fell into the reading. */
  private async read(wanted: readonly Held[]): Promise<void> {
    const source = this.source;
    if (source === undefined) return;
    let left = wanted;
    while (left.length > 0) {
      const before = left.map((held) => held.changes);
      const raced: Held[] = [];
      let failure: Error | null = null;
      let stored: readonly StoredEntity[] = [];
      try {
        stored = await source.readEntities(left.map((held) => held.ref));
      } catch (thrown) {
        failure = asError(thrown);
      }
      if (this.source !== source) return;
      left.forEach((held, index) => {
        const entity = stored[index];
        if (held.changes !== before[index] && failure === null) {
          raced.push(held);
          return;
        }
        if (entity !== undefined) held.entity.take(entity, this.unstored);
        held.error = failure;
        held.loaded = true;
        this.changed(held);
      });
      left = raced;
    }
  }

  private loadType(type: string, heldType: HeldType): Promise<void> {
    heldType.loading ??= this.readType(type, heldType).finally(() => {
      heldType.loading = undefined;
    });
    return heldType.loading;
  }

  /** Reads a type; entities that are known already too, with `anew`. */
  private async readType(type: string, heldType: HeldType, anew = false): Promise<void> {
    const source = this.source;
    if (source === undefined) return;
    try {
      const before = new Map([...(this.byType.get(type)?.values() ?? [])].map(({ ref, changes, loaded }) => [ref[1], { changes, loaded }]));
      const stored = await source.readType(type);
      if (this.source !== source) return;
      const writing = new Set([...this.unstored.values()].map((event) => refKey(refOf(event))));
      const raced = new Set<Held>();
      for (const [id, entity] of stored) {
        const held = this.hold([type, id]);
        const { changes, loaded } = before.get(id) ?? { changes: 0, loaded: false };
        // Whether a folded state has what is being written, it does not say.
        if (held.changes !== changes || (entity.folded !== undefined && writing.has(refKey(held.ref)))) {
          raced.add(held);
          continue;
        }
        if (anew || entity.folded === undefined || !loaded || held.error !== null) held.entity.take(entity, this.unstored);
        held.error = null;
        held.loaded = true;
        held.view = undefined;
        held.changes += 1;
        this.emit(refKey(held.ref));
      }
      if (anew) for (const id of before.keys()) if (!stored.has(id)) raced.add(this.hold([type, id]));
      // Nobody may say yet that one of these is not there; nor of those that are recorded meanwhile.
      const unread = (): Held[] => [...(this.byType.get(type)?.values() ?? [])].filter((held) => !held.loaded);
      for (let left = [...new Set([...raced, ...unread()])]; left.length > 0; left = unread()) {
        await this.readAll(left);
        if (this.source !== source) return;
      }
      heldType.loaded = true;
      heldType.error = null;
    } catch (thrown) {
      if (this.source !== source) return;
      heldType.loaded = true;
      heldType.error = asError(thrown);
    }
    heldType.view = undefined;
    this.emit(typeKey(type));
  }

  private changed(held: Held): void {
    held.changes += 1;
    held.view = undefined;
    this.notify(held.ref);
  }

  private notify(ref: EntityRef): void {
    const type = this.types.get(ref[0]);
    if (type !== undefined) type.view = undefined;
    this.emit(refKey(ref));
    this.emit(typeKey(ref[0]));
  }

  private viewOf(held: Held): EntityView {
    // An own event is shown at once even while what lies beneath it is still being read.
    let state: State | null;
    try {
      state = held.entity.state();
    } catch (thrown) {
      // A function of the application's own.
      return Object.freeze({ data: null, isLoading: false, error: asError(thrown) });
    }
    if (!held.loaded && state === null) return LOADING;
    if (state === null && held.error === null) return ABSENT;
    return Object.freeze({ data: state === null ? null : this.shown(held.ref, state), isLoading: !held.loaded, error: held.error });
  }

  private listOf(type: string, heldType: HeldType): ListView {
    if (!heldType.loaded) return LIST_LOADING;
    const items: ListItem[] = [];
    let { error } = heldType;
    for (const held of this.byType.get(type)?.values() ?? []) {
      held.view ??= this.viewOf(held);
      if (held.view.data !== null) items.push({ id: held.ref[1], data: held.view.data });
      error ??= held.view.error;
    }
    items.sort((a, b) => (a.id < b.id ? -1 : 1));
    return Object.freeze({ data: Object.freeze(items), isLoading: false, error });
  }

  private shown([type, id]: EntityRef, state: State): State {
    const { keyOf } = this.definition(type);
    return Object.freeze(keyOf === undefined ? { ...state } : { ...state, ...keyOf(id) });
  }

  private definition(type: string): EntityDefinition {
    const definition = this.definitions.get(type);
    if (definition === undefined) {
      throw new HeadwaterError('unknown_entity_type', `no entity type is named "${type}"; there are ${[...this.definitions.keys()].join(', ')}`);
    }
    return definition;
  }

  private listen(key: string, listener: () => void): () => void {
    let listeners = this.listeners.get(key);
    if (listeners === undefined) this.listeners.set(key, (listeners = new Set()));
    const own = (): void => listener();
    listeners.add(own);
    return () => {
      listeners.delete(own);
      if (listeners.size === 0 && this.listeners.get(key) === listeners) this.listeners.delete(key);
    };
  }

  private emit(key: string): void {
    const listeners = this.listeners.get(key);
    if (listeners !== undefined) tell(listeners);
  }
}

function typeKey(type: string): string {
  return `${type}/*`;
}
