//! One attempt: its instants and where it stands, and what its socket says when it is asked. No clock and no loop here;
//! [`crate::worker`] decides, a [`crate::reactor::Reactor`] drives the socket.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use kernel::sockopt::{self, TcpState};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, getpeername, getsockname, ipproto, socket_with, sockopt as rx,
};

use crate::verdict::Verdict;

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The SYN is out.
    Connecting,
    /// Established for the client; it waits for the first byte.
    Confirming,
    /// It has its verdict, and its connection is held open.
    Holding,
    /// Its FIN is out by shutdown(2), and the server's is waited for.
    Closing,
}

/// An attempt in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) stage: Stage,
    /// 0 warm-up, 1 measured.
    pub(crate) phase: u8,
    /// Monotonic ns.
    pub(crate) planned: u64,
    /// Monotonic ns.
    pub(crate) issued: u64,
    /// Monotonic ns at which the handshake was seen to be over; 0 before.
    pub(crate) established: u64,
}

/// An attempt that ended before it was in flight.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotIssued {
    pub(crate) errno: Errno,
    /// Was connect(2) called?
    pub(crate) called: bool,
}

/// Opens a TCP socket of the target's family, non-blocking.
pub(crate) fn open(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(ipproto::TCP))
}

/// The verdict of an error.
pub(crate) fn verdict_of(errno: Errno) -> Verdict {
    match errno {
        Errno::CONNREFUSED => Verdict::Refused,
        Errno::CONNRESET | Errno::PIPE => Verdict::Reset,
        Errno::TIMEDOUT => Verdict::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH => Verdict::Unreachable,
        Errno::ADDRNOTAVAIL => Verdict::NoPorts,
        Errno::MFILE | Errno::NFILE => Verdict::NoFds,
        _ => Verdict::Other,
    }
}

/// May this error of connect(2) mean that no SYN ever left? It does where routes and policy of this host said so; the same
/// numbers come from an ICMP answer to a SYN, and only [`sent_nothing`] tells the two apart.
pub(crate) fn may_be_local(errno: Errno) -> bool {
    !matches!(errno, Errno::CONNREFUSED | Errno::CONNRESET | Errno::TIMEDOUT | Errno::PIPE)
}

/// Has the socket never sent a segment? Ask before it is connected or closed again, which clears its counters
/// (`net/ipv4/tcp.c`, `tcp_disconnect`).
pub(crate) fn sent_nothing(socket: BorrowedFd<'_>) -> bool {
    sockopt::tcp_info(socket).is_ok_and(|info| info.segs_out == 0)
}

/// The pending error of the socket, which this call clears.
pub(crate) fn error(socket: BorrowedFd<'_>) -> Option<Errno> {
    match rx::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(errno)) | Err(errno) => Some(errno),
    }
}

/// SYNs retransmitted, as `TCP_INFO` tells right after the handshake.
pub(crate) fn syn_retransmits(socket: BorrowedFd<'_>) -> u32 {
    sockopt::tcp_info(socket).map_or(0, |info| info.total_retrans)
}

/// Has the handshake ended for the client, whatever the event loop has seen of it?
pub(crate) fn is_established(socket: BorrowedFd<'_>) -> bool {
    sockopt::tcp_info(socket).is_ok_and(|info| {
        matches!(info.state, TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 | TcpState::FinWait2)
    })
}

/// Is the socket connected to itself?
pub(crate) fn is_self_connected(socket: BorrowedFd<'_>) -> bool {
    match (getsockname(socket), getpeername(socket)) {
        (Ok(name), Ok(peer)) => Some(name) == peer,
        _ => false,
    }
}
