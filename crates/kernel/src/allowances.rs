//! What this process may use of the machine: limits that are set, and what is left. Reads only.
//!
//! `None` is what cannot be read, or no limit. Source: getrlimit(2), `proc_meminfo(5)`, tcp(7),
//! `Documentation/admin-guide/sysctl/user.rst`.

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use crate::process::Limits;
use crate::{cgroup, sysctl};

/// Limits of this process, its control groups and its network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Allowances {
    /// Descriptors (`RLIMIT_NOFILE`).
    pub nofile: Limits,
    /// Bytes of locked memory (`RLIMIT_MEMLOCK`, soft): rings of `io_uring`.
    pub memlock: Option<u64>,
    /// How late the kernel may end a sleep of this thread, ns.
    pub timer_slack_ns: Option<u64>,
    /// Bytes of memory that can be had without swapping.
    pub memory_available: Option<u64>,
    /// Bytes of memory its control groups allow.
    pub cgroup_memory: Option<u64>,
    /// Processes and threads its control groups allow.
    pub cgroup_pids: Option<u64>,
    /// Bytes of buffers of all TCP sockets of the machine (`net.ipv4.tcp_mem`, third number).
    pub tcp_memory: Option<u64>,
    /// Greatest queue limit of a listener here (`net.core.somaxconn`).
    pub somaxconn: Option<u32>,
    /// Ports that connect(2) chooses from here (`net.ipv4.ip_local_port_range`), both included.
    pub ports: Option<(u16, u16)>,
    /// Sockets in `TIME_WAIT` at most here (`net.ipv4.tcp_max_tw_buckets`).
    pub time_wait_limit: Option<u64>,
    /// Network namespaces that a user may have (`user.max_net_namespaces`).
    pub net_namespaces: Option<u64>,
}

impl Allowances {
    /// Reads them, in the calling thread's network namespace.
    pub fn read() -> Self {
        let nofile = rustix::process::getrlimit(Resource::Nofile);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let page = rustix::param::page_size() as u64;
        Self {
            nofile: Limits { soft: nofile.current.unwrap_or(u64::MAX), hard: nofile.maximum.unwrap_or(u64::MAX) },
            memlock: rustix::process::getrlimit(Resource::Memlock).current,
            timer_slack_ns: rustix::thread::current_timer_slack().ok(),
            memory_available: available(&meminfo),
            cgroup_memory: cgroup::memory_limit(),
            cgroup_pids: cgroup::pids_limit(),
            tcp_memory: sysctl::numbers("net.ipv4.tcp_mem").get(2).and_then(|pages| pages.checked_mul(page)),
            somaxconn: sysctl::number("net.core.somaxconn").and_then(|number| u32::try_from(number).ok()),
            ports: sysctl::port_range(),
            time_wait_limit: sysctl::number("net.ipv4.tcp_max_tw_buckets"),
            net_namespaces: sysctl::number("user.max_net_namespaces"),
        }
    }
}

/// `MemAvailable` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_in_kib() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2_097_152));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn this_process_has_limits() {
        let allowances = Allowances::read();
        assert!(allowances.nofile.soft >= 8 && allowances.nofile.soft <= allowances.nofile.hard);
        assert!(allowances.memory_available.is_some_and(|bytes| bytes > 1 << 20));
        assert!(allowances.timer_slack_ns.is_some_and(|ns| ns > 0));
        assert!(allowances.ports.is_some_and(|(low, high)| low <= high), "{allowances:?}");
    }
}
