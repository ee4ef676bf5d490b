//! Sockets in the namespace of the calling thread.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// May others have the same address?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    No,
    Reuseport,
}

fn socket(address: SocketAddr) -> OwnedFd {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None).expect("a socket")
}

/// A listener with this backlog. IPv6 only, where it is IPv6.
pub(crate) fn listen(address: &str, backlog: i32, shared: Shared) -> OwnedFd {
    let address: SocketAddr = address.parse().expect("an address");
    let socket = socket(address);
    sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR");
    sockopt::set_socket_reuseport(&socket, shared == Shared::Reuseport).expect("SO_REUSEPORT");
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).expect("IPV6_V6ONLY");
    }
    rustix::net::bind(&socket, &address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    rustix::net::listen(&socket, backlog).expect("listen");
    socket
}

/// A connection begun. On a loopback it is there at once, or was dropped.
pub(crate) fn connect(address: &str) -> OwnedFd {
    let address: SocketAddr = address.parse().expect("an address");
    let socket = socket(address);
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => socket,
        Err(error) => panic!("connect to {address}: {error}"),
    }
}
