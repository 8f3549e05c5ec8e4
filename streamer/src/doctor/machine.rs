//! What this machine allows a process: file descriptors, of which each client takes one.

use super::finding::Finding;

/// For Postgres, the listener, files, and what libraries open.
const OTHER_FILES: u64 = 100;

pub(super) fn look(connections: usize) -> Vec<Finding> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_limit(&limits).map(|limit| files(limit, connections as u64)).into_iter().collect()
}

/// `Max open files  1024  524288  files`; none where there is no limit, or no such file.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn files(limit: u64, connections: u64) -> Finding {
    let needed = connections + OTHER_FILES;
    if limit >= needed {
        return Finding::good("open_files", format!("{limit} files may be open, enough for {connections} clients"));
    }
    Finding::warning(
        "open_files",
        format!(
            "{limit} files may be open: some {} clients, and --max-connections allows {connections}",
            limit.saturating_sub(OTHER_FILES)
        ),
        format!("ulimit -n {needed}   # or LimitNOFILE={needed} in the systemd unit; or a smaller --max-connections"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn open_files() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             95888                95888                processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(table), Some(1024));
        assert_eq!(soft_limit(""), None);
        assert_eq!(soft_limit("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(files(19_100, 19_000).level, Level::Good);
        let tight = files(1024, 19_000);
        assert_eq!(tight.level, Level::Warning);
        assert!(tight.message.contains("924 clients") && tight.remedy.is_some_and(|remedy| remedy.contains("19100")));
    }
}
