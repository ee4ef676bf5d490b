//! One acceptor: a value with its listener, its service clock and its counters. The engines
//! ([`crate::epoll`], [`crate::blocking`]) decide how it waits; everything that happens to a connection after
//! accept4(2) happens here, the same for every engine.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kernel::process::monotonic_ns;
use kernel::sockopt::{self, TcpState};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, accept_with, send, sockopt::set_socket_linger};
use telemetry::Stop;
use telemetry::counter::{Counter, Padded};
use telemetry::histogram::Histogram;

use crate::listener::Listener;
use crate::opts::{OnAccept, Stall};
use crate::service::{Service, sleep_until, wait_readable};
use crate::snapshot::AcceptorCounts;

/// The byte a greeting is made of.
const GREETING: &[u8] = b"a";

/// How long an acceptor leaves its listener alone when descriptors or memory have run out (accept(2):
/// EMFILE, ENFILE, ENOBUFS, ENOMEM leave the connection in the queue, so retrying at once is a busy loop).
const RESOURCE_PAUSE: Duration = Duration::from_millis(10);

/// accept4 errors told apart in the counts; the last entry takes all others.
pub(crate) const ERRNOS: [&str; 7] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPROTO", "other"];

/// Counters of one acceptor, written by its thread only.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) accepts: Counter,
    pub(crate) wakeups_work: Counter,
    pub(crate) wakeups_empty: Counter,
    pub(crate) errors: [Counter; ERRNOS.len()],
    pub(crate) dead_on_accept: Counter,
    pub(crate) late_handshakes: Counter,
    pub(crate) greetings: Counter,
    pub(crate) closed_by_server: Counter,
    pub(crate) closed_by_reset: Counter,
    pub(crate) closed_on_error: Counter,
    pub(crate) deepest: Counter,
    pub(crate) batch: Histogram,
    pub(crate) wait: Histogram,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            accepts: Counter::default(),
            wakeups_work: Counter::default(),
            wakeups_empty: Counter::default(),
            errors: Default::default(),
            dead_on_accept: Counter::default(),
            late_handshakes: Counter::default(),
            greetings: Counter::default(),
            closed_by_server: Counter::default(),
            closed_by_reset: Counter::default(),
            closed_on_error: Counter::default(),
            deepest: Counter::default(),
            batch: Histogram::new(),
            wait: Histogram::new(),
        }
    }

    /// The counts as they stand.
    pub(crate) fn read(&self) -> AcceptorCounts {
        AcceptorCounts {
            accepts: self.accepts.get(),
            wakeups_work: self.wakeups_work.get(),
            wakeups_empty: self.wakeups_empty.get(),
            errors: ERRNOS
                .iter()
                .zip(&self.errors)
                .filter(|(_, count)| count.get() > 0)
                .map(|(name, count)| ((*name).to_owned(), count.get()))
                .collect(),
            dead_on_accept: self.dead_on_accept.get(),
            late_handshakes: self.late_handshakes.get(),
            greetings: self.greetings.get(),
            closed_by_server: self.closed_by_server.get(),
            closed_by_reset: self.closed_by_reset.get(),
            closed_on_error: self.closed_on_error.get(),
        }
    }
}

/// When the run began and when nobody accepts.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// Monotonic ns; 0 until the run begins.
    origin: AtomicU64,
    stall: Option<Stall>,
}

impl Timeline {
    pub(crate) fn new(stall: Option<Stall>) -> Self {
        Self { origin: AtomicU64::new(0), stall }
    }

    pub(crate) fn begin(&self, origin_ns: u64) {
        self.origin.store(origin_ns, Ordering::Release);
    }

    /// Monotonic ns of the start, once there is one.
    pub(crate) fn origin(&self) -> Option<u64> {
        match self.origin.load(Ordering::Acquire) {
            0 => None,
            origin => Some(origin),
        }
    }

    /// The instant (ns) at which the stall that covers `now` ends; `u64::MAX` for never.
    fn stalled_until(&self, origin: u64, now: u64) -> Option<u64> {
        let stall = self.stall?;
        let from = origin + stall.at.as_ns();
        let until = stall.lasts.map_or(u64::MAX, |lasts| from + lasts.as_ns());
        (from..until).contains(&now).then_some(until)
    }
}

/// One acceptor, moved into its thread.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) listener: Arc<Listener>,
    pub(crate) stop: Stop,
    pub(crate) stop_fd: OwnedFd,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) tally: Arc<Padded<Tally>>,
    pub(crate) service: Service,
    pub(crate) on_accept: OnAccept,
}

/// What one accept4 came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// A connection was taken and dealt with.
    One,
    /// The queue is empty (or a signal came).
    Nothing,
    /// This attempt failed, the next may not.
    Retry,
}

impl Acceptor {
    /// accept4 and all that follows for one connection. `back_to_back`: the acceptor did not wait.
    pub(crate) fn accept(&mut self, back_to_back: bool) -> Accepted {
        match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => {
                self.tally.accepts.add(1);
                self.admit(&connection, back_to_back);
                Accepted::One
            }
            Err(Errno::AGAIN | Errno::INTR) => Accepted::Nothing,
            Err(errno) => {
                self.fail(errno);
                Accepted::Retry
            }
        }
    }

    fn admit(&mut self, connection: &OwnedFd, back_to_back: bool) {
        if let Ok(info) = sockopt::tcp_info(connection) {
            if info.state == TcpState::Close {
                self.tally.dead_on_accept.add(1);
            }
            if info.total_retrans > 0 {
                self.tally.late_handshakes.add(1);
            }
            // Nothing was sent yet, so this is the time since the socket entered the queue; for a late
            // handshake the clock started at the late ACK.
            let wait_ms = u64::from(info.last_data_sent_ms) + u64::from(info.total_rto_time_ms);
            self.tally.wait.record(wait_ms * 1_000_000);
        }
        self.service.spend(back_to_back, self.stop_fd.as_fd());
        match self.on_accept {
            OnAccept::Greet => match send(connection, GREETING, SendFlags::NOSIGNAL) {
                Ok(_) => {
                    self.tally.greetings.add(1);
                    self.tally.closed_by_server.add(1);
                }
                Err(_) => self.tally.closed_on_error.add(1),
            },
            OnAccept::Close => self.tally.closed_by_server.add(1),
            OnAccept::Reset => {
                if set_socket_linger(connection, Some(Duration::ZERO)).is_ok() {
                    self.tally.closed_by_reset.add(1);
                } else {
                    self.tally.closed_on_error.add(1);
                }
            }
        }
    }

    fn fail(&self, errno: Errno) {
        let (name, pause) = match errno {
            Errno::MFILE => ("EMFILE", true),
            Errno::NFILE => ("ENFILE", true),
            Errno::NOBUFS => ("ENOBUFS", true),
            Errno::NOMEM => ("ENOMEM", true),
            Errno::CONNABORTED => ("ECONNABORTED", false),
            Errno::PROTO => ("EPROTO", false),
            // accept(2): pending network errors of the new socket, to be treated like EAGAIN by retrying.
            Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM => ("other", false),
            // EINVAL after shutdown(2) on the listener, or anything unheard of: never a busy loop.
            _ => ("other", true),
        };
        if let Some(index) = ERRNOS.iter().position(|known| *known == name) {
            self.tally.errors[index].add(1);
        }
        if pause {
            wait_readable(self.stop_fd.as_fd(), RESOURCE_PAUSE);
        }
    }

    /// Notes the depth of the queue before taking from it, and returns it.
    pub(crate) fn sample(&self) -> u32 {
        let depth = self.listener.depth().map_or(0, |depth| depth.depth);
        self.tally.deepest.max(u64::from(depth));
        depth
    }

    /// Sits out a stall; returns at once when there is none.
    pub(crate) fn sit_out_stall(&self) {
        if self.timeline.stall.is_none() {
            return;
        }
        // A stall may begin at 0 s: nobody accepts before the run has a beginning.
        let origin = loop {
            match self.timeline.origin() {
                Some(origin) => break origin,
                None if wait_readable(self.stop_fd.as_fd(), Duration::from_millis(1)) => return,
                None => {}
            }
        };
        if let Some(until) = self.timeline.stalled_until(origin, monotonic_ns()) {
            sleep_until(until, self.stop_fd.as_fd());
        }
    }
}

/// Starts the thread of an acceptor.
pub(crate) fn spawn(
    name: String,
    acceptor: Acceptor,
    engine: fn(&mut Acceptor) -> io::Result<()>,
) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
    let mut acceptor = acceptor;
    std::thread::Builder::new().name(name).spawn(move || {
        kernel::process::set_timer_slack_min();
        engine(&mut acceptor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_covers_exactly_its_window() {
        let timeline = Timeline::new("1s+2s".parse().ok());
        let s = 1_000_000_000;
        assert_eq!(timeline.stalled_until(10 * s, 11 * s - 1), None);
        assert_eq!(timeline.stalled_until(10 * s, 11 * s), Some(13 * s));
        assert_eq!(timeline.stalled_until(10 * s, 13 * s - 1), Some(13 * s));
        assert_eq!(timeline.stalled_until(10 * s, 13 * s), None);
        let forever = Timeline::new("0s+forever".parse().ok());
        assert_eq!(forever.stalled_until(1, 1), Some(u64::MAX));
    }
}
