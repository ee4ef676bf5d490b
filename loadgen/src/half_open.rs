//! Pressure on the SYN queue: sockets that are kept half open, from before the first arrival for as long as anybody can
//! read the books.
//!
//! A filter on the client's own socket drops every SYN-ACK, so its handshake never ends: the server holds a request for it
//! (or sent a cookie, or dropped the SYN), and the socket stays in `SYN_SENT` and sends its SYN again by the kernel's
//! schedule. Each of them sets the timer of its request anew, so requests outlive `tcp_synack_retries`; the place of one that
//! the server gave up all the same is taken by the next SYN that comes. No packet is made by hand, and the source is always
//! this namespace's own address.
//!
//! It refuses to be an option of the load generator: no flag, no environment variable and no key of `[loadgen]` leads
//! here, only a trial's private control socket, and so it exists only in namespaces that are made for one trial and thrown
//! away. Kernel: `tcp_v4_rcv` (the filter is asked before the segment is looked at, a drop counts in `sk_drops`),
//! `tcp_check_req`, `tcp_write_timeout`; socket(7), `SO_ATTACH_FILTER`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernel::sockopt;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getsockname, ipproto, socket_with};
use thiserror::Error;

use crate::snapshot::{HalfOpenCounts, PhaseCounts};
use crate::verdict::Verdict;

/// SYNs sent again at most (`TCP_SYNCNT`), the most the kernel takes. By `tcp_syn_retries` a socket would give up within a
/// long trial, and its request would then end by a RST.
const SYN_RETRIES: u8 = 127;

/// Why sockets could not be kept half open.
#[derive(Debug, Error)]
#[error("cannot keep {wanted} sockets half open: {what} of number {number}: {source}{}", hint(.source))]
pub struct HalfOpenError {
    wanted: u32,
    /// From 1.
    number: u32,
    what: &'static str,
    source: io::Error,
}

/// What to do about it, with leading punctuation, or nothing.
fn hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRNOTAVAIL) => {
            "; net.ipv4.ip_local_port_range has no port left: widen it, or lower half-open.count"
        }
        Some(Errno::MFILE | Errno::NFILE) => "; raise RLIMIT_NOFILE (ulimit -n), or lower half-open.count",
        Some(Errno::PERM) => "; this kernel keeps socket filters to CAP_NET_ADMIN in the user namespace",
        _ => "",
    }
}

/// The sockets. Dropping it closes them: nothing is sent, but the server's next SYN-ACK to each draws a RST.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    sockets: Vec<OwnedFd>,
    /// Those that the kernel connected to themselves, where it may pick the target's port: what they drop is their own SYN.
    to_themselves: Vec<OwnedFd>,
    last: HalfOpenCounts,
}

impl HalfOpen {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the SYNs of `count` further sockets towards `target`.
    pub(crate) fn open(&self, count: u32, target: SocketAddr) -> Result<(), HalfOpenError> {
        let mut held = self.held();
        for number in 1..=count {
            let failed = |what| move |source: io::Error| HalfOpenError { wanted: count, number, what, source };
            let socket = socket(target).map_err(failed("the socket"))?;
            // Before the SYN: its answer comes within microseconds.
            sockopt::drop_all_filter(&socket).map_err(failed("the filter"))?;
            sockopt::set_syn_count(&socket, SYN_RETRIES).map_err(failed("TCP_SYNCNT"))?;
            match connect(&socket, &target) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(errno) => return Err(failed("connect(2)")(errno.into())),
            }
            let own = getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
            let list = if own == Some(target) { &mut held.to_themselves } else { &mut held.sockets };
            list.push(socket);
        }
        Ok(())
    }

    /// Adds one attempt for each socket to `sum`, all with their verdict.
    pub(crate) fn add_to(&self, sum: &mut PhaseCounts) {
        let kept = self.held().kept();
        sum.planned += kept;
        sum.issued += kept;
        *sum.verdicts.entry(Verdict::HalfOpen).or_default() += kept;
    }

    /// What the sockets met so far. Asking them costs 0.3 µs each.
    pub(crate) fn look(&self) -> HalfOpenCounts {
        let mut held = self.held();
        let dropped = held.sockets.iter().map(|socket| u64::from(sockopt::socket_drops(socket).unwrap_or(0)));
        let (answered, dropped) =
            dropped.fold((0, 0), |(answered, sum), drops| (answered + u64::from(drops > 0), sum + drops));
        held.last = HalfOpenCounts { kept: held.kept(), answered, dropped };
        held.last
    }

    /// The same at the last look.
    pub(crate) fn last(&self) -> HalfOpenCounts {
        let held = self.held();
        HalfOpenCounts { kept: held.kept(), ..held.last }
    }
}

impl Held {
    fn kept(&self) -> u64 {
        (self.sockets.len() + self.to_themselves.len()) as u64
    }
}

fn socket(target: SocketAddr) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(ipproto::TCP))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_socket_and_the_way_out() {
        let failed = |errno: Errno| {
            let error = HalfOpenError { wanted: 9, number: 4, what: "connect(2)", source: errno.into() };
            error.to_string()
        };
        let ports = failed(Errno::ADDRNOTAVAIL);
        assert!(ports.starts_with("cannot keep 9 sockets half open: connect(2) of number 4: "), "{ports}");
        assert!(ports.contains("lower half-open.count"), "{ports}");
        assert!(failed(Errno::MFILE).contains("RLIMIT_NOFILE"));
        assert!(failed(Errno::PERM).contains("CAP_NET_ADMIN"));
        assert!(failed(Errno::INVAL).ends_with("(os error 22)"));
    }

    #[test]
    fn nothing_held_counts_nothing() {
        let (none, mut sum) = (HalfOpen::default(), PhaseCounts::default());
        none.add_to(&mut sum);
        assert_eq!((none.look(), sum.planned, sum.concluded()), (HalfOpenCounts::default(), 0, 0));
    }
}
