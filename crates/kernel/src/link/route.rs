//! The two routes that give a namespace many addresses: a local one here, and one back to it from the other end.
//!
//! A network routed as local makes each of its addresses one of this namespace's: it may be bound to, and what arrives
//! for it is taken (`ip route add local NETWORK dev lo`; `net/ipv4/fib_frontend.c`, `inet_addr_type_table`). One route
//! stands for 65 536 addresses, where as many addresses would take seconds: the kernel looks through an interface's list
//! for each one added. IPv6 binds to addresses only (`net/ipv6/af_inet6.c`, `ipv6_chk_addr`), so there they are added.
//!
//! Source: rtnetlink(7), `include/uapi/linux/rtnetlink.h`, `net/ipv4/fib_trie.c`.

use std::net::IpAddr;

use super::{AF_INET, AF_INET6, LinkError, Links};
use crate::netlink::{ACK, CREATE, EXCLUSIVE, Message};

const RTM_NEWROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// `RT_TABLE_MAIN` and `RT_TABLE_LOCAL`.
const MAIN: u8 = 254;
const LOCAL: u8 = 255;
/// `RTPROT_STATIC`: made by an administrator.
const STATIC: u8 = 4;
/// `RT_SCOPE_UNIVERSE` and `RT_SCOPE_HOST`.
const UNIVERSE: u8 = 0;
const HOST: u8 = 254;
/// `RTN_UNICAST` and `RTN_LOCAL`.
const UNICAST: u8 = 1;
const TO_US: u8 = 2;

/// `struct rtmsg` but for the family and the length of the prefix.
#[derive(Clone, Copy, Debug)]
struct Kind {
    table: u8,
    scope: u8,
    reach: u8,
}

impl Links {
    /// Makes every address of an IPv4 network one of this namespace's (`ip route add local NETWORK/PREFIX dev NAME`).
    /// `name` is an interface that is up, best `lo`.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with EEXIST when there is such a route, ENODEV when there is no such interface, EINVAL when
    /// the address has bits beyond the prefix, ENETDOWN when the interface is down.
    pub fn add_local_network(&mut self, name: &str, network: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let kind = Kind { table: LOCAL, scope: HOST, reach: TO_US };
        self.add_route("routing to itself through", name, kind, (network, prefix), None)
    }

    /// Sends what is for a network to a neighbour (`ip route add NETWORK/PREFIX via NEIGHBOUR dev NAME`). Only the
    /// neighbour's own address is then looked for on the link, however many addresses are behind it.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with EEXIST when there is such a route, ENODEV when there is no such interface, EINVAL when
    /// the address has bits beyond the prefix, ENETUNREACH when the neighbour is not on the link.
    pub fn add_route_via(
        &mut self,
        name: &str,
        (network, prefix): (IpAddr, u8),
        neighbour: IpAddr,
    ) -> Result<(), LinkError> {
        let kind = Kind { table: MAIN, scope: UNIVERSE, reach: UNICAST };
        self.add_route("routing through", name, kind, (network, prefix), Some(neighbour))
    }

    fn add_route(
        &mut self,
        operation: &'static str,
        name: &str,
        kind: Kind,
        (network, prefix): (IpAddr, u8),
        neighbour: Option<IpAddr>,
    ) -> Result<(), LinkError> {
        super::name_bytes(operation, name)?;
        let index = self.index_of(name).map_err(|failure| LinkError::new(operation, name, failure))?;
        let mut message = Message::new(RTM_NEWROUTE, ACK | CREATE | EXCLUSIVE);
        message.push(&header(network, prefix, kind));
        attach(&mut message, RTA_DST, network);
        if let Some(neighbour) = neighbour {
            attach(&mut message, RTA_GATEWAY, neighbour);
        }
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        self.request(operation, name, message)
    }
}

fn attach(message: &mut Message, attribute: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => message.attribute(attribute, &v4.octets()),
        IpAddr::V6(v6) => message.attribute(attribute, &v6.octets()),
    }
}

/// `struct rtmsg`, without flags.
fn header(network: IpAddr, prefix: u8, Kind { table, scope, reach }: Kind) -> [u8; 12] {
    let family = if network.is_ipv4() { AF_INET } else { AF_INET6 };
    [family, prefix, 0, 0, table, STATIC, scope, reach, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_kernels_layout() {
        let kind = Kind { table: LOCAL, scope: HOST, reach: TO_US };
        assert_eq!(header(IpAddr::from([198, 18, 64, 0]), 26, kind), [2, 26, 0, 0, 255, 4, 254, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn an_interface_that_does_not_exist_is_reported() {
        let mut links = Links::open().unwrap();
        let error = links.add_local_network("no-such-link", IpAddr::from([198, 18, 64, 0]), 26).unwrap_err();
        assert!(error.to_string().starts_with("routing to itself through 'no-such-link'"), "{error}");
    }
}
