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

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use kernel::process::monotonic_ns;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::acceptor::{Accepted, Acceptor, RESOURCE_PAUSE};
use crate::connections::{Connections, Token};
use crate::service::sleep_until;

/// User data below this are accepts, by number of their listener; tokens of connections are greater than all of these.
const STOP: u64 = u32::MAX as u64;
const CANCEL: u64 = STOP - 1;

/// Requests submitted at once, at most; more take several submissions.
const REQUESTS: u32 = 256;

/// Completions that wait without the kernel having to allocate for each; none is lost beyond (`IORING_FEAT_NODROP`).
pub(crate) const COMPLETIONS: u32 = 4096;

/// How often an acceptor that only serves what is open looks whether it must end at once.
const LOOK_NS: u64 = 10_000_000;

/// How often a stalled acceptor counts what multishot accepts have taken meanwhile.
const COUNT_NS: u64 = 5_000_000;

/// How long the end of cancelled polls is waited for.
const CANCEL_NS: u64 = 100_000_000;

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

/// What the loop knows of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// No accept is in flight.
    Idle,
    /// One is. `waiting`: somebody waited in the queue when it was submitted.
    Armed { waiting: bool },
    /// Descriptors or memory had run out: left alone until this instant (monotonic ns).
    Shut { until: u64 },
}

/// A connection that the kernel has accepted and nobody has looked at.
#[derive(Debug)]
struct Taken {
    socket: OwnedFd,
    back_to_back: bool,
}

struct Loop {
    ring: IoUring,
    shots: Shots,
    doors: Vec<Door>,
    taken: VecDeque<Taken>,
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
            failed: false,
            ready: Vec::new(),
            connections: Connections::default(),
            polls: 0,
        }
    }

    fn run(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        self.push(acceptor, &poll(acceptor.stop_fd(), PollFlags::IN, STOP))?;
        while !acceptor.desk.is_stopped() {
            self.arm(acceptor)?;
            self.wait(self.next_look())?;
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

    /// Submits accepts where none is in flight and the door is not shut.
    fn arm(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        let now = monotonic_ns();
        if !self.doors.iter().any(|door| door.is_due(now)) {
            return Ok(());
        }
        if self.shots == Shots::Single && acceptor.stalled_until().is_some() {
            // What was pushed before the stall happens before it.
            self.wait(Some(0))?;
            acceptor.sit_out_stall();
            if acceptor.desk.is_stopped() {
                return Ok(());
            }
        }
        for index in 0..self.doors.len() {
            if !self.doors[index].is_due(now) {
                continue;
            }
            let waiting = acceptor.sample(index) > 0;
            let listener = Fd(acceptor.listeners[index].as_fd().as_raw_fd());
            let flags = (SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).bits().cast_signed();
            let accept = match self.shots {
                Shots::Single => opcode::Accept::new(listener, null_mut(), null_mut()).flags(flags).build(),
                Shots::Multi => opcode::AcceptMulti::new(listener).flags(flags).build(),
            };
            self.push(acceptor, &accept.user_data(index as u64))?;
            self.doors[index] = Door::Armed { waiting };
        }
        Ok(())
    }

    /// Cancels the accepts in flight, waits for their ends, and deals with whatever they have taken.
    fn disarm(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        while self.doors.iter().any(|door| matches!(door, Door::Armed { .. })) {
            for index in 0..self.doors.len() {
                if matches!(self.doors[index], Door::Armed { .. }) {
                    self.push(acceptor, &cancel(index as u64))?;
                }
            }
            self.wait(Some(monotonic_ns() + LOOK_NS))?;
            self.reap(acceptor)?;
        }
        self.take(acceptor)?;
        // An accept in flight waits exclusively (`io_arm_poll_handler`).
        for connection in acceptor.take_what_only_this_one_was_told_of() {
            let token = self.connections.insert(connection);
            self.watch(acceptor, token)?;
        }
        Ok(())
    }

    fn serve_what_is_open(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        self.advance(acceptor)?;
        while !self.connections.is_empty() && !acceptor.desk.must_end() {
            let look = monotonic_ns() + LOOK_NS;
            self.wait(Some(self.next_look().map_or(look, |next| next.min(look))))?;
            self.reap(acceptor)?;
            self.advance(acceptor)?;
        }
        self.cancel_polls(acceptor)?;
        self.connections.close_all(acceptor.tally());
        Ok(())
    }

    /// Ends the polls in flight, so that closing what they watch closes it.
    fn cancel_polls(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let until = monotonic_ns() + CANCEL_NS;
        if self.polls > 0 {
            // Linux 5.19; before, dropping the ring has to do.
            self.push(acceptor, &opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(CANCEL))?;
        }
        while self.polls > 0 && monotonic_ns() < until {
            self.wait(Some(until))?;
            self.reap(acceptor)?;
        }
        Ok(())
    }

    /// Adds a request to those submitted by the next [`Self::wait`].
    fn push(&mut self, acceptor: &Acceptor, request: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the requests of this file refer to no memory: accepts ask for no address, polls and cancels have
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
            Door::Idle | Door::Armed { .. } => None,
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
                index => self.accepted(acceptor, usize::try_from(index).unwrap_or(0), &completion),
            }
        }
        if self.shots == Shots::Multi {
            acceptor.tally().unhandled.set(self.taken.len() as u64);
        }
        Ok(())
    }

    /// An accept has a result.
    fn accepted(&mut self, acceptor: &Acceptor, index: usize, completion: &cqueue::Entry) {
        let back_to_back = matches!(self.doors[index], Door::Armed { waiting: true });
        if !cqueue::more(completion.flags()) {
            self.doors[index] = Door::Idle;
        }
        let result = completion.result();
        if result >= 0 {
            // SAFETY: a successful accept gives a new descriptor, and each completion is seen once.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            self.taken.push_back(Taken { socket, back_to_back });
            return;
        }
        let then = match Errno::from_raw_os_error(-result) {
            Errno::CANCELED | Errno::INTR => return,
            // Before Linux 5.19 and its stable fixes, O_NONBLOCK keeps an accept from waiting at an empty queue.
            Errno::AGAIN => Accepted::Exhausted,
            errno => acceptor.fail(errno),
        };
        self.failed = true;
        if matches!(then, Accepted::Exhausted) {
            let pause = u64::try_from(RESOURCE_PAUSE.as_nanos()).unwrap_or(u64::MAX);
            self.doors[index] = Door::Shut { until: monotonic_ns() + pause };
        }
    }

    /// Deals with nothing that was taken until the stall is over. Multishot accepts go on meanwhile.
    fn sit_out_stall(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        if self.taken.is_empty() {
            return Ok(());
        }
        if self.shots == Shots::Single {
            acceptor.sit_out_stall();
            return Ok(());
        }
        while let Some(until) = acceptor.stalled_until() {
            if sleep_until(until.min(monotonic_ns() + COUNT_NS), acceptor.stop_fd()) {
                break;
            }
            self.reap(acceptor)?;
            self.arm(acceptor)?;
            settle(self.ring.submit())?;
        }
        Ok(())
    }

    /// Deals with the connections taken so far, as one batch.
    fn take(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        let failed = std::mem::take(&mut self.failed);
        let found = self.taken.len();
        if found == 0 {
            acceptor.tally().wakeups_empty.add(u64::from(failed));
            return Ok(());
        }
        for index in 0..self.doors.len() {
            acceptor.sample(index);
        }
        let mut batch = 0;
        let mut went = Ok(());
        while batch < found && went.is_ok() {
            let Some(Taken { socket, back_to_back }) = self.taken.pop_front() else { break };
            batch += 1;
            if let Some(connection) = acceptor.admit(socket, back_to_back) {
                let token = self.connections.insert(connection);
                went = self.watch(acceptor, token);
            }
            if self.shots == Shots::Multi && went.is_ok() {
                went = self.reap(acceptor);
            }
        }
        acceptor.tally().wakeups_work.add(1);
        acceptor.tally().batch.record(batch as u64);
        went
    }

    /// Asks once for what an open connection waits for.
    fn watch(&mut self, acceptor: &Acceptor, token: Token) -> io::Result<()> {
        let Some(connection) = self.connections.get(token) else { return Ok(()) };
        let wants = if connection.wants_to_send() { PollFlags::OUT } else { PollFlags::IN | PollFlags::RDHUP };
        let request = poll(connection.as_fd(), wants, token);
        self.push(acceptor, &request)?;
        self.polls += 1;
        Ok(())
    }

    /// Lets connections go on: those whose polls have ended, and those that are due.
    fn advance(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        for (token, result) in ready.drain(..) {
            if result < 0 && Errno::from_raw_os_error(-result) != Errno::CANCELED {
                // ENOMEM: nobody would ever look at it again.
                self.connections.abandon(token, acceptor.tally());
            } else if result >= 0 && self.connections.advance(token, monotonic_ns(), acceptor.tally()) {
                self.watch(acceptor, token)?;
            }
        }
        if self.ready.is_empty() {
            self.ready = ready;
        }
        let now = monotonic_ns();
        while let Some(token) = self.connections.pop_due(now) {
            // One that goes on goes on being watched.
            if !self.connections.advance(token, now, acceptor.tally()) {
                self.push(acceptor, &cancel(token))?;
            }
        }
        Ok(())
    }
}

impl Door {
    /// Is it time for an accept?
    fn is_due(self, now: u64) -> bool {
        match self {
            Self::Idle => true,
            Self::Armed { .. } => false,
            Self::Shut { until } => now >= until,
        }
    }
}

/// A poll that ends with the first of these events, an error or a hang-up.
fn poll(fd: BorrowedFd<'_>, wants: PollFlags, user_data: u64) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd.as_raw_fd()), u32::from(wants.bits())).build().user_data(user_data)
}

/// Ends the request with this user data, if it is in flight.
fn cancel(user_data: u64) -> squeue::Entry {
    opcode::AsyncCancel::new(user_data).build().user_data(CANCEL)
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
