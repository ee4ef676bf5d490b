//! Sockets of the bench's own processes: listeners one per CPU, and the CPUs themselves. Nothing of the server's or the
//! load generator's code, which is what they are compared with.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::Context;
use kernel::process::{allowed_cpus, pin_to_cpu};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt};

/// The backlog of every listener; a scene's somaxconn allows it.
const BACKLOG: i32 = 65_535;

/// The CPU of worker `number`: one each, round and round.
pub(crate) fn cpu(number: usize) -> anyhow::Result<usize> {
    let cpus = allowed_cpus()?;
    cpus.get(number % cpus.len().max(1)).copied().context("no CPU to run on")
}

/// Moves the calling thread to the CPU of worker `number`, and returns it.
pub(crate) fn pin(number: usize) -> anyhow::Result<usize> {
    let cpu = cpu(number)?;
    pin_to_cpu(cpu).with_context(|| format!("pin to CPU {cpu}"))?;
    Ok(cpu)
}

/// Who gets the connections when several listen at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Nobody else listens.
    Alone,
    /// The listener of the CPU that handles the SYN (`SO_REUSEPORT`, `SO_INCOMING_CPU`).
    Cpu(usize),
}

/// A listener that does not block.
pub(crate) fn listener(address: SocketAddr, share: Share) -> anyhow::Result<OwnedFd> {
    let socket = fresh()?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let Share::Cpu(cpu) = share {
        sockopt::set_socket_reuseport(&socket, true)?;
        sockopt::set_socket_incoming_cpu(&socket, u32::try_from(cpu)?)?;
    }
    bind(&socket, &address).with_context(|| format!("bind {address}"))?;
    listen(&socket, BACKLOG).with_context(|| format!("listen at {address}"))?;
    Ok(socket)
}

/// A TCP socket that does not block.
pub(crate) fn fresh() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

/// The next connection, if one waits. One that died in the queue is passed over.
pub(crate) fn accept(listener: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    loop {
        match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(connection) => return Ok(Some(connection)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
