/** Headwater's client runtime. React hooks stand apart, in `react.ts`. */

export { HybridClock, formatMicros, parseMicros } from './clock.js';
export { HeadwaterClient, type FetchOptions, type RecordedEvent } from './client.js';
export type { Configuration, Platform } from './configuration.js';
export type { EntityDefinition } from './entity.js';
export { HeadwaterError } from './error.js';
export type { Baseline, EventDraft, EventStatus, LocalEvent, Rejection, WireEvent } from './event.js';
export { fold, type Custom, type Customs, type FoldEvent, type State } from './fold.js';
export type { Json, JsonObject } from './json.js';
export { joinKey, keyReader, splitKey } from './key.js';
export { parseRules, type Rule, type Rules } from './rules.js';
export { standardSchema, type StandardSchema } from './schema.js';
export { INITIAL_SYNC_STATUS, type RejectedEvent, type SyncStatus } from './status.js';
export type { GetToken } from './sync/transport.js';
export { foldEvents, type DraftOf, type EventOf, type Merge } from './typed.js';
export { parseUpcasts, type Lift, type Upcasts } from './upcast.js';
export { randomId } from './uuid.js';
export type { EntityView, ListItem, ListView } from './views.js';
