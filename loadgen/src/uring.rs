//! The engine `io-uring`: one chain of linked requests per attempt (socket, its options, bind, connect, send, receive) on a
//! registered file, submitted in one system call. The kernel carries a chain on whenever the worker calls (`DEFER_TASKRUN`).
//!
//! Requests that succeed and tell nothing post no completion (`IOSQE_CQE_SKIP_SUCCESS`), so an attempt costs one for its
//! connect and one for its answer. In an open loop each attempt is submitted by itself, so that the instant it was issued is
//! true; in a closed loop those that are free at once are submitted together. An attempt's slot is the number of its file.
//! What only a descriptor can tell (`TCP_INFO`) is asked through one installed for the purpose, and only where the time
//! an attempt took leaves room for doubt. Needs Linux 6.8 (`FIXED_FD_INSTALL`), for sources 6.11 (`BIND`).
#![expect(unsafe_code, reason = "requests refer to memory that the kernel reads and writes later")]

mod completions;
mod needs;
mod requests;
mod step;
mod tie;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use kernel::process::monotonic_ns;
use rustix::io::Errno;
use socket2::SockAddr;

use crate::attempt::NotIssued;
use crate::hope::Hope;
use crate::opts::{ArrivalKind, Sockets};
use crate::plan::Plan;
use crate::reactor::{Reactor, Seen, Token, Wants};

pub use needs::lacks;
pub(crate) use needs::most_files;
use step::Step;
use tie::Tie;

/// Requests that may wait for submission; a chain must fit.
const REQUESTS: u32 = 1024;

/// Fewest completions that there is room for, and most: the kernel keeps what exceeds it, and a ring is locked memory, of
/// which all processes of an ordinary user together have 8 MiB (`RLIMIT_MEMLOCK`). This is 200 KiB a ring.
const COMPLETIONS: std::ops::RangeInclusive<u32> = 1024..=8192;

/// Bytes received at once; no expectation is longer.
const PIECE: usize = 64;

/// How long the kernel may take to end what was cancelled, ns.
const PATIENCE_NS: u64 = 1_000_000_000;

/// What disconnects a socket: an address of the family `AF_UNSPEC`, 0.
const NOWHERE_LENGTH: libc::socklen_t = 16;
static NOWHERE: libc::sockaddr = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };

/// What there is of one slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    token: Token,
    wants: Wants,
    matched: u8,
    /// Requests of the attempt that have not completed.
    waiting: u8,
    /// Is there a file?
    open: bool,
    /// Was the connection reset before the kernel said that there was one?
    reset: bool,
    tie: Tie,
}

/// A ring and the sockets among its files.
pub(crate) struct Uring {
    plan: Arc<Plan>,
    ring: IoUring,
    stop: OwnedFd,
    /// Has a stop come that no wait was ended by? It completes once, maybe when the worker looks what has completed.
    stopped: bool,
    slots: Vec<Slot>,
    /// [`PIECE`] bytes for each slot.
    pieces: Box<[u8]>,
    target: (SocketAddr, SockAddr),
    /// Every source as bind takes it, in the plan's order.
    sources: Vec<SockAddr>,
    together: bool,
    /// See [`Plan::ends_with_the_handshake`].
    ties: bool,
    hope: Hope,
    /// Connects and receives that have not completed, those of attempts that are gone included.
    outstanding: usize,
    /// What [`Uring::install`] asked for, and for whom.
    installed: Option<(Token, OwnedFd)>,
    /// What is known and not told yet.
    untold: VecDeque<(Token, Seen)>,
}

/// A ring that nobody uses yet.
pub(crate) struct Ring(IoUring);

impl Ring {
    /// A ring for `share` attempts at once.
    pub(crate) fn new(share: usize) -> io::Result<Self> {
        let files = u32::try_from(share).map_err(io::Error::other)?;
        let completions = files.saturating_mul(2).next_power_of_two().clamp(*COMPLETIONS.start(), *COMPLETIONS.end());
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .setup_cqsize(completions)
            .build(REQUESTS)?;
        ring.submitter().register_files_sparse(files)?;
        Ok(Self(ring))
    }
}

impl Uring {
    /// An engine with this ring for `share` attempts at once, which `stop` wakes up.
    pub(crate) fn new(plan: Arc<Plan>, share: usize, Ring(ring): Ring, stop: OwnedFd) -> Self {
        let idle = Slot {
            token: Token::NONE,
            wants: Wants::Connection,
            matched: 0,
            waiting: 0,
            open: false,
            reset: false,
            tie: Tie::None,
        };
        Self {
            ring,
            stop,
            stopped: false,
            slots: vec![idle; share],
            pieces: vec![0; share * PIECE].into_boxed_slice(),
            target: (plan.target, plan.target.into()),
            sources: plan.sources.iter().map(|ip| SocketAddr::new(*ip, 0).into()).collect(),
            together: matches!(plan.opts.arrivals, ArrivalKind::Closed(_)),
            ties: plan.ends_with_the_handshake(),
            hope: Hope::default(),
            outstanding: 0,
            installed: None,
            untold: VecDeque::new(),
            plan,
        }
    }

    /// Makes room for `count` requests, so that a chain is submitted whole.
    fn room_for(&mut self, count: usize) -> io::Result<()> {
        let submission = self.ring.submission();
        if submission.capacity() - submission.len() < count {
            drop(submission);
            self.submit()?;
        }
        Ok(())
    }

    /// Adds a request to those that the next system call submits. There is room.
    fn push(&mut self, request: &Entry) {
        // SAFETY: what requests of this file refer to outlives them: addresses are read while they are submitted, before
        // `target` or a source can change; options, message and pieces live as long as the ring, which `finish` empties.
        let pushed = unsafe { self.ring.submission().push(request) };
        debug_assert!(pushed.is_ok(), "room was made");
    }

    fn submit(&mut self) -> io::Result<()> {
        settle(self.ring.submit())
    }

    /// The next completion that says something of an attempt.
    fn next_completed(&mut self) -> Option<(Token, Seen)> {
        loop {
            let completion = self.ring.completion().next()?;
            if let Some((step, token)) = Step::of(completion.user_data())
                && let Some(seen) = self.interpret(step, token, &completion)
            {
                return Some((token, seen));
            }
        }
    }

    /// A descriptor of the attempt's socket.
    fn install(&mut self, token: Token) -> Option<OwnedFd> {
        self.room_for(1).ok()?;
        let install = opcode::FixedFdInstall::new(Fixed(token.slot), 0).build();
        self.push(&install.user_data(Step::Install.user_data(token)));
        self.installed = None;
        self.submit().ok()?;
        // It completes while it is submitted.
        self.take_in();
        self.installed.take().filter(|(of, _)| *of == token).map(|(_, socket)| socket)
    }

    /// The answer to what [`Uring::install`] asked for: a descriptor, or an error below 0.
    fn note_installed(&mut self, token: Token, result: i32) {
        // SAFETY: the kernel has just installed it for us, and its completion is seen once.
        self.installed = (result >= 0).then(|| (token, unsafe { OwnedFd::from_raw_fd(result) }));
    }

    /// Takes everything that has completed, to be told later. What the kernel had no room for follows what there was.
    fn take_in(&mut self) {
        loop {
            while let Some(told) = self.next_completed() {
                self.untold.push_back(told);
            }
            if !self.ring.submission().cq_overflow() || self.submit().is_err() {
                return;
            }
        }
    }
}

/// Is what `io_uring_enter(2)` said no reason to give up?
fn settle(entered: io::Result<usize>) -> io::Result<()> {
    let Err(error) = entered else { return Ok(()) };
    match Errno::from_io_error(&error) {
        // The time is up, a signal came, completions must be reaped first, or there is no memory for a request right now.
        Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
        _ => Err(error),
    }
}

impl Reactor for Uring {
    fn enter(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        // Saves looking the ring up at every call; where it fails, calls go on by descriptor.
        let _ = self.ring.submitter().register_ring_fd();
        let stop = opcode::PollAdd::new(Fd(self.stop.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(&stop.user_data(Step::Stop.user_data(Token { slot: 0, generation: 0 })));
        self.submit()
    }

    fn open(&mut self, token: Token, target: SocketAddr, source: Option<usize>) -> Result<u64, NotIssued> {
        let failed =
            |error: io::Error| NotIssued { errno: Errno::from_io_error(&error).unwrap_or(Errno::IO), called: false };
        if self.target.0 != target {
            self.submit().map_err(failed)?;
            self.target = (target, target.into());
        }
        self.push_attempt(token, source).map_err(failed)?;
        let issued = monotonic_ns();
        if !self.together {
            self.submit().map_err(failed)?;
        }
        Ok(issued)
    }

    fn wait(&mut self, until: Option<u64>) -> io::Result<()> {
        let now = monotonic_ns();
        let told = std::mem::take(&mut self.stopped) || !self.untold.is_empty() || !self.ring.completion().is_empty();
        if told || until.is_some_and(|until| until <= now) {
            let submission = self.ring.submission();
            let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
            drop(submission);
            if idle {
                // Nothing to be had from the kernel: the worker is looking at the clock.
                std::hint::spin_loop();
                return Ok(());
            }
            return self.submit();
        }
        let Some(until) = until else { return settle(self.ring.submit_and_wait(1)) };
        let left = Timespec::from(Duration::from_nanos(until - now));
        settle(self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&left)))
    }

    fn next(&mut self) -> Option<(Token, Seen)> {
        self.untold.pop_front().or_else(|| self.next_completed())
    }

    fn look_again(&mut self, token: Token) -> Option<Seen> {
        // A call carries every chain one request on.
        for _ in 0..=self.plan.options.len() + 6 {
            if !self.ring.submission().taskrun() {
                break;
            }
            self.submit().ok()?;
        }
        self.take_in();
        let at = self.untold.iter().position(|(of, _)| *of == token)?;
        self.untold.remove(at).map(|(_, seen)| seen)
    }

    fn ties(&self) -> bool {
        self.ties
    }

    fn is_tied(&self, token: Token) -> bool {
        self.slots.get(token.index()).is_some_and(|slot| slot.token == token && slot.tie == Tie::Bound)
    }

    fn untie(&mut self, token: Token) {
        self.cut(token);
    }

    fn with_socket<T>(&mut self, token: Token, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        if self.slots[token.index()].tie == Tie::Done {
            return None;
        }
        let socket = self.install(token)?;
        Some(ask(socket.as_fd()))
    }

    fn watch_end(&mut self, token: Token) {
        let slot = &mut self.slots[token.index()];
        slot.wants = Wants::End;
        if slot.waiting == 0 {
            self.read_on(token);
        }
    }

    fn shut(&mut self, token: Token) {
        if self.room_for(1).is_ok() {
            let shut = opcode::Shutdown::new(Fixed(token.slot), libc::SHUT_WR).build();
            self.push(&shut.user_data(Step::End.user_data(token)).flags(Flags::SKIP_SUCCESS));
        }
        self.watch_end(token);
    }

    fn close(&mut self, token: Token, fit: bool) {
        let index = token.index();
        self.settle_tie(token);
        let Slot { waiting, open, wants, tie, .. } = self.slots[index];
        self.slots[index].token = Token::NONE;
        if !open || (tie == Tie::Done && fit) || self.room_for(2).is_err() {
            return;
        }
        let (file, end) = (Fixed(token.slot), Step::End.user_data(token));
        if waiting > 0 {
            // A request holds its file: without its end the socket would outlive the close. Not linked to what follows: the
            // second of two linked requests is carried out after everything that is submitted with them, and would close
            // what the slot's next attempt has opened by then. Each by itself, they are carried out in this order.
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(file).all()).build();
            self.push(&cancel.user_data(end).flags(Flags::SKIP_SUCCESS));
        }
        // While a chain is under way, its rest might find the socket's next life.
        let chain_is_over = waiting == 0 || wants == Wants::End;
        if fit && chain_is_over && self.plan.opts.sockets == Sockets::Reused {
            self.push(&self.end(file).user_data(end).flags(Flags::SKIP_SUCCESS));
            return;
        }
        self.slots[index].open = false;
        self.push(&opcode::Close::new(file).build().user_data(end).flags(Flags::SKIP_SUCCESS));
    }

    fn finish(&mut self) -> io::Result<()> {
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            if self.slots[slot as usize].open {
                self.room_for(1)?;
                self.slots[slot as usize].open = false;
                let close = opcode::Close::new(Fixed(slot)).build();
                self.push(&close.user_data(Step::End.user_data(Token::NONE)).flags(Flags::SKIP_SUCCESS));
            }
        }
        self.submit()?;
        let until = monotonic_ns() + PATIENCE_NS;
        while self.outstanding > 0 && monotonic_ns() < until {
            self.wait(Some(until))?;
            while self.next().is_some() {}
        }
        // Files that were closed last are put at the return from a system call.
        self.submit()
    }
}

impl Drop for Uring {
    /// Where the kernel did not let go of the receives in time, it gets to keep what they write to.
    fn drop(&mut self) {
        if self.outstanding > 0 {
            Box::leak(std::mem::take(&mut self.pieces));
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("ring", &self.ring.as_raw_fd())
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
