//! What a server that runs beside us takes: processor time and memory, from /proc.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headwater_tests::deadline::eventually;

/// Linux counts processor time in hundredths of a second, whatever its own clock is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A server that is killed with this value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts it and waits until its port answers.
    pub(crate) async fn start(command: Command, port: u16) -> Self {
        Self::start_fed(command, Stdio::null(), port).await
    }

    /// The same for one that reads something.
    pub(crate) async fn start_fed(mut command: Command, input: Stdio, port: u16) -> Self {
        let child = command.stdin(input).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, port };
        eventually("a server to listen", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended by itself: {ended:?}");
            async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }
        })
        .await;
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // SIGTERM first: nginx takes its workers along.
        headwater_tests::place::signal(self.child.id(), "TERM");
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time that a process and its children have taken so far.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    family(pid).into_iter().map(|pid| ticks(pid) / TICKS_PER_SECOND).sum()
}

/// Memory of its own, in KiB, that a process and its children hold (not files, not what is shared).
pub(crate) fn anonymous_kib(pid: u32) -> f64 {
    let of = |pid: u32| -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.trim().strip_suffix(" kB")?.parse().ok()
    };
    family(pid).into_iter().filter_map(of).sum()
}

fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let child: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        (stat(child)?.get(1)?.parse() == Ok(pid)).then_some(child)
    });
    std::iter::once(pid).chain(children).collect()
}

fn ticks(pid: u32) -> f64 {
    let Some(fields) = stat(pid) else { return 0.0 };
    // utime and stime: fields 14 and 15 of the manual, which counts pid and name too.
    [11, 12].into_iter().filter_map(|field| fields.get(field)?.parse::<f64>().ok()).sum()
}

/// The fields behind the name: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// The limit of open files of this process, which those that it starts inherit.
pub(crate) fn open_files_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

/// A folder that `scripts/bench` names.
pub(crate) fn folder(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set; scripts/bench sets it")).into()
}
