//! The machine a run took place on, recorded with its results.
//!
//! Owns the record and never fails: what cannot be found out is `None`. It leaves out whatever names a machine or a
//! person (host name, addresses, paths). Source: uname(2), sysinfo(2), `proc_cpuinfo(5)`,
//! `Documentation/admin-guide/sysctl/{kernel,user}.rst`.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::process::Resource;
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use crate::namespace::{self, Privilege};
use crate::sock_diag::SockDiag;
use crate::{cgroup, process, sysctl};

/// Whether the kernel offers something, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Feature {
    /// True when it may be used by this process, here.
    pub available: bool,
    /// The refusal, or a restriction worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Feature {
    fn from_result<E: std::fmt::Display>(result: Result<(), E>) -> Self {
        let detail = result.err().map(|error| error.to_string());
        Self { available: detail.is_none(), detail }
    }
}

/// The machine and what this process may do on it. `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Environment {
    /// `uname -r`, such as `6.12.9`.
    pub kernel_release: Option<String>,
    /// `uname -v`: build number, preemption model, date.
    pub kernel_version: Option<String>,
    /// `uname -m`, such as `x86_64`.
    pub architecture: Option<String>,
    /// Name of the first CPU.
    pub cpu_model: Option<String>,
    /// CPUs that are on.
    pub cpus_online: Option<usize>,
    /// CPUs this process may use.
    pub cpus_allowed: Option<usize>,
    /// CPUs' worth of time the control group allows, such as 1.5; the tightest limit up to the root. `None` is also no
    /// limit.
    pub cgroup_cpu_limit: Option<f64>,
    /// Memory of the machine in bytes.
    pub memory_bytes: Option<u64>,
    /// Timer ticks per second: the resolution of TCP's timers and of `tcpi_last_data_sent` is one tick.
    pub hz: Option<u32>,
    /// Clock source, such as `tsc` or `kvm-clock`.
    pub clocksource: Option<String>,
    /// Hard limit of file descriptors; `u64::MAX` when unlimited.
    pub nofile_hard: Option<u64>,
    /// Effective user id.
    pub user: Option<u32>,
    /// How this process comes by network namespaces.
    pub privilege: Option<Privilege>,
    /// True in a virtual machine (the CPU's hypervisor flag; x86 only).
    pub virtualized: Option<bool>,
    /// Features by name: `io-uring`, `user-namespaces`, `ipv6`, `sock-diag` and the sysctls some kernels lack.
    pub features: BTreeMap<String, Feature>,
}

/// Describes this machine. Reads only; takes about a millisecond.
pub fn collect() -> Environment {
    let uname = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_str().ok().map(str::to_owned);
    let cpuinfo = read("/proc/cpuinfo");
    let memory = rustix::system::sysinfo();
    Environment {
        kernel_release: text(uname.release()),
        kernel_version: text(uname.version()),
        architecture: text(uname.machine()),
        cpu_model: cpuinfo.as_deref().and_then(cpu_model),
        cpus_online: read("/sys/devices/system/cpu/online").as_deref().and_then(count_in_list),
        cpus_allowed: process::allowed_cpus().ok().map(|cpus| cpus.len()),
        cgroup_cpu_limit: cgroup::cpu_limit(),
        memory_bytes: (memory.totalram as u64).checked_mul(u64::from(memory.mem_unit)),
        hz: hz(),
        clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .map(|source| source.trim().to_owned()),
        nofile_hard: Some(rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
        user: Some(rustix::process::geteuid().as_raw()),
        privilege: Some(namespace::privilege()),
        virtualized: cpuinfo.as_deref().and_then(virtualized),
        features: features(),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Ticks per second. The coarse clocks advance once per tick, so their resolution is 1/HZ
/// (`kernel/time/posix-timers.c`, `KTIME_LOW_RES`); sysconf(3) would be `USER_HZ`, always 100.
fn hz() -> Option<u32> {
    let tick = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    let tick_ns = u64::try_from(tick.tv_nsec).ok().filter(|ns| *ns > 0 && tick.tv_sec == 0)?;
    // Rounded: 300 Hz has a tick of 3333333 ns.
    u32::try_from((1_000_000_000 + tick_ns / 2) / tick_ns).ok()
}

fn features() -> BTreeMap<String, Feature> {
    let mut features = BTreeMap::from([
        ("io-uring".to_owned(), Feature::from_result(process::io_uring_works())),
        ("user-namespaces".to_owned(), user_namespaces()),
        ("sock-diag".to_owned(), Feature::from_result(sock_diag())),
        ("ipv6".to_owned(), ipv6()),
    ]);
    for (name, sysctl) in [
        ("somaxconn", "net.core.somaxconn"),
        ("syn-linear-timeouts", "net.ipv4.tcp_syn_linear_timeouts"),
        ("migrate-req", "net.ipv4.tcp_migrate_req"),
        ("fastopen", "net.ipv4.tcp_fastopen"),
        ("rto-max-ms", "net.ipv4.tcp_rto_max_ms"),
        ("tw-reuse-delay", "net.ipv4.tcp_tw_reuse_delay"),
        ("child-ehash-entries", "net.ipv4.tcp_child_ehash_entries"),
    ] {
        let available = sysctl::exists(sysctl);
        let detail = (!available).then(|| format!("this namespace has no {sysctl}"));
        features.insert(name.to_owned(), Feature { available, detail });
    }
    features
}

fn user_namespaces() -> Feature {
    let mut feature = Feature::from_result(namespace::user_namespaces_work());
    let restricted = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    if feature.available && restricted.is_some_and(|value| value.trim() == "1") {
        feature.detail = Some("AppArmor may refuse: kernel.apparmor_restrict_unprivileged_userns is 1".to_owned());
    }
    feature
}

fn sock_diag() -> Result<(), String> {
    let mut diag = SockDiag::open().map_err(|error| error.to_string())?;
    diag.listeners().map(drop).map_err(|error| error.to_string())
}

fn ipv6() -> Feature {
    let available = Path::new("/proc/thread-self/net/if_inet6").exists();
    Feature { available, detail: (!available).then(|| "IPv6 is not compiled in, or off since boot".to_owned()) }
}

/// The first CPU's name: `model name` on x86, `CPU part` on most arm64 kernels.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "CPU part"].into_iter().find_map(|key| field(cpuinfo, key)).map(str::to_owned)
}

/// The hypervisor flag. `None` without a line of flags (arm64 calls them features and has no such one).
fn virtualized(cpuinfo: &str) -> Option<bool> {
    Some(field(cpuinfo, "flags")?.split_ascii_whitespace().any(|flag| flag == "hypervisor"))
}

/// Value of the first `key : value` line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// How many numbers a list like `0-3,8` names.
fn count_in_list(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0usize, |count, range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        count.checked_add(to.checked_sub(from)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const X86: &str = "processor\t: 0\nmodel name\t: Fast CPU @ 3.00GHz\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\n";
    const ARM: &str = "processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n";

    #[test]
    fn cpus_are_described_on_both_architectures() {
        assert_eq!(cpu_model(X86).as_deref(), Some("Fast CPU @ 3.00GHz"));
        assert_eq!(cpu_model(ARM).as_deref(), Some("0xd0c"));
        assert_eq!((virtualized(X86), virtualized(ARM)), (Some(true), None));
        assert_eq!(virtualized("flags : fpu\n"), Some(false));
    }

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(count_in_list("0-3,8\n"), Some(5));
        assert_eq!(count_in_list("0"), Some(1));
        assert_eq!(count_in_list("3-1"), None);
        assert_eq!(count_in_list(""), None);
    }

    #[test]
    fn this_machine_is_described() {
        let environment = collect();
        assert!(environment.kernel_release.is_some_and(|release| release.contains('.')));
        assert!(environment.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(environment.hz.is_some_and(|hz| (24..=2000).contains(&hz)), "{:?}", environment.hz);
        assert!(environment.cpus_allowed.unwrap() <= environment.cpus_online.unwrap());
        for name in ["io-uring", "user-namespaces", "sock-diag", "ipv6", "somaxconn"] {
            assert!(environment.features.contains_key(name), "{name}");
        }
        assert!(environment.features["sock-diag"].available);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text: String, list in "[0-9,-]{0,40}") {
            let _ = (cpu_model(&text), virtualized(&text), count_in_list(&list));
        }
    }
}
