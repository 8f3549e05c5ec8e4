//! The settings that the extension has, all of which superusers alone may change.
//!
//! * `headwater.follow`: whether DDL is followed. Off while Headwater changes tables itself. If anybody could set it, a rename that is not followed would
//!   bring an excluded column into the log.
//! * `headwater.max_folded_events`: how many events ingest folds anew for one batch.

use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static FOLLOW: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Some ten seconds of folding, for which rows stay locked.
const MAX_FOLDED_EVENTS: i32 = 5_000_000;

static MAX_FOLDED: GucSetting<i32> = GucSetting::<i32>::new(MAX_FOLDED_EVENTS);

/// Tells Postgres of them. What a session has set before, without the right to, is void from here on.
pub(crate) fn define() {
    GucRegistry::define_bool_guc(
        c"headwater.follow",
        c"Follow changes of enabled tables' definitions.",
        c"Off only where Headwater itself changes tables, and for superusers who mend something.",
        &FOLLOW,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"headwater.max_folded_events",
        c"How many events one batch may have folded anew, because events of it come late.",
        c"Late events beyond that are rejected as too_late. headwater.compact shortens histories.",
        &MAX_FOLDED,
        100,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// Asked in Rust, not by `current_setting`: so the library is loaded, and with it whose setting this is.
#[pg_extern(sql = false)]
fn following() -> bool {
    FOLLOW.get()
}

/// How many events one batch may have folded anew.
pub(crate) fn max_folded_events() -> usize {
    usize::try_from(MAX_FOLDED.get()).expect("it has a minimum")
}
