//! One attempt: its socket, its four instants, and what the socket says when it is asked. No clock and no loop
//! here; [`crate::worker`] drives it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kernel::sockopt::{self, TcpState};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getpeername, getsockname, ipproto, recv,
    send, socket_with, sockopt as rx,
};

use crate::opts::Close;
use crate::verdict::Verdict;

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The SYN is out.
    Connecting,
    /// Established for the client; it waits for the first byte.
    Confirming,
}

/// An attempt in flight.
#[derive(Debug)]
pub(crate) struct Attempt {
    socket: OwnedFd,
    pub(crate) stage: Stage,
    /// Monotonic ns.
    pub(crate) planned: u64,
    /// Monotonic ns.
    pub(crate) issued: u64,
    /// Monotonic ns at which the handshake was seen to be over; 0 before.
    pub(crate) established: u64,
    /// 0 warm-up, 1 measured.
    pub(crate) phase: usize,
}

/// An attempt that ended before it was in flight.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotIssued {
    pub(crate) verdict: Verdict,
    pub(crate) errno: Errno,
    /// Was connect(2) called?
    pub(crate) called: bool,
}

/// What reading from an attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// At least one byte.
    Byte,
    /// Established, nothing yet.
    NotYet,
    /// The peer closed without a byte.
    End,
    /// The connection (or the attempt at one) failed.
    Failed(Errno),
}

/// Opens a socket. Apart from [`start`], so that the clock can be read between the two.
pub(crate) fn open(target: SocketAddr) -> Result<OwnedFd, NotIssued> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(ipproto::TCP)).map_err(
        |errno| {
            let verdict = if matches!(errno, Errno::MFILE | Errno::NFILE) { Verdict::NoFds } else { Verdict::Other };
            NotIssued { verdict, errno, called: false }
        },
    )
}

/// connect(2), non-blocking. An error here is one from before the SYN: the answer to a SYN, even on loopback,
/// is handled when connect(2) releases the socket and shows up later.
pub(crate) fn start(socket: BorrowedFd<'_>, target: SocketAddr) -> Result<(), NotIssued> {
    match connect(socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(errno) => Err(NotIssued { verdict: verdict_of(errno), errno, called: true }),
    }
}

/// The verdict of a connect(2) or read error.
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

impl Attempt {
    pub(crate) fn new(socket: OwnedFd, planned: u64, issued: u64, phase: usize) -> Self {
        Self { socket, stage: Stage::Connecting, planned, issued, established: 0, phase }
    }

    /// Tries to take the first byte.
    pub(crate) fn read(&self) -> Read {
        let mut byte = [0_u8; 16];
        match recv(&self.socket, &mut byte, RecvFlags::empty()) {
            Ok((0, _)) => Read::End,
            Ok(_) => Read::Byte,
            // ENOTCONN: the handshake is not over.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Read::NotYet,
            Err(errno) => Read::Failed(errno),
        }
    }

    /// Sends the byte that a server answers which lets the client speak first. One byte fits any send buffer.
    pub(crate) fn speak(&self) {
        let _ = send(&self.socket, b"a", SendFlags::NOSIGNAL);
    }

    /// The pending error of the socket, which this call clears.
    pub(crate) fn error(&self) -> Option<Errno> {
        match rx::socket_error(&self.socket) {
            Ok(Ok(())) => None,
            Ok(Err(errno)) | Err(errno) => Some(errno),
        }
    }

    /// SYNs retransmitted, as `TCP_INFO` tells right after the handshake.
    pub(crate) fn syn_retransmits(&self) -> u32 {
        sockopt::tcp_info(&self.socket).map_or(0, |info| info.total_retrans)
    }

    /// Has the handshake ended for the client, whatever the event loop has seen of it?
    pub(crate) fn is_established(&self) -> bool {
        sockopt::tcp_info(&self.socket).is_ok_and(|info| {
            matches!(info.state, TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 | TcpState::FinWait2)
        })
    }

    /// Is the socket connected to itself?
    pub(crate) fn is_self_connected(&self) -> bool {
        match (getsockname(&self.socket), getpeername(&self.socket)) {
            (Ok(name), Ok(peer)) => Some(name) == peer,
            _ => false,
        }
    }

    /// Closes the socket the way the plan says.
    pub(crate) fn close(self, how: Close) {
        if how == Close::Reset {
            // A failure leaves an ordinary close, which the kernel's counters show.
            let _ = rx::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
