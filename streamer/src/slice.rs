//! Short turns on a processor, for threads whose work is short and waited for.
//!
//! Linux lets a thread run for some milliseconds once it has begun (`base_slice_ns`), and makes it wait for as long when it gives way. Whoever
//! asks for shorter turns has one sooner, and loses little by giving way: sched(7), `sched_runtime` of `sched_setattr` for ordinary threads
//! since Linux 6.12. Elsewhere nothing changes.

/// The shortest that Linux knows.
#[cfg(target_os = "linux")]
const SLICE: std::time::Duration = std::time::Duration::from_micros(100);

/// Asks that this thread's turns be short.
pub fn ask_for_short_turns() {
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::ask(SLICE) {
        tracing::debug!(%error, "this thread's turns on a processor stay as long as they are");
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither the standard library nor a crate that we have calls sched_setattr")]
mod linux {
    use libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr, syscall};
    use std::io;
    use std::time::Duration;

    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;

    /// How this thread is scheduled.
    pub(super) fn attributes() -> io::Result<sched_attr> {
        let size = u32::try_from(size_of::<sched_attr>()).map_err(io::Error::other)?;
        // SAFETY: numbers, which may all be zero; the kernel writes as many bytes as it is told that there are.
        unsafe {
            let mut attributes: sched_attr = std::mem::zeroed();
            done(syscall(SYS_sched_getattr, THIS_THREAD, &raw mut attributes, size, NO_FLAGS))?;
            Ok(attributes)
        }
    }

    /// Who was put under another policy by an operator stays there, and everybody keeps his niceness.
    pub(super) fn ask(slice: Duration) -> io::Result<()> {
        let mut attributes = attributes()?;
        if i32::try_from(attributes.sched_policy) != Ok(libc::SCHED_OTHER) {
            return Ok(());
        }
        attributes.sched_runtime = u64::try_from(slice.as_nanos()).map_err(io::Error::other)?;
        // SAFETY: the kernel reads as many bytes as the attributes say that they have.
        unsafe { done(syscall(SYS_sched_setattr, THIS_THREAD, &raw const attributes, NO_FLAGS)) }
    }

    fn done(result: libc::c_long) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_changes() {
        let threads = std::thread::spawn(|| {
            let before = linux::attributes();
            ask_for_short_turns();
            before.ok().zip(linux::attributes().ok())
        });
        // A sandbox may allow neither.
        let Some((before, after)) = threads.join().expect("it asks, and takes what comes") else { return };
        assert_eq!(before.sched_policy, after.sched_policy);
        assert_eq!(before.sched_nice, after.sched_nice);
        assert!([before.sched_runtime, 100_000, 0].contains(&after.sched_runtime), "{}", after.sched_runtime);
    }
}
