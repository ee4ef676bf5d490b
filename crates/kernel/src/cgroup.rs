//! What the control groups of this process allow it: the tightest limit from its own group up to the root.
//!
//! Reads version 2 and version 1. `None` is no limit, and whatever cannot be read. Source:
//! `Documentation/admin-guide/cgroup-v2.rst`, `Documentation/admin-guide/cgroup-v1/`.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Version 1 says "no limit" with the greatest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// CPUs' worth of time, such as 1.5.
pub fn cpu_limit() -> Option<f64> {
    directories("cpu")
        .filter_map(|directory| {
            read(directory.join("cpu.max")).as_deref().and_then(cpu_max).or_else(|| {
                let quota = read(directory.join("cpu.cfs_quota_us"))?;
                let period = read(directory.join("cpu.cfs_period_us"))?;
                cpu_max(&format!("{} {}", quota.trim(), period.trim()))
            })
        })
        .min_by(f64::total_cmp)
}

/// Bytes of memory, socket buffers among them.
pub fn memory_limit() -> Option<u64> {
    least("memory", &["memory.max", "memory.limit_in_bytes"])
}

/// Processes and threads.
pub fn pids_limit() -> Option<u64> {
    least("pids", &["pids.max"])
}

fn least(controller: &str, files: &[&str]) -> Option<u64> {
    let number = |directory: PathBuf| files.iter().find_map(|file| number(&read(directory.join(file))?));
    directories(controller).filter_map(number).min()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Where a controller's files of this process may be, version 2 and then version 1, innermost first.
fn directories(controller: &str) -> impl Iterator<Item = PathBuf> {
    let membership = read("/proc/self/cgroup").unwrap_or_default();
    let unified = path(&membership, "").map(|path| (PathBuf::from(ROOT), path.to_owned()));
    let version_one = path(&membership, controller).map(|path| (Path::new(ROOT).join(controller), path.to_owned()));
    [unified, version_one].into_iter().flatten().flat_map(|(root, path)| {
        // In a container the path may be the host's and not exist below its own root: that still is looked at.
        Path::new(&path).ancestors().map(|part| root.join(part.strip_prefix("/").unwrap_or(part))).collect::<Vec<_>>()
    })
}

/// The path of a controller in `/proc/PID/cgroup` (`id:controllers:path`); the unified hierarchy has no controllers.
fn path<'a>(membership: &'a str, controller: &str) -> Option<&'a str> {
    membership.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

/// CPUs from `QUOTA PERIOD` in µs; `max` and -1 are no limit.
fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// A number; `max` is none.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| *number < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(cpu_max("max 100000\n"), None);
        assert_eq!(cpu_max("-1 100000"), None);
        assert_eq!(cpu_max("5 0"), None);
        assert_eq!((number("4096\n"), number("max\n"), number("9223372036854771712\n")), (Some(4096), None, None));
        let membership = "4:cpu,cpuacct:/docker/a\n1:name=systemd:/x\n0::/user.slice\n";
        assert_eq!(path(membership, "cpu"), Some("/docker/a"));
        assert_eq!(path(membership, ""), Some("/user.slice"));
        assert_eq!(path(membership, "memory"), None);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text: String, list in "[0-9,-]{0,40}") {
            let _ = (path(&text, "cpu"), cpu_max(&text), cpu_max(&list), number(&text));
        }
    }
}
