//! Names of kernel parameters: which file one means, and whether it is private to a network namespace.
//!
//! Pure: asks no kernel. Source: sysctl.d(5), `net/core/sysctl_net_core.c`, `net/ipv4/sysctl_net_ipv4.c`.

use std::path::{Path, PathBuf};

use crate::sysctl::SysctlError;

/// Root of all sysctls.
pub(crate) const PROC_SYS: &str = "/proc/sys";

/// `net.core` entries that are per namespace and writable; everything else there belongs to the whole machine
/// (`net/core/sysctl_net_core.c`, `netns_core_table`). A list of what is allowed, because that table grows slower.
const CORE_PER_NAMESPACE: &[&str] = &[
    "somaxconn",
    "optmem_max",
    "txrehash",
    "tstamp_allow_data",
    "rps_default_mask",
    "xfrm_acq_expires",
    "xfrm_aevent_etime",
    "xfrm_aevent_rseqth",
    "xfrm_larval_drop",
];

/// Entries below `net.`, but outside `net.core`, that belong to the whole machine, hidden or read-only in a private
/// namespace: compared on Linux 6.18 between the initial namespace and a fresh one. An entry that ends in `_` is a
/// prefix.
const GLOBAL: &[&str] = &[
    "ipv4.cipso_cache_bucket_size",
    "ipv4.cipso_cache_enable",
    "ipv4.cipso_rbm_optfmt",
    "ipv4.cipso_rbm_strictvalid",
    "ipv4.fib_sync_mem",
    "ipv4.inet_peer_maxttl",
    "ipv4.inet_peer_minttl",
    "ipv4.inet_peer_threshold",
    "ipv4.ipfrag_secret_interval",
    "ipv4.route.error_burst",
    "ipv4.route.error_cost",
    "ipv4.route.gc_",
    "ipv4.route.max_size",
    "ipv4.route.redirect_",
    "ipv4.tcp_allowed_congestion_control",
    "ipv4.tcp_available_",
    "ipv4.tcp_ehash_entries",
    "ipv4.tcp_low_latency",
    "ipv4.tcp_max_orphans",
    "ipv4.tcp_mem",
    "ipv4.udp_hash_entries",
    "ipv4.udp_mem",
    "ipv6.calipso_",
    "ipv6.ip6frag_secret_interval",
    "ipv6.mld_max_msf",
    "ipv6.mld_qrv",
    "mptcp.available_",
    "netfilter.nf_conntrack_buckets",
    "netfilter.nf_conntrack_count",
    "netfilter.nf_conntrack_expect_max",
    "netfilter.nf_conntrack_max",
    "netfilter.nf_log_all_netns",
    "nf_conntrack_max",
];

/// The components of a name. With a slash anywhere, slashes separate and dots are literal
/// (`net/ipv4/conf/eth0.1/rp_filter`); otherwise dots separate. Source: sysctl.d(5).
pub(crate) fn components(name: &str) -> Result<Vec<&str>, SysctlError> {
    let invalid = |reason| Err(SysctlError::Invalid { name: name.to_owned(), reason });
    let separator = if name.contains('/') { '/' } else { '.' };
    let parts: Vec<&str> = name.split(separator).collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | ':');
    if !name.chars().all(|c| allowed(c) || c == '/') {
        return invalid("has a character outside a-z A-Z 0-9 _ - . @ : /");
    }
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
        return invalid("has an empty part, '.' or '..'");
    }
    if parts.len() < 2 {
        return invalid("has no directory");
    }
    Ok(parts)
}

/// The file of a sysctl below `/proc/sys`. The name is validated, its existence is not.
///
/// # Errors
/// [`SysctlError::Invalid`] for an empty name, an empty part, `..`, or a character outside `[a-z A-Z 0-9 _ - . @ :]`.
pub fn path_of(name: &str) -> Result<PathBuf, SysctlError> {
    Ok(Path::new(PROC_SYS).join(components(name)?.join("/")))
}

/// `Ok` when the sysctl may be set in a private network namespace without touching the machine. Does not ask whether
/// this kernel has it.
///
/// # Errors
/// [`SysctlError::Invalid`] for a bad name, [`SysctlError::Global`] with the reason for one that belongs to the
/// machine.
pub fn classify(name: &str) -> Result<(), SysctlError> {
    let parts = components(name)?;
    let global = |reason, hint| Err(SysctlError::Global { name: name.to_owned(), reason, hint });
    if parts[0] != "net" {
        return global(
            "only net.* is per network namespace, fs.*, kernel.* and vm.* belong to the whole machine",
            "set it on the machine before the run; it is not a factor",
        );
    }
    if parts[1] == "core" {
        if parts.get(2).is_some_and(|leaf| CORE_PER_NAMESPACE.contains(leaf)) {
            return Ok(());
        }
        return global(
            "in net.core only a few entries such as somaxconn are per network namespace, this one is shared by all",
            "set it on the machine before the run; it is not a factor",
        );
    }
    let below_net = parts[1..].join(".");
    let matches = |pattern: &&str| below_net == *pattern || (pattern.ends_with('_') && below_net.starts_with(*pattern));
    if GLOBAL.iter().any(matches) {
        return global(
            "the kernel keeps one value for the whole machine, hidden or read-only in a private namespace",
            "set it on the machine before the run; it is not a factor",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dots_and_slashes_name_the_same_file() {
        let path = Path::new("/proc/sys/net/core/somaxconn");
        assert_eq!(path_of("net.core.somaxconn").unwrap(), path);
        assert_eq!(path_of("net/core/somaxconn").unwrap(), path);
        assert_eq!(
            path_of("net/ipv4/conf/eth0.1/rp_filter").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")
        );
    }

    #[test]
    fn bad_names_are_refused() {
        for name in
            ["", "net", ".", "net..core", "net.", "/net/core", "net/../../etc/passwd", "net/./a", "net.a b", "net.ä"]
        {
            assert!(matches!(path_of(name), Err(SysctlError::Invalid { .. })), "{name}");
        }
    }

    #[test]
    fn only_settings_of_a_private_namespace_are_classified_as_such() {
        for name in [
            "net.core.somaxconn",
            "net/ipv4/tcp_syncookies",
            "net.ipv4.tcp_child_ehash_entries",
            "net.ipv4.route.min_pmtu",
            "net.ipv4.tcp_rmem",
        ] {
            assert!(classify(name).is_ok(), "{name}");
        }
        for name in [
            "fs.file-max",
            "kernel.pid_max",
            "vm.swappiness",
            "net.core.netdev_max_backlog",
            "net.core.rmem_max",
            "net.core.busy_poll",
            "net.core.skb_defer_max",
            "net.core.default_qdisc",
            "net.ipv4.tcp_mem",
            "net.ipv4.tcp_max_orphans",
            "net.ipv4.tcp_available_congestion_control",
            "net.ipv4.route.gc_timeout",
            "net.ipv4.tcp_ehash_entries",
        ] {
            assert!(matches!(classify(name), Err(SysctlError::Global { .. })), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_proc_sys(name: String) {
            if let Ok(path) = path_of(&name) {
                prop_assert!(path.starts_with(PROC_SYS));
                prop_assert!(path.components().all(|part| matches!(part,
                    std::path::Component::RootDir | std::path::Component::Normal(_))));
            }
            let _ = classify(&name);
        }
    }
}
