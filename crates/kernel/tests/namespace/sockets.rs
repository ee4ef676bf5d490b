//! Clients and listeners of the cases, on loopback unless told otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use kernel::sockopt::{self, TcpState};
use socket2::{Domain, Socket, Type};

pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(super) fn listener(address: SocketAddr, backlog: i32) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    socket.bind(&address.into()).expect("bind");
    socket.listen(backlog).expect("listen");
    socket
}

/// A client whose connect(2) is under way.
pub(super) fn client(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    connect(&socket, address);
    socket
}

pub(super) fn connect(socket: &Socket, address: SocketAddr) {
    socket.set_nonblocking(true).expect("nonblocking");
    if let Err(error) = socket.connect(&address.into()) {
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
    }
}

pub(super) fn state(socket: &Socket) -> TcpState {
    sockopt::tcp_info(socket).expect("TCP_INFO").state
}

/// Loopback handshakes are done in no time, but a softirq may be deferred.
pub(super) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_millis(800);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn clients(count: u32, address: SocketAddr) -> Vec<Socket> {
    (0..count).map(|_| client(address)).collect()
}

pub(super) fn in_state(sockets: &[Socket], wanted: TcpState) -> u32 {
    sockets.iter().map(|socket| u32::from(state(socket) == wanted)).sum()
}
