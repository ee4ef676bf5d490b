//! Where attempts come from: a local address and a range of ports for each, before it connects.
//!
//! The port itself is left to connect(2) (`IP_BIND_ADDRESS_NO_PORT`), which may use one port towards several targets, and
//! knows which are free. With a range of its own (`IP_LOCAL_PORT_RANGE`, Linux 6.3) a socket's search takes every port in
//! turn; without one it takes those of the range's lower parity first, and once half of the range is in use each search
//! walks through that half for nothing (`net/ipv4/inet_hashtables.c`, `__inet_hash_connect`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use kernel::sockopt;
use rustix::io::Errno;

use crate::attempt::{self, NotIssued};
use crate::opts::PortRange;
use crate::plan::Plan;

/// The sources of one worker: every `step`th address, round and round.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    addresses: Arc<[IpAddr]>,
    ports: Option<PortRange>,
    next: usize,
    step: usize,
}

impl Sources {
    /// Those of part `part` of `parts`: together the parts take the addresses evenly.
    pub(crate) fn new(plan: &Plan, part: usize, parts: usize) -> Self {
        Self { addresses: Arc::clone(&plan.sources), ports: plan.port_range, next: part, step: parts }
    }

    /// Gives a new socket its source.
    pub(crate) fn prepare(&mut self, socket: BorrowedFd<'_>) -> Result<(), NotIssued> {
        let fail = |error: io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            NotIssued { verdict: attempt::verdict_of(errno), errno, called: false }
        };
        if let Some(PortRange { low, high }) = self.ports {
            sockopt::set_local_port_range(socket, low, high).map_err(fail)?;
        }
        if self.addresses.is_empty() {
            return Ok(());
        }
        let address = self.addresses[self.next % self.addresses.len()];
        self.next = (self.next + self.step) % self.addresses.len();
        bind(socket, address).map_err(fail)
    }
}

/// Binds a socket to an address and no port.
fn bind(socket: BorrowedFd<'_>, address: IpAddr) -> io::Result<()> {
    sockopt::set_bind_address_no_port(socket, true)?;
    Ok(rustix::net::bind(socket, &SocketAddr::new(address, 0))?)
}

/// Looks whether sockets can have these sources here. The error names the address.
pub(crate) fn check(sources: &[IpAddr], ports: Option<PortRange>) -> Result<(), String> {
    let mut checked = Sources { addresses: Arc::from([]), ports, next: 0, step: 1 };
    for address in sources.iter().copied().chain(sources.is_empty().then_some(IpAddr::from([127, 0, 0, 1]))) {
        let socket = attempt::open(SocketAddr::new(address, 1)).map_err(|failed| failed.errno.to_string())?;
        if checked.prepare(socket.as_fd()).is_err() {
            return Err(
                "source-ports needs IP_LOCAL_PORT_RANGE, Linux 6.3; narrow net.ipv4.ip_local_port_range instead"
                    .to_owned(),
            );
        }
        if !sources.is_empty() {
            bind(socket.as_fd(), address).map_err(|error| {
                format!("sources: {address} cannot be used: {error}; give the addresses to an interface of this network namespace")
            })?;
        }
    }
    Ok(())
}
