//! One acceptor: a value with its listeners, its service clock and its desk. The engines decide how it waits; everything
//! that happens to a connection from accept4(2) on happens here and in [`crate::connection`], the same for every engine.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use kernel::process::{monotonic_ns, voluntary_switches};
use kernel::sockopt::{self, TcpState};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::children::{self, Children};
use crate::connection::{Connection, End, Fate, Manners, accepted_at};
use crate::listener::Listener;
use crate::opts::{Batch, Engine, Handler, Opts, Scheduling, Stall};
use crate::service::{Service, sleep_until, wait_readable};
use crate::tally::{DeskOf, ERRNOS, Tally};
use crate::{blocking, epoll, tokio as tokio_engines, uring};

/// How long an acceptor leaves its listener alone when descriptors or memory have run out (accept(2):
/// EMFILE, ENFILE, ENOBUFS, ENOMEM leave the connection in the queue, so retrying at once is a busy loop).
pub(crate) const RESOURCE_PAUSE: Duration = Duration::from_millis(10);

/// One acceptor, moved into its thread or process.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// At least one; none blocks, unless the engine is the blocking one.
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) desk: DeskOf,
    /// Readable for good once `desk` says stop.
    pub(crate) stop: OwnedFd,
    service: Service,
    stall: Option<Stall>,
    manners: Manners,
    /// Those who deal with connections in its place (handler fork).
    children: Option<Children>,
    batch: Batch,
    engine: Engine,
    scheduling: Scheduling,
    cpu: Option<usize>,
}

/// What one accept4 came to.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection was taken and is over.
    Closed,
    /// A connection was taken and goes on: the engine must see to it.
    Open(Connection),
    /// The queue is empty (or a signal came).
    Nothing,
    /// This attempt failed, the next may not.
    Retry,
    /// Descriptors or memory have run out: leave this listener alone for [`RESOURCE_PAUSE`].
    Exhausted,
}

/// What a batch left behind in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was empty at the end.
    Nobody,
    /// The batch was full, or it is time to stop: somebody may wait.
    Somebody,
    /// Descriptors or memory have run out, and the listener is to be left alone for [`RESOURCE_PAUSE`].
    Alone,
}

impl Acceptor {
    /// Acceptor number `index`, which is to run on `cpu`.
    pub(crate) fn new(
        opts: &Opts,
        index: usize,
        listeners: Vec<Arc<Listener>>,
        desk: DeskOf,
        stop: OwnedFd,
        cpu: Option<usize>,
    ) -> Self {
        Self {
            listeners,
            desk,
            stop,
            service: Service::new(opts.accept_delay, opts.seed.wrapping_add(index as u64)),
            stall: opts.stall,
            manners: Manners::from(opts),
            children: (opts.handler == Handler::Fork).then(|| Children::new(opts.max_children)),
            batch: opts.accept_batch,
            engine: opts.engine,
            scheduling: opts.scheduling,
            cpu,
        }
    }

    /// Accepts until told to stop, then serves what is open, and says when it has let go of its listeners and when it
    /// has ended. In a thread or process of its own.
    pub(crate) fn run(mut self) -> io::Result<()> {
        kernel::process::set_timer_slack_min();
        self.scheduling.settle(self.cpu)?;
        let engine = match self.engine {
            Engine::Epoll => epoll::run_level,
            Engine::EpollEdge => epoll::run_edge,
            Engine::EpollExclusive => epoll::run_exclusive,
            Engine::Blocking => blocking::run,
            Engine::IoUring => uring::run_single,
            Engine::IoUringMultishot => uring::run_multishot,
            Engine::Tokio | Engine::TokioLocal => tokio_engines::run_local,
        };
        let ended = engine(&mut self);
        // On success the engine has done this itself, before it served what was open.
        self.let_go();
        if let Some(children) = &mut self.children {
            children.see_out(&self.desk);
        }
        ended
    }

    /// Closes this acceptor's hold on its listeners and says so.
    pub(crate) fn let_go(&mut self) {
        self.listeners.clear();
        self.desk.set_gone();
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.desk.tally
    }

    /// The policy by which its thread is scheduled, and its CPU.
    pub(crate) fn place(&self) -> (Scheduling, Option<usize>) {
        (self.scheduling, self.cpu)
    }

    /// Is there any service time?
    pub(crate) fn is_instant(&self) -> bool {
        self.service.is_instant()
    }

    /// How many connections a wake-up takes at most.
    pub(crate) fn batch_limit(&self) -> u64 {
        match self.batch {
            Batch::All => u64::MAX,
            Batch::AtMost(n) => u64::from(n.get()),
        }
    }

    /// accept4 on listener number `listener` of this acceptor, and all that follows for one connection. `back_to_back`:
    /// the acceptor does not wait, since somebody is there.
    pub(crate) fn accept(&mut self, listener: usize, back_to_back: bool) -> Accepted {
        if let Some(children) = &mut self.children
            && !children.make_room(&self.desk.tally, self.stop.as_fd())
        {
            return Accepted::Retry;
        }
        // Somebody waited a moment ago. But where accept4 may sleep, whoever slept found that another acceptor was faster, and
        // was idle. (The listener's lock puts to sleep, too, rarely: then only lateness of this service is not made up for.)
        let sleeps = back_to_back && self.engine == Engine::Blocking && !self.is_instant();
        let slept = sleeps.then(voluntary_switches);
        match accept_with(&self.listeners[listener], SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => {
                let back_to_back = back_to_back && slept.is_none_or(|before| before == voluntary_switches());
                match self.admit(connection, back_to_back) {
                    Some(open) => Accepted::Open(open),
                    None => Accepted::Closed,
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => Accepted::Nothing,
            Err(errno) => self.fail(errno),
        }
    }

    /// Takes what waits at a listener, as one batch. Connections that go on are handed to `open`.
    pub(crate) fn take(&mut self, listener: usize, mut open: impl FnMut(Connection)) -> Left {
        self.sit_out_stall();
        self.sample(listener);
        let mut batch = 0;
        let mut left = Left::Somebody;
        while !self.desk.is_stopped() && batch < self.batch_limit() {
            match self.accept(listener, batch > 0) {
                Accepted::Closed => batch += 1,
                Accepted::Open(connection) => {
                    batch += 1;
                    open(connection);
                }
                Accepted::Retry => continue,
                Accepted::Nothing => {
                    left = Left::Nobody;
                    break;
                }
                Accepted::Exhausted => {
                    left = Left::Alone;
                    break;
                }
            }
            if !self.is_instant() {
                // With a service time a batch can last as long as the overload: look again, and notice a stall that began
                // meanwhile.
                self.sit_out_stall();
                self.sample(listener);
            }
        }
        if batch > 0 {
            self.tally().wakeups_work.add(1);
            self.tally().batch.record(batch);
        } else {
            self.tally().wakeups_empty.add(1);
        }
        left
    }

    /// Counts a connection just accepted, spends its service time and deals with it. The socket must not block. `Some`
    /// when it goes on.
    pub(crate) fn admit(&mut self, connection: OwnedFd, back_to_back: bool) -> Option<Connection> {
        let accepted = accepted_at(self.manners);
        let tally = &self.desk.tally;
        tally.accepts.add(1);
        if let Ok(info) = sockopt::tcp_info(&connection) {
            if info.state == TcpState::Close {
                tally.dead_on_accept.add(1);
            }
            if info.total_retrans > 0 {
                tally.late_handshakes.add(1);
            }
            // Nothing was sent yet, so this is the time since the socket entered the queue; for a late
            // handshake the clock started at the late ACK.
            let wait_ms = u64::from(info.last_data_sent_ms) + u64::from(info.total_rto_time_ms);
            tally.wait.record(wait_ms * 1_000_000);
        }
        self.service.spend(back_to_back, self.stop.as_fd());
        let open = self.deal(connection, accepted);
        if !self.is_instant() {
            let spent = self.service.end();
            self.tally().service.add(spent);
        }
        open
    }

    /// Deals with an accepted connection, or has a child do so. `Some` when it goes on.
    fn deal(&mut self, connection: OwnedFd, accepted: u64) -> Option<Connection> {
        let tally = &self.desk.tally;
        if let Some(children) = &mut self.children {
            if !children.serve(connection, self.manners, accepted, &self.desk, self.stop.as_fd()) {
                tally.close(End::Error);
                tally.pauses.add(1);
                self.pause();
            }
            return None;
        }
        let fate: Fate = Connection::begin(connection, self.manners, accepted, tally);
        fate.count(tally)
    }

    /// Counts an accept4 error and says how to go on.
    pub(crate) fn fail(&self, errno: Errno) -> Accepted {
        let (name, then) = match errno {
            Errno::MFILE => ("EMFILE", Accepted::Exhausted),
            Errno::NFILE => ("ENFILE", Accepted::Exhausted),
            Errno::NOBUFS => ("ENOBUFS", Accepted::Exhausted),
            Errno::NOMEM => ("ENOMEM", Accepted::Exhausted),
            Errno::CONNABORTED => ("ECONNABORTED", Accepted::Retry),
            Errno::PROTO => ("EPROTO", Accepted::Retry),
            // accept(2): pending network errors of the new socket, to be treated like EAGAIN by retrying.
            Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM => ("other", Accepted::Retry),
            // EINVAL after shutdown(2) on the listener, or anything unheard of: never a busy loop.
            _ => ("other", Accepted::Exhausted),
        };
        if let Some(index) = ERRNOS.iter().position(|known| *known == name) {
            self.tally().errors[index].add(1);
        }
        if matches!(then, Accepted::Exhausted) {
            self.tally().pauses.add(1);
        }
        then
    }

    /// For an engine whose waiters are woken one at a time, when it has stopped waiting and still has its listeners: the
    /// last arrival may have woken this acceptor and nobody else, just as it was told to stop. Others at the same
    /// listener, in a server that takes over, would hear of it with the next arrival only. Later ones wake them, since
    /// this one has left; so does whatever came while it was awake. Returns what goes on.
    pub(crate) fn take_what_only_this_one_was_told_of(&mut self) -> Vec<Connection> {
        let mut open = Vec::new();
        for index in 0..self.listeners.len() {
            if self.stalled_until().is_some() {
                break;
            }
            match self.accept(index, false) {
                Accepted::Open(connection) => open.push(connection),
                Accepted::Closed => {}
                Accepted::Nothing | Accepted::Retry | Accepted::Exhausted => continue,
            }
            self.tally().wakeups_work.add(1);
            self.tally().batch.record(1);
        }
        open
    }

    /// Notes the depth of a listener's queue before taking from it, and returns it.
    pub(crate) fn sample(&self, listener: usize) -> u32 {
        let depth = self.listeners[listener].depth().map_or(0, |depth| depth.depth);
        self.desk.note_depth(u64::from(depth));
        depth
    }

    /// Sits out a stall; returns at once when there is none.
    pub(crate) fn sit_out_stall(&mut self) {
        while let Some(until) = self.stalled_until() {
            if sleep_until(until, self.stop.as_fd()) {
                return;
            }
            self.service.resume();
        }
    }

    /// The instant (monotonic ns) at which the stall of now ends, `u64::MAX` for never; `None` when there is none. A stall
    /// may begin at 0 s, so nobody accepts before the run has a beginning.
    pub(crate) fn stalled_until(&self) -> Option<u64> {
        let stall = self.stall?;
        let now = monotonic_ns();
        match self.desk.origin() {
            Some(origin) => stalled_until(stall, origin, now),
            None => Some(now + 1_000_000),
        }
    }

    /// Does a child of its own deal with each connection?
    pub(crate) fn has_children(&self) -> bool {
        self.children.is_some()
    }

    /// Counts what the children did that have ended, and says when to look again (monotonic ns); `None` when there are
    /// none. [`accept`](Self::accept) does so, too.
    pub(crate) fn reap(&mut self) -> Option<u64> {
        let children = self.children.as_mut()?;
        children.reap(&self.desk.tally);
        (!children.is_empty()).then(|| monotonic_ns() + u64::try_from(children::LOOK.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Leaves the listeners alone for a while, in an engine that has nothing else to do.
    pub(crate) fn pause(&self) {
        wait_readable(self.stop.as_fd(), RESOURCE_PAUSE);
    }

    /// Sees a connection to its end, in an engine that serves one at a time. Told to stop meanwhile, it lets go of its
    /// listeners first: the end may be far, and whoever stops it waits for that.
    pub(crate) fn serve(&mut self, mut connection: Connection) {
        let end = connection.serve_until_stopped(&self.desk, self.tally(), self.stop.as_fd()).unwrap_or_else(|| {
            self.let_go();
            connection.serve_to_the_end(&self.desk, self.tally(), self.stop.as_fd())
        });
        self.tally().close(end);
    }

    /// Readable once the acceptor is to stop.
    pub(crate) fn stop_fd(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }
}

/// The instant (ns) at which the stall that covers `now` ends; `u64::MAX` for never.
fn stalled_until(stall: Stall, origin: u64, now: u64) -> Option<u64> {
    let from = origin + stall.at.as_ns();
    let until = stall.lasts.map_or(u64::MAX, |lasts| from + lasts.as_ns());
    (from..until).contains(&now).then_some(until)
}

#[cfg(test)]
mod tests;
