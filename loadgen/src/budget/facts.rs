//! What the machine and its kernel give a load, as a [`Budget`](super::Budget) needs it.

use std::net::{IpAddr, SocketAddr};

use kernel::sock_diag::SockDiag;
use kernel::sysctl;
use telemetry::units::Span;

use crate::opts::{PortRange, Shard};

/// Facts of a machine, of the calling thread's network namespace, and of the way to the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Descriptors the process may have open.
    pub nofile: u64,
    /// Ports that connect(2) chooses from, for each source address; `None` when the range cannot be read.
    pub ports_per_source: Option<u64>,
    /// Source addresses this generator takes in turn; 1 when the kernel chooses.
    pub sources: u64,
    /// May connect(2) choose the target's port for the client's own? It is in the range and not reserved.
    pub target_chosen: bool,
    /// Sockets towards the target's port that are in `TIME_WAIT` now.
    pub leftover: u64,
    /// Is the target, or every source, a loopback address? A target of this host's with another address is not, although
    /// its packets take the loopback device: `tcp_twsk_unique` looks at the addresses.
    pub loopback: bool,
    /// `net.ipv4.tcp_tw_reuse`.
    pub reuse: Reuse,
    /// `net.ipv4.tcp_tw_reuse_delay` (Linux 6.14; before it: until the next full second, so 1 s at most).
    pub reuse_delay: Span,
    /// `net.ipv4.tcp_timestamps`: is not 0.
    pub timestamps: bool,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub time_wait_limit: u64,
    /// `net.ipv4.tcp_fin_timeout`: how long a port is taken when the server never closes (`FIN_WAIT2`).
    pub fin_timeout: Span,
}

/// When connect(2) takes a port out of `TIME_WAIT`, `net.ipv4.tcp_tw_reuse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// 0.
    Never,
    /// 1.
    Everywhere,
    /// 2, the default.
    Loopback,
}

impl Default for Facts {
    /// Linux as it comes, on a link.
    fn default() -> Self {
        Self {
            nofile: 20_000,
            ports_per_source: Some(28_232),
            sources: 1,
            target_chosen: false,
            leftover: 0,
            loopback: false,
            reuse: Reuse::Loopback,
            reuse_delay: Span::from_secs(1),
            timestamps: true,
            time_wait_limit: 131_072,
            fin_timeout: Span::from_secs(60),
        }
    }
}

impl Facts {
    /// Reads them in the calling thread's network namespace. `sources` are those of `sources`, empty when the kernel
    /// chooses; `ports` is the range that connect(2) will choose from.
    pub fn read(
        nofile: u64,
        target: SocketAddr,
        sources: &[IpAddr],
        ports: Option<PortRange>,
        shard: Option<Shard>,
    ) -> Self {
        let usual = Self::default();
        let reserved = sysctl::read("net.ipv4.ip_local_reserved_ports").unwrap_or_default();
        let port = target.port();
        let in_range = ports.is_none_or(|ports| (ports.low..=ports.high).contains(&port));
        Self {
            nofile,
            ports_per_source: ports.map(|ports| ports.count().saturating_sub(reserved_within(&reserved, ports))),
            sources: sources_of_shard(sources.len(), shard),
            target_chosen: in_range && reserved_within(&reserved, PortRange { low: port, high: port }) == 0,
            leftover: leftover(port),
            loopback: is_loopback(target.ip()) || (!sources.is_empty() && sources.iter().copied().all(is_loopback)),
            reuse: match sysctl::number("net.ipv4.tcp_tw_reuse") {
                Some(0) => Reuse::Never,
                Some(1) => Reuse::Everywhere,
                _ => Reuse::Loopback,
            },
            reuse_delay: sysctl::number("net.ipv4.tcp_tw_reuse_delay").map_or(usual.reuse_delay, Span::from_millis),
            timestamps: sysctl::number("net.ipv4.tcp_timestamps") != Some(0),
            time_wait_limit: sysctl::number("net.ipv4.tcp_max_tw_buckets").unwrap_or(usual.time_wait_limit),
            fin_timeout: sysctl::number("net.ipv4.tcp_fin_timeout").map_or(usual.fin_timeout, Span::from_secs),
        }
    }
}

fn leftover(port: u16) -> u64 {
    let count = SockDiag::open().ok().and_then(|mut diag| diag.time_waits_towards(port).ok());
    count.map_or(0, u64::from)
}

/// 127.0.0.0/8, `::1`, and the former written as IPv6.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// How many of `all` addresses part i of n takes: those it meets in steps of n, round and round.
fn sources_of_shard(all: usize, shard: Option<Shard>) -> u64 {
    let (_, parts) = shard.map_or((0, 1), Shard::place);
    let (mut common, mut rest) = (all, parts);
    while rest > 0 {
        (common, rest) = (rest, common % rest);
    }
    (all / common.max(1)).max(1) as u64
}

/// How many ports of `ports` a list like `8080,9000-9010` reserves: connect(2) never chooses them.
fn reserved_within(list: &str, ports: PortRange) -> u64 {
    let within = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u16, u16) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        let (low, high) = (low.max(ports.low), high.min(ports.high));
        (low <= high).then(|| PortRange { low, high }.count())
    };
    list.split(',').filter_map(within).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_those_within_the_range() {
        let ports = PortRange { low: 40_000, high: 40_009 };
        assert_eq!(reserved_within("", ports), 0);
        assert_eq!(reserved_within("8080,40003-40005,40009-50000", ports), 4);
    }

    #[test]
    fn a_shard_takes_the_sources_it_meets() {
        let shard = |text: &str| text.parse().ok();
        assert_eq!(sources_of_shard(0, None), 1, "the kernel's choice is one");
        assert_eq!(sources_of_shard(62, None), 62);
        assert_eq!(sources_of_shard(4, shard("2/2")), 2, "every other one");
        assert_eq!(sources_of_shard(5, shard("2/2")), 5, "all, in two rounds");
        assert_eq!(sources_of_shard(6, shard("1/4")), 3);
    }

    #[test]
    fn loopback_is_a_matter_of_addresses() {
        assert!(is_loopback(IpAddr::from([127, 0, 0, 9])));
        assert!(is_loopback("::ffff:127.0.0.1".parse().expect("an address")));
        assert!(!is_loopback(IpAddr::from([198, 18, 0, 1])));
    }

    #[test]
    fn this_namespace_has_facts() {
        let target = SocketAddr::from(([127, 0, 0, 1], 1));
        let facts = Facts::read(1000, target, &[], Some(PortRange { low: 40_000, high: 40_009 }), None);
        assert!(facts.loopback && facts.time_wait_limit > 0 && facts.fin_timeout > Span::ZERO);
        assert_eq!((facts.sources, facts.nofile), (1, 1000));
    }
}
