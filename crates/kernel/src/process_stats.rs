//! What this process has used, under the names of Prometheus' `process_*` metrics.
//!
//! Source: `proc_pid_stat(5)`, `proc_pid_statm(5)`, `proc_stat(5)`. `/proc/self` works even when `/proc` belongs to an
//! outer PID namespace, where `/proc/PID` with our own idea of PID would be someone else.

use std::io;

use rustix::process::Resource;
use rustix::time::{ClockId, Timespec};
use serde::{Deserialize, Serialize};

/// Use of resources by this process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProcessStats {
    /// User and system CPU time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Soft limit of file descriptors; `u64::MAX` when unlimited.
    pub max_fds: u64,
    /// Start of the process, in seconds since 1970; exact to the tick of 10 ms and the whole second of the boot time.
    pub start_time_seconds: f64,
}

/// Reads the use of resources of this process, all threads included.
///
/// # Errors
/// Those of reading `/proc`; `InvalidData` when a file there has an unexpected form.
pub fn stats() -> io::Result<ProcessStats> {
    let resident_pages =
        resident_pages(&std::fs::read_to_string("/proc/self/statm")?).ok_or_else(|| malformed("/proc/self/statm"))?;
    Ok(ProcessStats {
        cpu_seconds: seconds(rustix::time::clock_gettime(ClockId::ProcessCPUTime)),
        resident_bytes: resident_pages.saturating_mul(rustix::param::page_size() as u64),
        open_fds: open_fds()?,
        max_fds: rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        start_time_seconds: start_time()?,
    })
}

/// Number of open file descriptors of this process. Since Linux 6.2 the size of `/proc/self/fd` is that number; before,
/// the directory is counted, at a cost that grows with it.
///
/// # Errors
/// Those of reading `/proc/self/fd`.
pub fn open_fds() -> io::Result<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match std::fs::metadata(DIRECTORY)?.len() {
        // One of the entries is the directory that is being read.
        0 => Ok((std::fs::read_dir(DIRECTORY)?.count() as u64).saturating_sub(1)),
        size => Ok(size),
    }
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn malformed(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("reading {path}: unexpected form"))
}

fn start_time() -> io::Result<f64> {
    let ticks =
        start_ticks(&std::fs::read_to_string("/proc/self/stat")?).ok_or_else(|| malformed("/proc/self/stat"))?;
    // Not from the clocks: adjusting the time would make the start of a process move.
    let boot = boot_time(&std::fs::read_to_string("/proc/stat")?).ok_or_else(|| malformed("/proc/stat"))?;
    Ok(boot as f64 + ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Field 2 of `statm`: resident pages.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Field 22 of `stat`, ticks since boot. Field 2 is the name in parentheses, which may hold blanks and parentheses.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// `btime` of `/proc/stat`: seconds since 1970.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn fields_are_found_behind_an_awkward_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 10";
        assert_eq!(start_ticks(stat), Some(123_456));
        assert_eq!(start_ticks("42 (a) S 1"), None);
        assert_eq!(resident_pages("1000 250 100 1 0 200 0\n"), Some(250));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_is_described() {
        let stats = stats().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - stats.start_time_seconds).abs() < 3600.0, "{stats:?}");
        assert!(stats.resident_bytes > 100_000 && stats.cpu_seconds > 0.0, "{stats:?}");
        assert!(stats.open_fds >= 3 && stats.max_fds >= stats.open_fds, "{stats:?}");
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text: String) {
            let _ = (start_ticks(&text), resident_pages(&text), boot_time(&text));
        }
    }
}
