//! Settings for the length of a scope: pinned ones, under which values and keys always render the same, and others.

use std::ffi::{CStr, CString, c_int};

use pgrx::pg_sys;

/// Whatever the session has, values and keys are rendered under these.
const RENDERING: [(&CStr, &CStr); 5] = [
    (c"TimeZone", c"UTC"),
    (c"DateStyle", c"ISO, DMY"),
    (c"IntervalStyle", c"iso_8601"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
];

/// Settings that go back to what they were when this is dropped.
pub(crate) struct Settings {
    nest_level: Option<c_int>,
    /// What others set meanwhile passes too.
    all_pass: bool,
}

impl Settings {
    /// The session's settings, nothing changed yet.
    pub(crate) fn unchanged() -> Self {
        Self { nest_level: None, all_pass: false }
    }

    /// The session's settings, none of which changes for good until this is dropped: whatever functions of others set
    /// meanwhile, as a `search_path` for whoever comes next, is gone afterwards.
    pub(crate) fn passing() -> Self {
        // SAFETY: ended in `drop`, or by the transaction's abort.
        Self { nest_level: Some(unsafe { pg_sys::NewGUCNestLevel() }), all_pass: true }
    }

    /// The pinned settings for rendering values; costs nothing where the session has them already.
    pub(crate) fn for_rendering() -> Self {
        let mut settings = Self::unchanged();
        for (name, value) in RENDERING {
            if current(name).is_none_or(|current| current != value) {
                settings.set_c(name, value);
            }
        }
        settings
    }

    /// Sets one more.
    pub(crate) fn set(&mut self, name: &CStr, value: &str) {
        let value = CString::new(value).expect("settings come from JSON or from Postgres, neither holds a NUL");
        self.set_c(name, &value);
    }

    fn set_c(&mut self, name: &CStr, value: &CStr) {
        // SAFETY: strings that outlive the call; the nest level is ended in `drop`, or by the transaction's abort.
        unsafe {
            self.nest_level.get_or_insert_with(|| pg_sys::NewGUCNestLevel());
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                pg_sys::PGERROR.cast_signed(),
                false,
            );
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if let Some(nest_level) = self.nest_level {
            // SAFETY: the level that this value began; those above it have ended, for scopes nest.
            unsafe { pg_sys::AtEOXact_GUC(!self.all_pass, nest_level) };
        }
    }
}

/// A setting's present value.
pub(crate) fn current(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: Postgres owns the string; callers use it before they change a setting.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() { None } else { Some(CStr::from_ptr(value)) }
    }
}

/// What a setting goes back to at `RESET`: the value of the database, the role or the connection.
pub(crate) fn of_the_session(name: &CStr) -> String {
    // SAFETY: as above; the name is one that always exists.
    unsafe { CStr::from_ptr(pg_sys::GetConfigOptionResetString(name.as_ptr())).to_string_lossy().into_owned() }
}
