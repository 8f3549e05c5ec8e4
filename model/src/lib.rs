//! The pure heart of Headwater: what an event is, how events make state, and where a reader stands.
//!
//! Nothing here does I/O or knows Postgres; the extension, the streamer and the conformance vectors of the
//! TypeScript client share these definitions, so that the same events give the same state everywhere.
//!
//! * [`event`]: events on their way in, and as the fold sees them
//! * [`rules`]: how each event type of an entity changes its state
//! * [`fold`]: state = events in the order (`occurred_at`, `id`) over a baseline
//! * [`upcast`]: how payloads of older schema versions become present ones
//! * [`reach`]: which later events build on what an event writes
//! * [`clock`]: microseconds, RFC 3339, and the stamp an arriving event gets
//! * [`key`]: an entity's id as text, for composite keys too
//! * [`json`]: equality and exact decimals on JSON values
//! * [`cursor`]: where a reader stands, on the wire

pub mod clock;
pub mod cursor;
pub mod event;
pub mod fold;
pub mod json;
pub mod key;
pub mod reach;
pub mod rules;
pub mod upcast;
