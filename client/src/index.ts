/** Headwater's client runtime. React hooks stand apart, in `react.ts`. */

export { HybridClock, formatMicros, parseMicros } from './clock.js';
export {
  HeadwaterClient,
  INITIAL_SYNC_STATUS,
  type Configuration,
  type Platform,
  type RecordedEvent,
  type RejectedEvent,
  type SyncStatus,
} from './client.js';
export type { EntityDefinition, EventOptions, Upcaster } from './entity.js';
export { HeadwaterError } from './error.js';
export type { Baseline, EventDraft, EventStatus, LocalEvent, Rejection, WireEvent } from './event.js';
export { fold, type Custom, type Customs, type FoldEvent, type State } from './fold.js';
export type { Json, JsonObject } from './json.js';
export { joinKey, splitKey } from './key.js';
export { parseRules, type Rule, type Rules } from './rules.js';
export type { EntityView, ListItem, ListView } from './views.js';
export type { GetToken } from './sync/transport.js';
