//! Listening sockets: made, read back, and closed so that nothing is lost from the books.
//!
//! The queue limit is what the kernel says after listen(2) (`tcpi_sacked` of the listener,
//! net/ipv4/tcp.c `tcp_get_info`), never min(backlog, somaxconn) as computed here.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kernel::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::children;
use crate::connection::Manners;
use crate::opts::{Engine, Handler, Opts, Reuseport};
use crate::snapshot::ListenerOptions;

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// Where it listens, the port resolved.
    pub(crate) address: SocketAddr,
    /// The argument given to listen(2).
    pub(crate) backlog: u32,
}

/// Why no listener could be made.
#[derive(Debug, Error)]
#[error("cannot {operation} {address}: {source}{hint}")]
pub struct ListenError {
    /// The system call that failed.
    pub operation: &'static str,
    /// The address asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
    /// What to do, with leading punctuation, or nothing.
    pub hint: &'static str,
}

/// Depth and limit of an accept queue at one instant, in connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) depth: u32,
    pub(crate) limit: u32,
}

impl Depth {
    /// The kernel refuses when depth > limit (`sk_acceptq_is_full`), so the queue holds limit + 1.
    pub(crate) fn is_full(self) -> bool {
        self.depth > self.limit
    }
}

impl Listener {
    /// socket, the options asked for, bind, listen. `cpu` is the listener's `SO_INCOMING_CPU`.
    pub(crate) fn open(address: SocketAddr, opts: &Opts, cpu: Option<usize>) -> Result<Self, ListenError> {
        let fail = |operation| move |source| ListenError::new(operation, address, source);
        let kind = Type::STREAM.nonblocking();
        let socket =
            Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)).map_err(fail("open a socket for"))?;
        socket.set_reuse_address(opts.reuseaddr).map_err(fail("set SO_REUSEADDR for"))?;
        if address.is_ipv6() {
            socket.set_only_v6(opts.v6only).map_err(fail("set IPV6_V6ONLY for"))?;
        }
        if opts.reuseport != Reuseport::Off {
            socket.set_reuse_port(true).map_err(fail("set SO_REUSEPORT for"))?;
        }
        socket.bind(&address.into()).map_err(fail("listen on"))?;
        Self::listen(socket, address, opts, cpu)
    }

    /// A listener that another process opened for the same options, and hands over.
    pub(crate) fn inherit(
        socket: OwnedFd,
        address: SocketAddr,
        opts: &Opts,
        cpu: Option<usize>,
    ) -> Result<Self, ListenError> {
        let socket = Socket::from(socket);
        let fail = |source| ListenError::new("inherit", address, source);
        let is = socket.local_addr().map_err(fail)?.as_socket();
        if is.is_none_or(|is| is.ip() != address.ip() || (address.port() != 0 && is.port() != address.port())) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the socket handed over listens elsewhere");
            return Err(fail(source));
        }
        Self::listen(socket, address, opts, cpu)
    }

    fn listen(socket: Socket, address: SocketAddr, opts: &Opts, cpu: Option<usize>) -> Result<Self, ListenError> {
        let fail = |operation| move |source| ListenError::new(operation, address, source);
        let defer = u16::try_from(opts.defer_accept.as_ns() / 1_000_000_000).unwrap_or(u16::MAX);
        sockopt::set_defer_accept(&socket, defer).map_err(fail("set TCP_DEFER_ACCEPT for"))?;
        if let Some(cpu) = cpu {
            socket.set_cpu_affinity(cpu).map_err(fail("set SO_INCOMING_CPU for"))?;
        }
        if Manners::from(opts).client_speaks_first() {
            // Accepted sockets inherit it; see the accept-queue wait in `Connection`.
            sockopt::set_receive_timestamps(&socket, true).map_err(fail("set SO_TIMESTAMPNS for"))?;
        }
        socket.listen(argument(opts.backlog)).map_err(fail("listen on"))?;
        if opts.fastopen > 0 {
            sockopt::set_fastopen(&socket, opts.fastopen).map_err(fail("set TCP_FASTOPEN for"))?;
        }
        let blocking = opts.engine == Engine::Blocking;
        // A blocking accept4(2) that lasts for ever would never see its children end. Also undoes what a server before set.
        let limit = (blocking && opts.handler == Handler::Fork).then_some(children::LOOK);
        socket.set_read_timeout(limit).map_err(fail("set SO_RCVTIMEO for"))?;
        socket.set_nonblocking(!blocking).map_err(fail("set the blocking mode of"))?;
        let address = socket.local_addr().map_err(fail("read back the address of"))?.as_socket().unwrap_or(address);
        Ok(Self { socket, address, backlog: opts.backlog })
    }

    /// The same socket from its descriptor, in another process.
    pub(crate) fn from_fd(socket: OwnedFd, backlog: u32) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a listener without address"))?;
        Ok(Self { socket, address, backlog })
    }

    /// The options as the kernel has them.
    pub(crate) fn options(&self) -> ListenerOptions {
        ListenerOptions {
            reuseaddr: self.socket.reuse_address().unwrap_or_default(),
            reuseport: self.socket.reuse_port().unwrap_or_default(),
            v6only: self.address.is_ipv6() && self.socket.only_v6().unwrap_or_default(),
            defer_accept_seconds: sockopt::defer_accept(&self.socket).unwrap_or_default(),
            fastopen: sockopt::fastopen(&self.socket).unwrap_or_default(),
            incoming_cpu: self.socket.cpu_affinity().ok().and_then(|cpu| u32::try_from(cpu).ok()),
        }
    }

    /// Has the kernel choose among this listener's `SO_REUSEPORT` group by CPU mod `listeners`.
    pub(crate) fn steer_by_cpu(&self, listeners: u32) -> Result<(), ListenError> {
        sockopt::steer_by_cpu(&self.socket, listeners)
            .map_err(|source| ListenError::new("attach the BPF program that steers by CPU to", self.address, source))
    }

    /// listen(2) once more with the same backlog: the queue limit becomes min(backlog, somaxconn) of now.
    pub(crate) fn listen_again(&self) -> io::Result<()> {
        self.socket.listen(argument(self.backlog))
    }

    /// Reads depth and limit (one getsockopt, 0.2 µs).
    pub(crate) fn depth(&self) -> io::Result<Depth> {
        let info = sockopt::tcp_info(&self.socket)?;
        Ok(Depth { depth: info.unacked, limit: info.sacked })
    }

    /// Packets this listener dropped (`sk_drops`, a u32 that wraps).
    pub(crate) fn drops(&self) -> io::Result<u32> {
        sockopt::socket_drops(&self.socket)
    }

    /// Shuts the door and counts who is still inside: after this call no connection enters the queue, so the
    /// depth returned is what a following close destroys. Without the right to attach a filter (an ordinary
    /// user outside the lab) the door stays open and the count may be short by what arrives meanwhile.
    pub(crate) fn seal(&self) -> io::Result<u32> {
        if sockopt::drop_all_filter(&self.socket).is_ok() {
            // A segment that passed the filter just before it was attached finishes in softirq context.
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(self.depth()?.depth)
    }
}

impl ListenError {
    fn new(operation: &'static str, address: SocketAddr, source: io::Error) -> Self {
        let hint = match source.raw_os_error() {
            Some(libc_errno::EADDRINUSE) => {
                "; another program listens there: end it or choose another port with --listen"
            }
            Some(libc_errno::EACCES) if address.port() < 1024 => {
                "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a port of 1024 or more with --listen"
            }
            Some(libc_errno::EADDRNOTAVAIL) => "; no interface of this network namespace has that address",
            _ => "",
        };
        Self { operation, address, source, hint }
    }
}

/// The backlog as listen(2) takes it.
fn argument(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The errno values that deserve advice of their own.
mod libc_errno {
    pub(super) const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();
    pub(super) const EADDRINUSE: i32 = rustix::io::Errno::ADDRINUSE.raw_os_error();
    pub(super) const EADDRNOTAVAIL: i32 = rustix::io::Errno::ADDRNOTAVAIL.raw_os_error();
}
