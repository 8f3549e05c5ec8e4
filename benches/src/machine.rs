//! What was measured on, and with which versions.

use std::process::Command;

use serde_json::{Value, json};

/// The machine and the versions of what was measured.
pub(crate) fn describe() -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let postgres = headwater_tests::place::postgres_programs().join("postgres");
    json!({
        "processor": field(&file("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&file("/proc/meminfo"), "MemTotal"),
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "load_1min": file("/proc/loadavg").split(' ').next(),
        "postgres": output(Command::new(postgres).arg("--version")),
        "headwater": env!("CARGO_PKG_VERSION"),
        "revision": output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(headwater_tests::place::checkout())),
    })
}

/// What a command printed; null where it cannot be run.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
