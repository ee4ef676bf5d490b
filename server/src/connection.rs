//! What happens to one accepted connection: a small machine that engines drive. It never blocks; it says what it waits
//! for, and whoever owns it calls [`Connection::advance`] when that has come.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kernel::process::{monotonic_ns, realtime_ns};
use kernel::sockopt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt::set_socket_linger};

use crate::opts::{Close, OnAccept, Opts};
use crate::tally::{Desk, Tally};

/// The byte a greeting and a reply are made of.
pub const ANSWER: &[u8] = b"a";

/// Bytes echoed at a time.
const ECHO: usize = 4096;

/// How often a blocking handler looks whether it must end, once the server stops.
const LOOK: Duration = Duration::from_millis(10);

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed or reset it first.
    Peer,
    /// The server closed it first, with a FIN.
    Server,
    /// The server closed it with a RST on purpose.
    Reset,
    /// Sending to it failed.
    Error,
    /// Its acceptor was killed.
    Killed,
}

impl End {
    /// Every end, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] = [Self::Peer, Self::Server, Self::Reset, Self::Error, Self::Killed];
}

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    on_accept: OnAccept,
    hold_ns: u64,
    close: Close,
}

impl From<&Opts> for Manners {
    fn from(opts: &Opts) -> Self {
        Self { on_accept: opts.on_accept, hold_ns: opts.hold.as_ns(), close: opts.close }
    }
}

impl Manners {
    /// Does the client speak first? Then its first bytes tell when it got in.
    pub(crate) fn client_speaks_first(self) -> bool {
        matches!(self.on_accept, OnAccept::Reply | OnAccept::Echo)
    }
}

/// What an open connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client's first bytes, to be answered.
    Request,
    /// Bytes to send back.
    Echo,
    /// The instant (monotonic ns) to close.
    Hold { until: u64 },
    /// The client's end.
    Linger { closed_first: bool },
}

/// An accepted connection that is not over.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    manners: Manners,
    stage: Stage,
    /// `CLOCK_REALTIME` at accept, ns; 0 once the first bytes have come, and where they tell nothing.
    accepted: u64,
    /// What an echo could not send yet.
    unsent: Vec<u8>,
}

/// What became of a connection.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is closed, for this reason, which is not counted yet.
    Over(End),
    /// It goes on.
    Open(Connection),
}

impl Fate {
    /// Counts the end, if it is one.
    pub(crate) fn count(self, tally: &Tally) -> Option<Connection> {
        match self {
            Self::Over(end) => {
                tally.close(end);
                None
            }
            Self::Open(connection) => Some(connection),
        }
    }
}

impl Connection {
    /// Deals with a connection right after it was accepted and its service time spent. `accepted` is the
    /// `CLOCK_REALTIME` of the accept in ns, used when the client speaks first. The socket must not block.
    pub(crate) fn begin(socket: OwnedFd, manners: Manners, accepted: u64, tally: &Tally) -> Fate {
        let stage = match manners.on_accept {
            OnAccept::Reset => {
                let reset = set_socket_linger(&socket, Some(Duration::ZERO)).is_ok();
                return Fate::Over(if reset { End::Reset } else { End::Error });
            }
            OnAccept::Greet => {
                if send(&socket, ANSWER, SendFlags::NOSIGNAL).is_err() {
                    return Fate::Over(End::Error);
                }
                tally.greetings.add(1);
                (manners.hold_ns > 0).then(|| Stage::Hold { until: monotonic_ns() + manners.hold_ns })
            }
            OnAccept::Close => None,
            OnAccept::Hold => Some(Stage::Hold { until: monotonic_ns() + manners.hold_ns }),
            OnAccept::Reply => Some(Stage::Request),
            OnAccept::Echo => Some(Stage::Echo),
        };
        // Without a hold time the usual case is over here, without a Connection ever being made.
        if stage.is_none() && manners.close == Close::Close {
            return Fate::Over(End::Server);
        }
        let unsent = Vec::new();
        let mut connection =
            Self { socket, manners, stage: stage.unwrap_or(Stage::Linger { closed_first: false }), accepted, unsent };
        let end = match stage {
            None => connection.finish(),
            // A client that waited in the queue has sent by now: no need to be told.
            Some(Stage::Request | Stage::Echo) => connection.advance(0, tally),
            Some(Stage::Hold { .. } | Stage::Linger { .. }) => None,
        };
        match end {
            Some(end) => Fate::Over(end),
            None => Fate::Open(connection),
        }
    }

    /// The monotonic instant (ns) at which [`advance`](Self::advance) is due whatever the socket says.
    pub(crate) fn until(&self) -> Option<u64> {
        match self.stage {
            Stage::Hold { until } => Some(until),
            _ => None,
        }
    }

    /// Does it wait for room to send? Otherwise it waits for something to read.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Goes on as far as it can at `now` (monotonic ns); `Some` when the connection is over, and then it must be dropped.
    pub(crate) fn advance(&mut self, now: u64, tally: &Tally) -> Option<End> {
        match self.stage {
            Stage::Request => self.request(tally),
            Stage::Echo => self.echo(tally),
            Stage::Hold { until } => match self.discard() {
                Some(()) => Some(End::Peer),
                None if now >= until => self.finish(),
                None => None,
            },
            Stage::Linger { closed_first } => {
                self.discard().map(|()| if closed_first { End::Server } else { End::Peer })
            }
        }
    }

    fn request(&mut self, tally: &Tally) -> Option<End> {
        let mut buffer = [0; ECHO];
        match self.receive(&mut buffer, tally)? {
            0 => Some(End::Peer),
            _ => match send(&self.socket, ANSWER, SendFlags::NOSIGNAL) {
                Ok(_) => {
                    tally.replies.add(1);
                    // The client's end may have come along with its request, and an edge is not reported twice.
                    if self.manners.close != Close::Close && self.discard().is_some() {
                        return Some(End::Peer);
                    }
                    self.finish()
                }
                Err(_) => Some(End::Error),
            },
        }
    }

    fn echo(&mut self, tally: &Tally) -> Option<End> {
        let mut buffer = [0; ECHO];
        loop {
            if self.wants_to_send() {
                match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
                    Ok(sent) => drop(self.unsent.drain(..sent)),
                    Err(Errno::AGAIN | Errno::INTR) => return None,
                    Err(_) => return Some(End::Error),
                }
                if self.wants_to_send() {
                    return None;
                }
            }
            let first = self.accepted != 0;
            let length = self.receive(&mut buffer, tally)?;
            if length == 0 {
                return Some(End::Peer);
            }
            if first {
                tally.replies.add(1);
            }
            self.unsent.extend_from_slice(&buffer[..length]);
        }
    }

    /// Takes bytes and notes the wait that the first of them tell of. `None`: nothing there yet; 0: the client is gone.
    fn receive(&mut self, buffer: &mut [u8], tally: &Tally) -> Option<usize> {
        if self.accepted == 0 {
            return match recv(&self.socket, buffer, RecvFlags::empty()) {
                Ok((length, _)) => Some(length),
                Err(Errno::AGAIN | Errno::INTR) => None,
                Err(_) => Some(0),
            };
        }
        match sockopt::recv_stamped(&self.socket, buffer) {
            Ok((length, stamp)) => {
                if let Some(stamp) = stamp.filter(|_| length > 0) {
                    // A client that sent after it was accepted says nothing about the queue.
                    if let Some(wait) = self.accepted.checked_sub(stamp.realtime_ns) {
                        tally.wait_stamped.record(wait);
                    }
                }
                self.accepted = 0;
                Some(length)
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => None,
                _ => Some(0),
            },
        }
    }

    /// Throws away what comes; `Some` when the client is gone.
    fn discard(&self) -> Option<()> {
        let mut buffer = [0; ECHO];
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Some(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(()),
            }
        }
    }

    /// The server has done its part.
    fn finish(&mut self) -> Option<End> {
        match self.manners.close {
            Close::Close => Some(End::Server),
            Close::HalfClose => match shutdown(&self.socket, Shutdown::Write) {
                Ok(()) => {
                    self.stage = Stage::Linger { closed_first: true };
                    None
                }
                // ENOTCONN: the client has reset it.
                Err(_) => Some(End::Peer),
            },
            Close::Wait => {
                self.stage = Stage::Linger { closed_first: false };
                None
            }
        }
    }

    /// Goes on to the end, waiting where it must: for an engine with one connection at a time. Returns early when the
    /// server must end at once; `stop` is readable when it must stop.
    pub(crate) fn serve_to_the_end(mut self, desk: &Desk, tally: &Tally, stop: BorrowedFd<'_>) -> End {
        loop {
            if let Some(end) = self.advance(monotonic_ns(), tally) {
                return end;
            }
            if desk.must_end() {
                return End::Server;
            }
            self.wait(desk.is_stopped(), stop);
        }
    }

    /// The same, but only until the server stops: `None` when that came before the end.
    pub(crate) fn serve_until_stopped(&mut self, desk: &Desk, tally: &Tally, stop: BorrowedFd<'_>) -> Option<End> {
        loop {
            if let Some(end) = self.advance(monotonic_ns(), tally) {
                return Some(end);
            }
            if desk.is_stopped() {
                return None;
            }
            self.wait(false, stop);
        }
    }

    /// Waits until there is something to do, or `stop` is readable. Once `stopping` it stays readable: then only the
    /// socket and the clock count.
    fn wait(&self, stopping: bool, stop: BorrowedFd<'_>) {
        let left = self.until().map(|until| Duration::from_nanos(until.saturating_sub(monotonic_ns())));
        let limit = if stopping { Some(left.map_or(LOOK, |left| left.min(LOOK))) } else { left };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let ready = if self.wants_to_send() { PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [PollFd::new(&self.socket, ready), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        let watched = if stopping { &mut fds[..1] } else { &mut fds[..] };
        // EINTR: look again.
        let _ = poll(watched, limit.as_ref());
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `CLOCK_REALTIME` for [`Connection::begin`], where it is of use.
pub(crate) fn accepted_at(manners: Manners) -> u64 {
    if manners.client_speaks_first() { realtime_ns() } else { 0 }
}
