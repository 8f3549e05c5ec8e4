//! The clock of a backend: never the same instant twice, never back, so that what one session does in order sorts in order.

use std::cell::Cell;
use std::time::Instant;

use headwater_model::clock::Micros;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

use crate::spi::latest;

thread_local! {
    static LAST: Cell<i64> = const { Cell::new(i64::MIN) };
    static FLOOR: Cell<Option<Floor>> = const { Cell::new(None) };
}

/// What the clock has shown at most, as far as this backend knows.
#[derive(Clone, Copy)]
struct Floor {
    /// Events up to here may have been stamped by a clock that ran ahead of this one.
    instant: Micros,
    /// The clock when it was last read, and the monotonic one with it.
    clock: Micros,
    monotonic: Instant,
}

/// How much less than the time that really passed the clock may gain between two readings, in microseconds: a clock
/// that is slewed loses half a millisecond a second at most (`adjtime`), one that is set back loses more.
fn slewing_allows(passed: i64) -> i64 {
    passed / 1000 + 1000
}

/// How many of the newest events a new backend looks at for how far the clock has come.
const EVENTS_LOOKED_AT: u32 = 100;

/// Whether events may be recorded with instants at or above `now`, because the clock was set back: by another run of
/// the server, on another machine, or under this backend's eyes. What `acting` gives lives while the events are asked.
pub(crate) fn is_behind<T>(now: Micros, acting: impl FnOnce() -> T) -> bool {
    let monotonic = Instant::now();
    let floor = FLOOR.get().map_or_else(
        || {
            let _acting = acting();
            Floor { instant: newest_recorded().unwrap_or(Micros(i64::MIN)), clock: now, monotonic }
        },
        |floor| {
            let passed = i64::try_from((monotonic - floor.monotonic).as_micros()).unwrap_or(i64::MAX);
            let set_back = now.0.saturating_sub(floor.clock.0) < passed.saturating_sub(slewing_allows(passed));
            let shown = if set_back { floor.clock.plus(passed) } else { floor.instant };
            Floor { instant: floor.instant.max(shown), clock: now, monotonic }
        },
    );
    FLOOR.set(Some(floor));
    now <= floor.instant
}

fn newest_recorded() -> Option<Micros> {
    let sql = format!(
        "select pg_catalog.to_jsonb(pg_catalog.max(greatest(e.occurred_at, e.recorded_at)))
         from (select occurred_at, recorded_at from headwater.event
               order by position desc limit {EVENTS_LOOKED_AT}) e"
    );
    let newest = Spi::connect(|client| latest(client, &sql))?;
    Micros::parse(newest.as_str()?)
}

/// The present, later than every instant that this backend was given before.
pub(crate) fn now() -> Micros {
    // SAFETY: reads the system clock, nothing else.
    let clock = Micros::from_postgres(unsafe { pg_sys::GetCurrentTimestamp() }).0;
    let instant = LAST.get().saturating_add(1).max(clock);
    LAST.set(instant);
    Micros(instant)
}

/// As a backend that has just begun.
#[cfg(any(test, feature = "pg_test"))]
pub(crate) fn forget() {
    FLOOR.set(None);
}

/// The instant as Postgres stores it.
pub(crate) fn timestamp(instant: Micros) -> TimestampWithTimeZone {
    TimestampWithTimeZone::try_from(instant.to_postgres()).expect("stamps lie between the years 1 and 9999")
}

/// A new event id; those of one backend rise.
pub(crate) fn new_id() -> uuid::Uuid {
    uuid::Uuid::now_v7()
}

/// 128 random bits.
pub(crate) fn random() -> u128 {
    // Two ids, for only 62 bits of each are random for certain (RFC 9562, section 5.7).
    (new_id().as_u128() << 64) | (new_id().as_u128() & u128::from(u64::MAX))
}

/// The id as pgrx knows it.
pub(crate) fn pg_uuid(id: uuid::Uuid) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

#[pg_extern(sql = false)]
fn uuid_v7() -> Uuid {
    pg_uuid(new_id())
}
