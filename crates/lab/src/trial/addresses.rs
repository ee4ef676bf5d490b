//! The addresses of a trial's two ends: loopback, or the ranges set aside for benchmarks (RFC 2544, RFC 5180).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::experiment::{Family, Wiring};

/// Addresses and prefix lengths of the two ends.
pub(crate) struct Addresses {
    pub(crate) server: (IpAddr, u8),
    pub(super) client: (IpAddr, u8),
}

/// Those of a trial, the same in every one: its namespaces are its own.
pub(crate) fn addresses(wiring: Wiring, family: Family) -> Addresses {
    let pair =
        |server: IpAddr, client: IpAddr, prefix| Addresses { server: (server, prefix), client: (client, prefix) };
    match (wiring, family) {
        (Wiring::Loopback, Family::Ipv4) => pair(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into(), 8),
        (Wiring::Loopback, Family::Ipv6) => pair(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), 128),
        (Wiring::Veth, Family::Ipv4) => {
            pair(Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 18, 0, 2).into(), 24)
        }
        (Wiring::Veth, Family::Ipv6) => {
            let host = |n| Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, n).into();
            pair(host(1), host(2), 64)
        }
    }
}
