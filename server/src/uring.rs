//! The `io_uring` engines: accepts that the kernel carries out while the acceptor waits in `io_uring_enter(2)`, either
//! one in flight per listener, submitted again after each connection (single), or one that goes on by itself (multishot,
//! Linux 5.19). Open connections are waited for by one-shot polls in the same ring. `io_uring(7)`.
//!
//! *Single* behaves like epoll: the next accept is submitted when the connection before is dealt with, so the queue fills
//! up in the kernel. Its ring defers completions to the next wait (`IORING_SETUP_DEFER_TASKRUN`, Linux 6.1). A stall that
//! begins while an accept is in flight finds one connection taken: the server then holds one more than its queue.
//!
//! *Multishot* has a ring without flags, as one gets without asking for any: an arrival has the acceptor's thread accept on
//! its next way out of the kernel, and wakes it even from a sleep. The queue is thus emptied into the completion queue
//! whatever the acceptor is doing, the backlog limits no more than what comes before the thread gets a CPU, and `unhandled`
//! says how many wait here instead. With `DEFER_TASKRUN` nothing would be accepted between two waits.
//!
//! A request in flight holds the file it works on: close(2) alone neither closes a listener nor sends a FIN. Accepts are
//! therefore cancelled and waited for before the listeners are let go of, and the poll of a connection is cancelled when
//! the connection is closed. Dropping the ring would do the same from a kernel worker, some time later.

#![expect(unsafe_code, reason = "requests, and descriptors in results, have no safe wrapper")]

mod accepts;
mod open;
mod requests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use kernel::process::monotonic_ns;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::acceptor::{Acceptor, RESOURCE_PAUSE};
use crate::connections::{Connections, Token};
use accepts::Door;
use requests::{CANCEL, STOP};

/// Requests submitted at once, at most; more take several submissions.
const REQUESTS: u32 = 256;

/// Completions that wait without the kernel having to allocate for each; none is lost beyond (`IORING_FEAT_NODROP`).
pub(crate) const COMPLETIONS: u32 = 4096;

/// One accept in flight per listener.
pub(crate) fn run_single(acceptor: &mut Acceptor) -> io::Result<()> {
    let ring = builder().setup_single_issuer().setup_defer_taskrun().build(REQUESTS);
    let ring = match ring {
        // Before Linux 6.1.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => builder().build(REQUESTS),
        ring => ring,
    };
    Loop::new(ring?, Shots::Single, acceptor.listeners.len()).run(acceptor)
}

/// One accept per listener that goes on until it fails or is cancelled.
pub(crate) fn run_multishot(acceptor: &mut Acceptor) -> io::Result<()> {
    Loop::new(builder().build(REQUESTS)?, Shots::Multi, acceptor.listeners.len()).run(acceptor)
}

/// Does this kernel know multishot accepts? They came with the `SOCKET` request, in Linux 5.19.
pub(crate) fn multishot_works() -> io::Result<bool> {
    let mut probe = Probe::new();
    IoUring::new(1)?.submitter().register_probe(&mut probe)?;
    Ok(probe.is_supported(opcode::Socket::CODE))
}

fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETIONS);
    builder
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shots {
    Single,
    Multi,
}

struct Loop {
    ring: IoUring,
    shots: Shots,
    doors: Vec<Door>,
    /// Connections that the kernel has accepted and nobody has looked at.
    taken: VecDeque<OwnedFd>,
    /// Has the acceptor had nobody to serve since the last one?
    idle: bool,
    /// Has an accept failed since the last batch?
    failed: bool,
    /// Completed polls: the connection and the result.
    ready: Vec<(Token, i32)>,
    connections: Connections,
    /// Polls of connections in flight.
    polls: usize,
}

impl Loop {
    fn new(ring: IoUring, shots: Shots, listeners: usize) -> Self {
        Self {
            ring,
            shots,
            doors: vec![Door::Idle; listeners],
            taken: VecDeque::new(),
            idle: true,
            failed: false,
            ready: Vec::new(),
            connections: Connections::default(),
            polls: 0,
        }
    }

    fn run(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        self.push(acceptor, &requests::poll(acceptor.stop_fd(), PollFlags::IN, STOP))?;
        while !acceptor.desk.is_stopped() {
            self.arm(acceptor)?;
            self.wait_for_anybody(acceptor)?;
            self.reap(acceptor)?;
            self.sit_out_stall(acceptor)?;
            self.take(acceptor)?;
            self.advance(acceptor)?;
        }
        self.disarm(acceptor)?;
        self.doors.clear();
        acceptor.let_go();
        self.serve_what_is_open(acceptor)
    }

    /// Adds a request to those submitted by the next [`Self::wait`].
    fn push(&mut self, acceptor: &Acceptor, request: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the requests of `requests` refer to no memory: accepts ask for no address, polls and cancels have
            // none. Should a descriptor be closed before they are submitted, they fail.
            if unsafe { self.ring.submission().push(request) }.is_ok() {
                return Ok(());
            }
            settle(self.ring.submit())?;
            self.reap(acceptor)?;
        }
    }

    /// Submits, and waits for a completion until the instant `until` (monotonic ns), or for ever.
    fn wait(&mut self, until: Option<u64>) -> io::Result<()> {
        let Some(until) = until else { return settle(self.ring.submit_and_wait(1)) };
        let left = Timespec::from(Duration::from_nanos(until.saturating_sub(monotonic_ns())));
        settle(self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&left)))
    }

    /// When the loop must look again though nothing completes; 0 for at once.
    fn next_look(&self) -> Option<u64> {
        let doors = self.doors.iter().filter_map(|door| match door {
            Door::Shut { until } => Some(*until),
            Door::Idle | Door::Armed => None,
        });
        let unfinished = (!self.taken.is_empty() || !self.ready.is_empty()).then_some(0);
        doors.chain(self.connections.next_due()).chain(unfinished).min()
    }

    /// Takes over what has completed.
    fn reap(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        loop {
            let Some(completion) = self.ring.completion().next() else {
                if !self.ring.submission().cq_overflow() {
                    break;
                }
                // There was no room for all: entering the kernel fetches the others.
                settle(self.ring.submit())?;
                continue;
            };
            match completion.user_data() {
                STOP | CANCEL => {}
                token if token > STOP => {
                    self.polls = self.polls.saturating_sub(1);
                    self.ready.push((token, completion.result()));
                }
                index => {
                    let ended = !cqueue::more(completion.flags());
                    self.accepted(acceptor, usize::try_from(index).unwrap_or(0), socket(&completion), ended);
                }
            }
        }
        if self.shots == Shots::Multi {
            acceptor.tally().unhandled.set(self.taken.len() as u64);
        }
        Ok(())
    }
}

/// What an accept came to. Each completion is to be looked at once.
fn socket(accept: &cqueue::Entry) -> Result<OwnedFd, Errno> {
    match accept.result() {
        failed if failed < 0 => Err(Errno::from_raw_os_error(-failed)),
        // SAFETY: a successful accept gives a new descriptor, and the caller owns the completion.
        socket => Ok(unsafe { OwnedFd::from_raw_fd(socket) }),
    }
}

/// Is what `io_uring_enter(2)` said no reason to give up?
fn settle(entered: io::Result<usize>) -> io::Result<()> {
    let Err(error) = entered else { return Ok(()) };
    match Errno::from_io_error(&error) {
        // The time is up, a signal came, or completions must be reaped first.
        Some(Errno::TIME | Errno::INTR | Errno::BUSY) => Ok(()),
        // No memory for a request right now.
        Some(Errno::AGAIN) => {
            std::thread::sleep(RESOURCE_PAUSE);
            Ok(())
        }
        _ => Err(error),
    }
}
