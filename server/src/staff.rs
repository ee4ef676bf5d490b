//! Who runs the acceptors: threads of this process, or pre-forked processes of a nursery. Both are told the same things
//! in the same way, through the desks and an eventfd; only waking and waiting differ.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::nursery::Nursery;
use crate::tally::Desks;
use crate::threads::Threads;

/// How often a wait looks again.
const LOOK: Duration = Duration::from_micros(500);

/// How long acceptors that are processes may take to end when told to end at once: then the nursery ends them.
const END: Duration = Duration::from_secs(2);

/// The acceptors of a server.
#[derive(Debug)]
pub(crate) struct Staff {
    desks: Desks,
    bells: Bells,
    crew: Crew,
}

/// Those who run the acceptors.
#[derive(Debug)]
pub(crate) enum Crew {
    Threads(Threads),
    Processes(Nursery),
}

/// Eventfds that are readable once acceptors must stop: one for those of the listener that is to be retired, one for all
/// others, because an eventfd once written wakes everyone who watches it.
#[derive(Debug)]
pub(crate) struct Bells {
    retired: OwnedFd,
    others: OwnedFd,
    /// The acceptors of the listener to be retired.
    to_retire: Vec<usize>,
}

impl Bells {
    pub(crate) fn new(to_retire: Vec<usize>) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self { retired: eventfd(0, flags)?, others: eventfd(0, flags)?, to_retire })
    }

    /// The descriptor that acceptor number `index` watches.
    pub(crate) fn of(&self, index: usize) -> &OwnedFd {
        if self.to_retire.contains(&index) { &self.retired } else { &self.others }
    }

    /// Bells hung up by another process: what [`fds`](Self::fds) gave, in that order.
    pub(crate) fn from_fds([retired, others]: [OwnedFd; 2], to_retire: Vec<usize>) -> Self {
        Self { retired, others, to_retire }
    }

    /// Both descriptors.
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.retired.as_fd(), self.others.as_fd()]
    }

    /// The acceptors of the listener to be retired.
    pub(crate) fn to_retire(&self) -> &[usize] {
        &self.to_retire
    }

    /// The descriptor that acceptor number `index` watches; the other one is closed.
    pub(crate) fn into_of(self, index: usize) -> OwnedFd {
        if self.to_retire.contains(&index) { self.retired } else { self.others }
    }

    fn ring(&self, acceptors: &[usize]) {
        for index in acceptors {
            // Fails only when it was rung 2^64 times.
            let _ = rustix::io::write(self.of(*index), &1_u64.to_ne_bytes());
        }
    }
}

impl Staff {
    pub(crate) fn new(desks: Desks, bells: Bells, crew: Crew) -> Self {
        Self { desks, bells, crew }
    }

    /// Has `acceptors` accept no more and waits until they have let go of their listeners.
    pub(crate) fn stop(&self, acceptors: &[usize]) {
        for index in acceptors {
            self.desks[*index].request_stop();
        }
        self.bells.ring(acceptors);
        self.wait_until(None, || acceptors.iter().all(|index| self.desks[*index].is_gone()));
    }

    /// Lets go of a listener whose acceptors have stopped.
    pub(crate) fn close_listener(&self, listener: usize) {
        if let Crew::Processes(nursery) = &self.crew {
            nursery.close_listener(listener);
        }
    }

    /// Waits until all have ended who were told to stop and have served what was open; at most `limit`. True when they
    /// have.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        self.wait_until(Some(limit), || false)
    }

    /// Notices when the acceptors are gone though nobody told them to.
    pub(crate) fn look(&self) {
        if let Crew::Processes(nursery) = &self.crew {
            nursery.is_gone();
        }
    }

    /// Ends every acceptor at once, and returns when they are gone.
    pub(crate) fn end(&self) {
        self.desks.iter().for_each(crate::tally::Desk::request_end);
        self.bells.ring(&(0..self.desks.len()).collect::<Vec<_>>());
        let limit = matches!(self.crew, Crew::Processes(_)).then_some(END);
        self.wait_until(limit, || false);
        match &self.crew {
            Crew::Threads(threads) => threads.join(),
            Crew::Processes(nursery) => nursery.end(),
        }
    }

    /// Waits until `done`, or everyone has ended; false when `limit` passed before.
    fn wait_until(&self, limit: Option<Duration>, done: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !done() && !self.is_empty() {
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                return false;
            }
            if let Crew::Threads(threads) = &self.crew {
                threads.nudge();
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn is_empty(&self) -> bool {
        match &self.crew {
            Crew::Threads(threads) => threads.is_empty(),
            Crew::Processes(nursery) => nursery.is_empty(),
        }
    }
}
