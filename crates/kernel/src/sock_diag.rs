//! All TCP sockets of a network namespace, by `NETLINK_SOCK_DIAG`.
//!
//! Owns listener depth, limit and drops as the kernel sees them, and counts of sockets by state. It refuses to
//! attribute half-open requests to one of several `SO_REUSEPORT` listeners: the kernel does not say. Source:
//! `sock_diag(7)`, `include/uapi/linux/inet_diag.h`, `net/ipv4/inet_diag.c` (`inet_diag_dump_icsk`).
//!
//! A dump of listeners costs about 40 µs. Any other dump walks the table of established sockets, which all namespaces
//! share: 0.3 ms with 262144 buckets, however few match. A dump is not one instant: sockets that move meanwhile may be
//! missed or seen twice. Every count here is exact when the namespace is quiet.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netlink::{DUMP, Failure, Message, Socket, attributes, u32_at};
use crate::sockopt::TcpState;

mod exact;

/// The older of the two requests: it alone dumps IPv4 and IPv6 in one walk of the tables (`inet_diag_dump_compat`,
/// family unspecified), which halves the cost of a dump.
const TCPDIAG_GETSOCK: u16 = 18;
const AF_INET: u8 = 2;
const AF_UNSPEC: u8 = 0;
/// `INET_DIAG_SKMEMINFO`, and its bit in `idiag_ext`.
const SKMEMINFO: u16 = 7;
const WITH_SKMEMINFO: u8 = 1 << (SKMEMINFO - 1);
/// Byte offset of `SK_MEMINFO_DROPS` in that attribute.
const DROPS_OFFSET: usize = 8 * 4;
/// `INET_DIAG_SKV6ONLY`, which every listener of IPv6 has.
const SKV6ONLY: u16 = 11;
/// Offset of `idiag_if`, in a request as in a reply.
const INTERFACE: usize = 40;
/// `sizeof(struct inet_diag_msg)`.
const DIAG_MESSAGE: usize = 72;

/// A listening TCP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerEntry {
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections in the accept queue now (`idiag_rqueue`).
    pub depth: u32,
    /// Queue limit = min(backlog, somaxconn) as of listen(2) (`idiag_wqueue`); limit + 1 connections fit.
    pub limit: u32,
    /// Segments it dropped since it was made (`sk_drops`), wrapping at 2^32. `None` when the kernel does not tell.
    pub drops: Option<u32>,
    /// Index of the network device that it is bound to (`SO_BINDTODEVICE`, a link-local address); 0 for none.
    pub interface: u32,
    /// Is it a listener of IPv6 that takes no IPv4 (`IPV6_V6ONLY`)?
    pub v6only: bool,
    /// Inode of the socket, as fstat(2) on its descriptor gives.
    pub inode: u32,
    /// User that made it, as seen from the reader's user namespace.
    pub uid: u32,
}

/// The sockets could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The kernel refused the dump.
    #[error("listing {what}: {source} (hint: ENOENT means the kernel has no tcp_diag: modprobe tcp_diag)")]
    Refused {
        /// What was listed.
        what: &'static str,
        /// The errno in the reply.
        source: io::Error,
    },
    /// The netlink socket failed.
    #[error("listing {what}: netlink socket: {source}")]
    Io {
        /// What was listed.
        what: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// The kernel's reply makes no sense.
    #[error("listing {what}: malformed reply: {detail}")]
    Malformed {
        /// What was listed.
        what: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
}

/// Which sockets a dump returns. Port 0 means any.
#[derive(Debug, Clone, Copy, Default)]
struct Filter {
    states: u32,
    local_port: u16,
    peer_port: u16,
    extensions: u8,
}

/// Set of states for a dump: bit n is state n.
fn mask(states: &[TcpState]) -> u32 {
    states.iter().fold(0, |mask, state| mask | 1 << state.number())
}

/// `struct inet_diag_req`. The kernel itself compares the ports of a dump with `id` and skips 0.
fn request(filter: Filter) -> [u8; 60] {
    let mut bytes = [0; 60];
    bytes[..4].copy_from_slice(&[AF_UNSPEC, 0, 0, filter.extensions]);
    bytes[4..6].copy_from_slice(&filter.local_port.to_be_bytes());
    bytes[6..8].copy_from_slice(&filter.peer_port.to_be_bytes());
    // INET_DIAG_NOCOOKIE.
    bytes[44..52].fill(0xff);
    bytes[52..56].copy_from_slice(&filter.states.to_ne_bytes());
    bytes
}

/// A `NETLINK_SOCK_DIAG` socket: the TCP sockets of the namespace in which it was opened.
#[derive(Debug)]
pub struct SockDiag {
    socket: Socket,
}

impl SockDiag {
    /// Opens the socket in the calling thread's namespace. Needs no privilege.
    ///
    /// # Errors
    /// Those of socket(2): EPROTONOSUPPORT without `CONFIG_INET_DIAG`.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(Some(rustix::net::netlink::SOCK_DIAG))? })
    }

    /// Every listener, IPv4 and IPv6.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn listeners(&mut self) -> Result<Vec<ListenerEntry>, DiagError> {
        let mut found = Vec::new();
        self.listeners_into(&mut found)?;
        Ok(found)
    }

    /// [`listeners`](Self::listeners) into a list that is kept: whoever looks many times a second allocates nothing. What
    /// it held is gone; after an error it holds what was read until then.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn listeners_into(&mut self, found: &mut Vec<ListenerEntry>) -> Result<(), DiagError> {
        const WHAT: &str = "listeners";
        found.clear();
        let filter = Filter { states: mask(&[TcpState::Listen]), extensions: WITH_SKMEMINFO, ..Filter::default() };
        self.dump(WHAT, filter, |message| {
            found.push(listener(message).ok_or(Failure::Malformed("a listener's entry is too short"))?);
            Ok(())
        })
    }

    /// Half-open connections (request sockets) to a local port, IPv4 and IPv6: the depth of the SYN queues of all
    /// listeners there. Includes those whose listener was closed, which live until their next timer. A connection whose
    /// state was sent off in a SYN cookie is nowhere and not counted.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn syn_recv(&mut self, port: u16) -> Result<u32, DiagError> {
        let states = mask(&[TcpState::SynRecv, TcpState::NewSynRecv]);
        self.count("half-open connections", Filter { states, local_port: port, ..Filter::default() })
    }

    /// [`syn_recv`](Self::syn_recv) of several ports together, in one walk through the table.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn syn_recv_of(&mut self, ports: &[u16]) -> Result<u64, DiagError> {
        if let [port] = ports {
            return self.syn_recv(*port).map(u64::from);
        }
        let states = mask(&[TcpState::SynRecv, TcpState::NewSynRecv]);
        let mut count = 0;
        self.dump("half-open connections", Filter { states, ..Filter::default() }, |message| {
            count += u64::from(local_port(message).is_some_and(|port| ports.contains(&port)));
            Ok(())
        })?;
        Ok(count)
    }

    /// Client sockets still closing towards a peer port: `FIN_WAIT1`, CLOSING or `LAST_ACK`, IPv4 and IPv6.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn client_closing(&mut self, peer_port: u16) -> Result<u32, DiagError> {
        let states = mask(&[TcpState::FinWait1, TcpState::Closing, TcpState::LastAck]);
        self.count("closing connections", Filter { states, peer_port, ..Filter::default() })
    }

    /// Client sockets in `TIME_WAIT` towards a peer port, IPv4 and IPv6: their ports may not be used towards it.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn time_waits_towards(&mut self, peer_port: u16) -> Result<u32, DiagError> {
        let states = mask(&[TcpState::TimeWait]);
        self.count("connections in TIME_WAIT", Filter { states, peer_port, ..Filter::default() })
    }

    /// Sockets of this namespace by state, with every state present. Half-open requests count as `syn_recv`; sockets
    /// waiting in an accept queue have the state of their connection.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn states(&mut self) -> Result<BTreeMap<&'static str, u64>, DiagError> {
        Ok(self.states_and_syn_recv(&[])?.0)
    }

    /// [`states`](Self::states) and [`syn_recv_of`](Self::syn_recv_of) in one walk through the table.
    ///
    /// # Errors
    /// [`DiagError`] when the dump fails.
    pub fn states_and_syn_recv(&mut self, ports: &[u16]) -> Result<(BTreeMap<&'static str, u64>, u64), DiagError> {
        let mut counts: BTreeMap<_, _> = TcpState::ALL
            .iter()
            .filter(|state| **state != TcpState::NewSynRecv)
            .map(|state| (state.name(), 0))
            .collect();
        let mut syn_recv = 0;
        let filter = Filter { states: mask(TcpState::ALL), ..Filter::default() };
        self.dump("sockets by state", filter, |message| {
            let number = *message.get(1).ok_or(Failure::Malformed("an entry has no state"))?;
            let state = match TcpState::from_number(number) {
                TcpState::NewSynRecv => TcpState::SynRecv,
                state => state,
            };
            *counts.entry(state.name()).or_default() += 1;
            if state == TcpState::SynRecv && local_port(message).is_some_and(|port| ports.contains(&port)) {
                syn_recv += 1;
            }
            Ok(())
        })?;
        Ok((counts, syn_recv))
    }

    fn count(&mut self, what: &'static str, filter: Filter) -> Result<u32, DiagError> {
        let mut count = 0u32;
        self.dump(what, filter, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Hands each `struct inet_diag_msg` with its attributes to `each`.
    fn dump(
        &mut self,
        what: &'static str,
        filter: Filter,
        each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), DiagError> {
        let mut message = Message::new(TCPDIAG_GETSOCK, DUMP);
        message.push(&request(filter));
        self.socket.exchange(message, each).map_err(|failure| DiagError::new(what, failure))
    }
}

impl DiagError {
    fn new(what: &'static str, failure: Failure) -> Self {
        match failure {
            Failure::Refused(source) => Self::Refused { what, source },
            Failure::Io(source) => Self::Io { what, source },
            Failure::Malformed(detail) => Self::Malformed { what, detail },
        }
    }
}

/// The local port in a `struct inet_diag_msg`.
fn local_port(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(4..6)?.try_into().ok()?))
}

/// Reads `struct inet_diag_msg`. Addresses and ports are in network byte order, the rest in the host's.
fn listener(message: &[u8]) -> Option<ListenerEntry> {
    let port = local_port(message)?;
    let source: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let address = match message.first()? {
        &AF_INET => IpAddr::V4(Ipv4Addr::new(source[0], source[1], source[2], source[3])),
        _ => IpAddr::V6(Ipv6Addr::from(source)),
    };
    let (mut drops, mut v6only) = (None, false);
    for (kind, value) in attributes(message.get(DIAG_MESSAGE..)?) {
        match kind {
            SKMEMINFO => drops = u32_at(value, DROPS_OFFSET),
            SKV6ONLY => v6only = value.first().is_some_and(|set| *set != 0),
            _ => {}
        }
    }
    Some(ListenerEntry {
        local: SocketAddr::new(address, port),
        depth: u32_at(message, 56)?,
        limit: u32_at(message, 60)?,
        drops,
        interface: u32_at(message, INTERFACE)?,
        v6only,
        uid: u32_at(message, 64)?,
        inode: u32_at(message, 68)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    /// An `inet_diag_msg` of a listener on 198.18.0.1:9700 with 3 of 128 waiting and 7 drops.
    fn fixture() -> Vec<u8> {
        let mut bytes = vec![0u8; DIAG_MESSAGE];
        bytes[..2].copy_from_slice(&[AF_INET, 10]);
        bytes[4..6].copy_from_slice(&9700u16.to_be_bytes());
        bytes[8..12].copy_from_slice(&[198, 18, 0, 1]);
        for (offset, value) in [(56, 3u32), (60, 128), (64, 1000), (68, 4242)] {
            bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        // An attribute of another kind (INET_DIAG_SHUTDOWN) comes first: one byte and its padding.
        bytes.extend_from_slice(&[5u16.to_ne_bytes(), 8u16.to_ne_bytes(), [0, 0], [0, 0]].concat());
        bytes.extend_from_slice(&[40u16.to_ne_bytes(), SKMEMINFO.to_ne_bytes()].concat());
        bytes.extend((0..9u32).flat_map(|n| (if n == 8 { 7 } else { n }).to_ne_bytes()));
        bytes
    }

    #[test]
    fn a_listener_is_read_from_its_message() {
        let expected = ListenerEntry {
            local: "198.18.0.1:9700".parse().unwrap(),
            depth: 3,
            limit: 128,
            drops: Some(7),
            interface: 0,
            v6only: false,
            inode: 4242,
            uid: 1000,
        };
        assert_eq!(listener(&fixture()), Some(expected));
        assert_eq!(listener(&fixture()[..DIAG_MESSAGE]).unwrap().drops, None);
        assert_eq!(listener(&fixture()[..DIAG_MESSAGE - 1]), None);
    }

    #[test]
    fn the_request_asks_for_ports_in_network_order() {
        let filter = Filter {
            states: mask(&[TcpState::SynRecv, TcpState::NewSynRecv]),
            local_port: 0x25e4,
            ..Filter::default()
        };
        let bytes = request(filter);
        assert_eq!(bytes[..8], [0, 0, 0, 0, 0x25, 0xe4, 0, 0]);
        assert_eq!(bytes[52..56], (1u32 << 3 | 1 << 12).to_ne_bytes());
    }

    #[test]
    fn listeners_of_both_families_are_in_one_dump() {
        let four = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let Ok(six) = std::net::TcpListener::bind("[::1]:0") else {
            return;
        };
        let listeners = SockDiag::open().unwrap().listeners().unwrap();
        for address in [four.local_addr().unwrap(), six.local_addr().unwrap()] {
            let found = listeners.iter().filter(|entry| entry.local == address);
            assert_eq!(found.count(), 1, "{address}");
        }
    }

    #[test]
    fn our_own_listener_is_found_with_its_inode() {
        let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ours.local_addr().unwrap();
        let listeners = SockDiag::open().unwrap().listeners().unwrap();
        let found = listeners.iter().find(|entry| entry.local == address).unwrap();
        assert_eq!(u64::from(found.inode), rustix::fs::fstat(ours.as_fd()).unwrap().st_ino);
        assert_eq!((found.depth, found.drops), (0, Some(0)));
        assert_eq!(found.uid, rustix::process::getuid().as_raw());
    }

    #[test]
    fn every_state_is_counted_even_when_it_is_zero() {
        let _ours = std::net::TcpListener::bind("[::]:0").unwrap();
        let states = SockDiag::open().unwrap().states().unwrap();
        assert_eq!(states.len(), 11);
        assert!(states["listen"] >= 1, "{states:?}");
        assert!(states.contains_key("fin_wait1"));
    }

    proptest! {
        #[test]
        fn reading_a_message_never_panics(bytes: Vec<u8>) {
            let _ = listener(&bytes);
        }
    }
}
