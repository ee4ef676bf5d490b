//! Network interfaces of a private namespace: loopback up, a veth pair, addresses, and routes to many of them.
//!
//! Owns the few rtnetlink requests a trial needs. It refuses everything else (queueing disciplines, rules). Every request
//! waits for its acknowledgement. Source: rtnetlink(7), veth(4), `include/uapi/linux/if_link.h`, `if_addr.h`,
//! `drivers/net/veth.c`.

mod route;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

pub use crate::link_error::LinkError;
use crate::namespace::NetNs;
use crate::netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Failure, Message, Socket, attributes, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_GETMULTICAST: u16 = 58;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_MULTICAST: u16 = 7;
const IFA_F_NODAD: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `IFNAMSIZ` with its final NUL.
const NAME_SIZE: usize = 16;

/// A `NETLINK_ROUTE` socket: the interfaces of the namespace in which it was opened.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

impl Links {
    /// Opens the socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`LinkError::Io`] when socket(2) fails.
    pub fn open() -> Result<Self, LinkError> {
        let socket =
            Socket::open(None).map_err(|source| LinkError::new("opening", "NETLINK_ROUTE", Failure::Io(source)))?;
        Ok(Self { socket })
    }

    /// Sets an interface up (`ip link set NAME up`).
    ///
    /// # Errors
    /// [`LinkError::Refused`] with ENODEV when there is none, EPERM without the privilege.
    pub fn set_up(&mut self, name: &str) -> Result<(), LinkError> {
        const OPERATION: &str = "setting up";
        let mut message = Message::new(RTM_NEWLINK, ACK);
        message.push(&interface_header(0, IFF_UP, IFF_UP));
        message.attribute(IFLA_IFNAME, &name_bytes(OPERATION, name)?);
        self.request(OPERATION, name, message)
    }

    /// Waits until packets pass through an interface, asking every millisecond for at most `limit`. Call it for both
    /// ends of a pair, after addresses are added and both are up.
    ///
    /// Being up is not enough, because the kernel finishes two things later, in work items, and until then drops what
    /// comes without a word: it activates the queue (`net/core/link_watch.c`; `IFF_RUNNING`), and it joins the
    /// multicast group in which an IPv6 address is looked for (`net/ipv6/addrconf.c`, `addrconf_dad_begin`). What is
    /// lost then is the first SYN or neighbour solicitation, which costs a second: seen in 1 of 4 fresh pairs.
    ///
    /// # Errors
    /// [`LinkError::NotRunning`] when the time is up, [`LinkError::Refused`] with ENODEV when there is no such
    /// interface.
    pub fn wait_running(&mut self, name: &str, limit: Duration) -> Result<(), LinkError> {
        const OPERATION: &str = "waiting for";
        name_bytes(OPERATION, name)?;
        let deadline = Instant::now() + limit;
        loop {
            let ready = self.is_ready(name);
            if ready.map_err(|failure| LinkError::new(OPERATION, name, failure))? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(LinkError::NotRunning { link: name.to_owned(), limit });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Running, and every IPv6 address of ours can be found by a neighbour.
    fn is_ready(&mut self, name: &str) -> Result<bool, Failure> {
        let index = self.index_of(name)?;
        let mut message = Message::new(RTM_GETLINK, ACK);
        message.push(&interface_header(index, 0, 0));
        let mut flags = 0;
        self.socket.exchange(message, |reply| {
            flags = u32_at(reply, 8).ok_or(Failure::Malformed("an interface without flags"))?;
            Ok(())
        })?;
        if flags & IFF_RUNNING == 0 {
            return Ok(false);
        }
        let addresses = self.ipv6_addresses(RTM_GETADDR, IFA_ADDRESS, index)?;
        if addresses.is_empty() {
            return Ok(true);
        }
        let joined = self.ipv6_addresses(RTM_GETMULTICAST, IFA_MULTICAST, index)?.into_iter().collect::<BTreeSet<_>>();
        Ok(addresses.into_iter().map(solicited_node_group).all(|group| joined.contains(&group)))
    }

    /// The IPv6 addresses or groups (`attribute`) of an interface in a dump, without link-local addresses: the kernel
    /// makes those itself, and they wait a second for duplicates.
    fn ipv6_addresses(&mut self, dump: u16, attribute: u16, index: u32) -> Result<Vec<Ipv6Addr>, Failure> {
        let mut message = Message::new(dump, DUMP);
        message.push(&address_header(AF_INET6, 0, 0, 0));
        let mut found = Vec::new();
        self.socket.exchange(message, |reply| {
            // Without IPv6 in the kernel the dump falls back to all families.
            if reply.first() == Some(&AF_INET6) && u32_at(reply, 4) == Some(index) {
                let payload = reply.get(8..).unwrap_or(&[]);
                found.extend(attributes(payload).filter(|(kind, _)| *kind == attribute).filter_map(|(_, value)| {
                    let octets: [u8; 16] = value.try_into().ok()?;
                    Some(Ipv6Addr::from(octets)).filter(|address| !address.is_unicast_link_local())
                }));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The index of an interface: SIOCGIFINDEX works on a socket of any family and looks in the socket's namespace
    /// (netdevice(7)).
    fn index_of(&self, name: &str) -> Result<u32, Failure> {
        rustix::net::netdevice::name_to_index(self.socket.descriptor(), name)
            .map_err(|errno| Failure::Refused(errno.into()))
    }

    /// Makes a veth pair: `name` in this socket's namespace, `peer` in `peer_ns`. Both ends start down.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with EEXIST when a name is taken, EOPNOTSUPP when the kernel has no veth, EPERM without
    /// `CAP_NET_ADMIN` over either namespace.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_ns: &NetNs) -> Result<(), LinkError> {
        const OPERATION: &str = "adding veth";
        let (name_attribute, peer_attribute) = (name_bytes(OPERATION, name)?, name_bytes(OPERATION, peer)?);
        let peer_descriptor = peer_ns.as_fd().as_raw_fd();
        let mut message = Message::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE);
        message.push(&interface_header(0, 0, 0));
        message.attribute(IFLA_IFNAME, &name_attribute);
        message.nested(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |other| {
                    other.push(&interface_header(0, 0, 0));
                    other.attribute(IFLA_IFNAME, &peer_attribute);
                    other.attribute(IFLA_NET_NS_FD, &peer_descriptor.to_ne_bytes());
                });
            });
        });
        self.request(OPERATION, name, message)
    }

    /// Adds an address with its prefix length in bits; [`Links::wait_running`] tells when it can be reached. IPv6
    /// addresses skip duplicate address detection (`IFA_F_NODAD`), or they could not be used for a second.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with ENODEV when there is no such interface, EEXIST when it has the address, EINVAL for a
    /// prefix that is too long.
    pub fn add_address(&mut self, name: &str, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        const OPERATION: &str = "adding an address to";
        name_bytes(OPERATION, name)?;
        let index = self.index_of(name).map_err(|failure| LinkError::new(OPERATION, name, failure))?;
        let mut message = Message::new(RTM_NEWADDR, ACK | CREATE | EXCLUSIVE);
        match address {
            IpAddr::V4(v4) => {
                message.push(&address_header(AF_INET, prefix, 0, index));
                message.attribute(IFA_LOCAL, &v4.octets());
                message.attribute(IFA_ADDRESS, &v4.octets());
            }
            IpAddr::V6(v6) => {
                message.push(&address_header(AF_INET6, prefix, IFA_F_NODAD, index));
                message.attribute(IFA_ADDRESS, &v6.octets());
            }
        }
        self.request(OPERATION, name, message)
    }

    fn request(&mut self, operation: &'static str, link: &str, message: Message) -> Result<(), LinkError> {
        self.socket.request(message).map_err(|failure| LinkError::new(operation, link, failure))
    }
}

/// `struct ifinfomsg`; index 0 for an interface named by attribute.
fn interface_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg` with scope universe.
fn address_header(family: u8, prefix: u8, flags: u8, index: u32) -> [u8; 8] {
    let mut header = [family, prefix, flags, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// The group in which neighbours look for an address: `ff02::1:ff00:0/104` and its last 24 bits (RFC 4291, 2.7.1).
fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The name with its final NUL, after the checks of `dev_valid_name` (net/core/dev.c).
fn name_bytes(operation: &'static str, name: &str) -> Result<Vec<u8>, LinkError> {
    let bad_character = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() >= NAME_SIZE || name == "." || name == ".." || name.bytes().any(bad_character) {
        return Err(LinkError::Name { operation, link: name.to_owned() });
    }
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernels_rule() {
        assert_eq!(name_bytes("x", "veth0").unwrap(), b"veth0\0");
        assert!(name_bytes("x", "fifteen-letters").is_ok());
        for name in ["", ".", "..", "sixteen-letters-", "a/b", "a:b", "a b", "a\0"] {
            assert!(matches!(name_bytes("x", name), Err(LinkError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn headers_have_the_kernels_layout() {
        assert_eq!(address_header(AF_INET6, 64, IFA_F_NODAD, 7)[..4], [10, 64, 2, 0]);
        assert_eq!(address_header(AF_INET, 15, 0, 7)[4..], 7u32.to_ne_bytes());
        assert_eq!(interface_header(0, IFF_UP, IFF_UP)[8..], [1u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat());
    }

    #[test]
    fn the_group_ends_like_the_address() {
        let address: Ipv6Addr = "fd00::1:2233:4455".parse().unwrap();
        assert_eq!(solicited_node_group(address), "ff02::1:ff33:4455".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn an_interface_that_does_not_exist_is_reported() {
        let mut links = Links::open().unwrap();
        let error = links.add_address("no-such-link", IpAddr::from([198, 18, 0, 1]), 15).unwrap_err();
        assert!(matches!(error, LinkError::Refused { ref source, .. } if source.raw_os_error() == Some(libc::ENODEV)));
    }
}
