//! The client with epoll(7): socket, connect, wait if need be, linger, close.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{connect, sockopt};

use super::Worker;
use crate::sockets::fresh;

/// How long to wait before looking whether time is up.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Connects and resets until told to stop.
pub(super) fn run(worker: &Worker) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
    let mut slots: Vec<Option<OwnedFd>> = (0..worker.in_flight).map(|_| None).collect();
    let mut free: Vec<usize> = (0..worker.in_flight).collect();
    let mut ready = Vec::with_capacity(worker.in_flight.max(1));
    while !worker.is_stopped() {
        // No more than there are slots each time: connections that are done at once must not keep the others waiting.
        for _ in 0..free.len() {
            let Some(slot) = free.pop() else { break };
            match begin(worker, &epoll, slot)? {
                Some(waiting) => slots[slot] = Some(waiting),
                None => free.push(slot),
            }
        }
        if free.len() == slots.len() {
            continue;
        }
        ready.clear();
        epoll::wait(&epoll, spare_capacity(&mut ready), Some(&LOOK)).or_else(|errno| match errno {
            Errno::INTR => Ok(0),
            errno => Err(errno),
        })?;
        for event in &ready {
            let slot = usize::try_from(event.data.u64())?;
            if let Some(socket) = slots[slot].take() {
                match sockopt::socket_error(&socket)? {
                    Ok(()) => reset(worker, socket)?,
                    Err(_) => worker.failed.add(1),
                }
                free.push(slot);
            }
        }
    }
    Ok(())
}

/// Connects; the socket if it is still on its way. On loopback the handshake is over when connect(2) returns, only
/// connect(2) does not say so. Asking it once more saves a wait and half of its system calls.
fn begin(worker: &Worker, epoll: &OwnedFd, slot: usize) -> anyhow::Result<Option<OwnedFd>> {
    let socket = fresh().context("make a socket")?;
    let asked = match connect(&socket, &worker.target) {
        Err(Errno::INPROGRESS) => connect(&socket, &worker.target),
        asked => asked,
    };
    match asked {
        Ok(()) | Err(Errno::ISCONN) => reset(worker, socket)?,
        Err(Errno::ALREADY) => {
            epoll::add(epoll, &socket, EventData::new_u64(slot as u64), EventFlags::OUT)?;
            return Ok(Some(socket));
        }
        Err(_) => worker.failed.add(1),
    }
    Ok(None)
}

/// A connection is made: it ends with a RST.
fn reset(worker: &Worker, socket: OwnedFd) -> anyhow::Result<()> {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).context("set SO_LINGER")?;
    drop(socket);
    worker.connected.add(1);
    Ok(())
}
