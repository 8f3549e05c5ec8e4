//! A walsender that sends what belongs to a transaction together.
//!
//! A walsender hands every message of pgoutput to the socket by itself, by a system call each, and whoever reads is woken
//! as often. Here the changes of a transaction wait in the walsender's own buffer, where a full socket would have them wait
//! too, until there are [`HELD_BYTES`] of them or the transaction's end comes. That follows at once: Postgres decodes a
//! transaction as a whole when it has read its commit. So nothing waits for anything that is yet to happen.
//!
//! Postgres lets the functions that talk to a client be exchanged (`PqCommMethods`; parallel workers have others). Ours
//! call those that were there, so what is sent, and in which order, stays as it is.

use std::cell::Cell;
use std::ffi::{c_char, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// So many bytes wait at most. Beyond some, it is not the system call that costs.
const HELD_BYTES: usize = 16 * 1024;

/// `CopyData`, in which all messages of a stream are.
const COPY_DATA: u8 = b'd';
/// Of these, one that has something of pgoutput's in it: behind its kind, two positions and a time.
const WAL_DATA: u8 = b'w';
const WAL_DATA_HEADER: usize = 25;
/// Messages of pgoutput's behind which a transaction goes on: begin, origin, relation, type, and changes
/// ("Logical Replication Message Formats" in the Postgres manual).
const GOES_ON: &[u8] = b"BORYIUDT";

/// How a backend talks to its client (`src/include/libpq/libpq.h`, the same from 14 to 18); pgrx does not declare it.
#[repr(C)]
#[derive(Clone, Copy)]
struct CommMethods {
    reset: unsafe extern "C-unwind" fn(),
    flush: unsafe extern "C-unwind" fn() -> c_int,
    flush_if_writable: unsafe extern "C-unwind" fn() -> c_int,
    is_send_pending: unsafe extern "C-unwind" fn() -> bool,
    put_message: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    put_message_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
}

unsafe extern "C" {
    #[link_name = "PqCommMethods"]
    static mut COMM_METHODS: *const CommMethods;
}

thread_local! {
    /// Those that were there.
    static BEFORE: Cell<Option<&'static CommMethods>> = const { Cell::new(None) };
    /// How many bytes wait for the rest of their transaction. None: what is in the buffer is to be sent.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// From here on, this walsender sends what belongs to a transaction together. False in any other backend, where nothing changes.
#[pg_extern(sql = false)]
fn gather_changes() -> bool {
    // SAFETY: variables of the backend, which has one thread. Both sets of functions live as long as it.
    unsafe {
        if !pg_sys::am_walsender {
            return false;
        }
        if BEFORE.get().is_none() {
            let before = &*COMM_METHODS;
            BEFORE.set(Some(before));
            let ours = CommMethods { flush_if_writable, is_send_pending, put_message_noblock, ..*before };
            COMM_METHODS = Box::leak(Box::new(ours));
        }
    }
    true
}

/// Calls one of the functions that were there.
fn before<R>(call: impl FnOnce(&CommMethods) -> R) -> R {
    let before = BEFORE.get().expect("ours are called once they are in place");
    // SAFETY: it may raise an error of Postgres', hence the guard.
    unsafe { pg_guard_ffi_boundary(|| call(before)) }
}

/// Whether more of the same transaction follows.
fn goes_on(kind: u8, message: &[u8]) -> bool {
    kind == COPY_DATA
        && message.first() == Some(&WAL_DATA)
        && message.get(WAL_DATA_HEADER).is_some_and(|kind| GOES_ON.contains(kind))
}

#[pg_guard]
unsafe extern "C-unwind" fn put_message_noblock(kind: c_char, message: *const c_char, length: usize) {
    let bytes = if message.is_null() {
        // `CopyDone`: nothing but its kind.
        &[]
    } else {
        // SAFETY: a message of this length, as Postgres promises.
        unsafe { std::slice::from_raw_parts(message.cast::<u8>(), length) }
    };
    let held = HELD.get() + length;
    HELD.set(if held <= HELD_BYTES && goes_on(kind.cast_unsigned(), bytes) { held } else { 0 });
    // SAFETY: as it was called.
    before(|methods| unsafe { (methods.put_message_noblock)(kind, message, length) });
}

#[pg_guard]
unsafe extern "C-unwind" fn flush_if_writable() -> c_int {
    // SAFETY: as it was called.
    if HELD.get() > 0 { 0 } else { before(|methods| unsafe { (methods.flush_if_writable)() }) }
}

/// What waits is not pending: nobody is to wait until it is sent.
#[pg_guard]
unsafe extern "C-unwind" fn is_send_pending() -> bool {
    // SAFETY: as it was called.
    HELD.get() == 0 && before(|methods| unsafe { (methods.is_send_pending)() })
}
