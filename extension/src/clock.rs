//! The clock of a backend: never the same instant twice, never back, so that what one session does in order sorts in order.

use std::cell::Cell;

use headwater_model::clock::Micros;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

thread_local! {
    static LAST: Cell<i64> = const { Cell::new(i64::MIN) };
}

/// The present, later than every instant that this backend was given before.
pub(crate) fn now() -> Micros {
    // SAFETY: reads the system clock, nothing else.
    let clock = Micros::from_postgres(unsafe { pg_sys::GetCurrentTimestamp() }).0;
    let instant = LAST.get().saturating_add(1).max(clock);
    LAST.set(instant);
    Micros(instant)
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
