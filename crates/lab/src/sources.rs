//! The addresses a trial's load comes from (`loadgen.sources`): made the client's, with a way back from the server.
//!
//! IPv4 networks become the client's by one local route each, IPv6 addresses one by one ([`kernel::link`] says why). The
//! server reaches them through the client's own address, so that it looks for one neighbour however many there are
//! (`net.ipv4.neigh.default.gc_thresh3` allows 1024 for the whole machine).

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::link::{LinkError, Links};
use loadgen::opts::Sources;

use crate::experiment::{Family, Wiring};
use crate::inside::SetUp;
use crate::trial::addresses::addresses;

/// The interface of local routes, and of both ends where there is one namespace.
pub(crate) const LOOPBACK: &str = "lo";

/// Says what of these sources can never work in a trial, with the fix.
pub(crate) fn check(sources: &Sources, wiring: Wiring, family: Family) -> Result<(), String> {
    let example = match family {
        Family::Ipv4 => "198.18.64.0/26",
        Family::Ipv6 => "2001:2:0:64::/122",
    };
    if sources.is_ipv4() != (family == Family::Ipv4) {
        return Err(format!(
            "loadgen.sources = \"{sources}\" is not of the trials' family; give sources like {example}, or set \
             experiment.family"
        ));
    }
    let (server, _) = addresses(wiring, family).server;
    for (network, prefix) in sources.networks() {
        let text = Shown(network, prefix);
        match wiring {
            Wiring::Veth if contains(network, prefix, server) => {
                return Err(format!(
                    "loadgen.sources: {text} contains the server's own address {server}, which the client would then keep \
                     to itself; use another network, e.g. {example}"
                ));
            }
            Wiring::Veth if network.is_loopback() => {
                return Err(format!(
                    "loadgen.sources: what comes from {text} never leaves its namespace; with topology \"veth\" use e.g. \
                     {example}"
                ));
            }
            Wiring::Veth | Wiring::Loopback => {}
        }
    }
    Ok(())
}

/// Makes the sources addresses of the client's namespace, in which `links` was opened and `name` leads to the server.
///
/// IPv6 addresses go to that interface: a neighbour is asked for from the packet's source only if that is there, else from
/// the link-local address, which waits a second for duplicates (`net/ipv6/ndisc.c`, `ndisc_solicit`).
pub(crate) fn own(links: &mut Links, name: &str, set_up: &SetUp) -> Result<(), LinkError> {
    let Some(sources) = &set_up.sources else { return Ok(()) };
    if sources.is_ipv4() {
        return networks(sources, set_up)
            .into_iter()
            .filter(|(network, _)| !network.is_loopback())
            .try_for_each(|(network, prefix)| links.add_local_network(LOOPBACK, network, prefix));
    }
    let (client, _) = set_up.client;
    let addresses: BTreeSet<IpAddr> = sources.addresses().into_iter().collect();
    let others = addresses.into_iter().filter(|address| *address != client && !address.is_loopback());
    others.into_iter().try_for_each(|address| links.add_address(name, address, 128))
}

/// Shows the server's namespace, in which `links` was opened, the way back to them, through its interface `name`.
pub(crate) fn lead_back(links: &mut Links, name: &str, set_up: &SetUp) -> Result<(), LinkError> {
    let Some(sources) = &set_up.sources else { return Ok(()) };
    let (client, _) = set_up.client;
    networks(sources, set_up).into_iter().try_for_each(|network| links.add_route_via(name, network, client))
}

/// Each once, without the client's own address.
fn networks(sources: &Sources, set_up: &SetUp) -> BTreeSet<(IpAddr, u8)> {
    let (client, _) = set_up.client;
    let alone = |(network, prefix): &(IpAddr, u8)| *network == client && *prefix == full(client);
    sources.networks().filter(|network| !alone(network)).collect()
}

/// The prefix of an address alone.
fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

/// A network as it was written.
struct Shown(IpAddr, u8);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(network, prefix) = self;
        if *prefix == full(*network) { network.fmt(f) } else { write!(f, "{network}/{prefix}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sources: &str, wiring: Wiring, family: Family) -> String {
        check(&sources.parse().expect("sources"), wiring, family).expect_err(sources)
    }

    #[test]
    fn sources_that_cannot_reach_the_server_are_refused() {
        let text = refused("198.18.0.0/24", Wiring::Veth, Family::Ipv4);
        assert!(
            text.starts_with("loadgen.sources: 198.18.0.0/24 contains the server's own address 198.18.0.1"),
            "{text}"
        );
        let text = refused("127.0.0.2,198.18.64.0/26", Wiring::Veth, Family::Ipv4);
        assert!(text.starts_with("loadgen.sources: what comes from 127.0.0.2 never leaves"), "{text}");
        let text = refused("198.18.64.0/26", Wiring::Veth, Family::Ipv6);
        assert!(text.contains("not of the trials' family; give sources like 2001:2:0:64::/122"), "{text}");
        assert!(refused("2001:2::/120", Wiring::Veth, Family::Ipv6).contains("own address 2001:2::1"));
    }

    #[test]
    fn other_networks_are_fine() {
        let fine = |sources: &str, wiring, family| check(&sources.parse().expect("sources"), wiring, family);
        assert_eq!(fine("198.18.64.0/26,198.18.0.2,198.18.0.128/25", Wiring::Veth, Family::Ipv4), Ok(()));
        assert_eq!(fine("127.0.0.2,198.18.64.0/26", Wiring::Loopback, Family::Ipv4), Ok(()));
        assert_eq!(fine("2001:2:0:64::/122", Wiring::Veth, Family::Ipv6), Ok(()));
        assert_eq!(fine("2001:2:0:64::/122", Wiring::Loopback, Family::Ipv6), Ok(()));
    }
}
