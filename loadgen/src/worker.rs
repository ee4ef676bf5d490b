//! One worker: issues its arrivals at their planned instants, and takes every attempt to its verdict.
//!
//! Open loop: an arrival is never delayed because the server is slow, and never dropped silently. One that comes
//! late (the machine was busy) is issued at once and its lag recorded; one beyond `max-in-flight` is shed, and
//! counted as such.
//!
//! Pacing: the timer slack is set to 1 ns, `epoll_pwait2(2)` sleeps until [`SPIN`] before the next planned
//! instant, and the rest is spent polling, so that events are handled meanwhile.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use kernel::process::monotonic_ns;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use telemetry::Stop;
use telemetry::counter::Counter;

use crate::attempt::{self, Attempt, Read, Stage};
use crate::effort::Effort;
use crate::opts::{ArrivalKind, Confirm};
use crate::plan::Plan;
use crate::sources::Sources;
use crate::tally::{RETRANSMIT_CLASSES, Tally};
use crate::target::Aim;
use crate::verdict::Verdict;

/// A wake-up from idle takes 25-35 µs: sleep until this long before the planned instant, then poll.
const SPIN_NS: u64 = 25_000;

/// A client that sends anything this soon after its last ACK may have the two handled on two CPUs.
const ABRUPT_NS: u64 = 10_000_000;

/// Arrivals issued in a row before events are looked at again.
const ISSUE_AT_ONCE: usize = 64;

/// Events taken per wait.
const EVENTS: usize = 256;

/// The event loop's token of the stop eventfd.
const STOP: u64 = u64::MAX;

kernel::shareable! {
/// What one worker counts, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counts {
    /// Warm-up, measured.
    pub(crate) phases: [Tally; 2],
    pub(crate) connecting: Counter,
    pub(crate) confirming: Counter,
    pub(crate) effort: Effort,
}
}

/// One worker, moved into its thread.
pub(crate) struct Worker<I: Iterator<Item = u64>> {
    plan: Arc<Plan>,
    counts: Arc<Counts>,
    aim: Aim,
    sources: Sources,
    /// Planned instants, ns from the start, that are this worker's.
    arrivals: Peekable<I>,
    origin: u64,
    share: usize,
    stop: Stop,
    epoll: OwnedFd,
    stop_fd: OwnedFd,
    slots: Vec<Option<Attempt>>,
    /// How often a slot was used: tells an event of an attempt that is gone from one of its successor.
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Deadlines in the order of issue, which is their order in time.
    deadlines: VecDeque<(u64, u64)>,
}

impl<I: Iterator<Item = u64>> Worker<I> {
    /// A worker that may have `share` attempts in flight.
    pub(crate) fn new(
        plan: Arc<Plan>,
        counts: Arc<Counts>,
        aim: Aim,
        sources: Sources,
        arrivals: I,
        share: usize,
        stop: Stop,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop_fd = stop.eventfd()?;
        epoll::add(&epoll, &stop_fd, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self {
            plan,
            counts,
            aim,
            sources,
            arrivals: arrivals.peekable(),
            origin: 0,
            share,
            stop,
            epoll,
            stop_fd,
            slots: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            deadlines: VecDeque::new(),
        })
    }

    /// Runs from `origin` (monotonic ns) until every arrival is issued and every attempt has its verdict. Told to
    /// stop, it issues no more and finishes what is in flight.
    pub(crate) fn run(mut self, origin: u64) -> io::Result<()> {
        kernel::process::set_timer_slack_min();
        self.origin = origin;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let next = self.issue_due();
            let now = monotonic_ns();
            self.expire(now);
            self.counts.effort.note(now.saturating_sub(origin));
            if next.is_none() && self.in_flight() == 0 {
                self.counts.effort.settle(now.saturating_sub(origin));
                return Ok(());
            }
            let timeout = self.timeout(next, monotonic_ns());
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                let token = event.data.u64();
                if token != STOP {
                    let flags = event.flags;
                    self.handle(token, flags);
                }
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Issues what is due, and returns the instant of the next arrival (ns), if any.
    fn issue_due(&mut self) -> Option<u64> {
        let until = self.plan.planned_until().unwrap_or(u64::MAX);
        if matches!(self.plan.opts.arrivals, ArrivalKind::Closed(_)) {
            return self.issue_free(until);
        }
        for _ in 0..ISSUE_AT_ONCE {
            if self.stop.is_requested() {
                return None;
            }
            let offset = *self.arrivals.peek()?;
            if offset >= until {
                return None;
            }
            let planned = self.origin + offset;
            if monotonic_ns() < planned {
                return Some(planned);
            }
            self.arrivals.next();
            let phase = usize::from(offset >= self.plan.opts.warm_up.as_ns());
            self.issue(planned, phase);
        }
        Some(0)
    }

    /// In a closed loop: issues as many as may be in flight, and returns the instant of the end (ns), unless it has come.
    /// Each is planned for when it is issued.
    fn issue_free(&mut self, until: u64) -> Option<u64> {
        for _ in 0..ISSUE_AT_ONCE {
            let now = monotonic_ns();
            let end = self.origin.saturating_add(until);
            if self.stop.is_requested() || now >= end {
                return None;
            }
            if now < self.origin {
                return Some(self.origin);
            }
            if self.in_flight() >= self.share {
                return Some(end);
            }
            let phase = usize::from(now - self.origin >= self.plan.opts.warm_up.as_ns());
            self.issue(now, phase);
        }
        Some(0)
    }

    fn issue(&mut self, planned: u64, phase: usize) {
        let counts = Arc::clone(&self.counts);
        let tally = &counts.phases[phase];
        tally.planned.add(1);
        if self.in_flight() >= self.share {
            tally.conclude(Verdict::Shed);
            return;
        }
        let target = self.aim.address();
        let opened = attempt::open(target).and_then(|socket| self.sources.prepare(socket.as_fd()).map(|()| socket));
        let failed = match opened {
            Ok(socket) => {
                let issued = monotonic_ns();
                tally.lag.record(issued.saturating_sub(planned));
                match attempt::start(socket.as_fd(), target) {
                    Ok(()) => {
                        tally.issued.add(1);
                        return self.watch(Attempt::new(socket, planned, issued, phase));
                    }
                    Err(failed) => failed,
                }
            }
            Err(failed) => failed,
        };
        if failed.called {
            tally.issued.add(1);
            tally.before_syn.add(1);
        }
        if failed.verdict == Verdict::Other {
            tally.other(failed.errno.raw_os_error());
        }
        tally.conclude(failed.verdict);
    }

    fn watch(&mut self, attempt: Attempt) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let index = slot as usize;
        self.generations[index] = self.generations[index].wrapping_add(1);
        let token = u64::from(self.generations[index]) << 32 | u64::from(slot);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        self.deadlines.push_back((attempt.issued.saturating_add(self.plan.opts.deadline.as_ns()), token));
        let added = epoll::add(&self.epoll, &attempt, epoll::EventData::new_u64(token), flags);
        self.counts.connecting.add(1);
        self.slots[index] = Some(attempt);
        if let Err(errno) = added {
            // ENOSPC (fs.epoll.max_user_watches) or ENOMEM: nobody would ever look at this socket again.
            self.conclude(token, verdict_with_errno(Verdict::Other, errno));
        }
    }

    /// The slot of a token, unless its attempt is gone.
    fn slot(&self, token: u64) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the slot, the high half the generation")]
        let (slot, generation) = (token as u32 as usize, (token >> 32) as u32);
        (self.generations.get(slot) == Some(&generation) && self.slots[slot].is_some()).then_some(slot)
    }

    fn handle(&mut self, token: u64, flags: epoll::EventFlags) {
        let Some(slot) = self.slot(token) else { return };
        let Some(attempt) = &self.slots[slot] else { return };
        let readable = flags.contains(epoll::EventFlags::IN);
        let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        // A byte that came before a reset still counts: read first.
        let read = if readable && (self.plan.opts.confirm != Confirm::None || broken) {
            attempt.read()
        } else if broken {
            attempt.error().map_or(Read::NotYet, Read::Failed)
        } else {
            Read::NotYet
        };
        self.advance(token, slot, &read);
    }

    /// Moves an attempt on by what its socket said.
    fn advance(&mut self, token: u64, slot: usize, read: &Read) {
        let Some(attempt) = self.slots[slot].as_mut() else { return };
        let counts = Arc::clone(&self.counts);
        let tally = &counts.phases[attempt.phase];
        let connecting = attempt.stage == Stage::Connecting;
        if let Read::Failed(errno) = *read {
            let verdict = attempt::verdict_of(errno);
            if connecting && verdict == Verdict::Reset {
                tally.reset_at_connect.add(1);
            }
            return self.conclude(token, verdict_with_errno(verdict, errno));
        }
        let now = monotonic_ns();
        if connecting {
            if self.plan.self_connect_possible && attempt.is_self_connected() {
                return self.conclude(token, (Verdict::SelfConnect, None));
            }
            attempt.stage = Stage::Confirming;
            attempt.established = now;
            self.counts.connecting.sub(1);
            self.counts.confirming.add(1);
            let retransmits = attempt.syn_retransmits();
            tally.established.add(1);
            tally.retransmitted(retransmits, now.saturating_sub(attempt.issued));
            tally.connect_latency.record(now.saturating_sub(attempt.planned));
            let class = (retransmits as usize).min(RETRANSMIT_CLASSES - 1);
            tally.connect_service[class].record(now.saturating_sub(attempt.issued));
            match self.plan.opts.confirm {
                Confirm::None => return self.conclude(token, (Verdict::Connected, None)),
                Confirm::Reply => {
                    // A failure shows when the answer is read.
                    attempt.speak();
                    tally.abrupt.add(1);
                }
                Confirm::Greeting => {}
            }
        }
        match read {
            Read::Byte => {
                tally.confirm_latency.record(now.saturating_sub(attempt.planned));
                tally.confirm_service.record(now.saturating_sub(attempt.issued));
                self.conclude(token, (Verdict::Served, None));
            }
            Read::End => {
                tally.closed_without_byte.add(1);
                self.conclude(token, (Verdict::Unserved, None));
            }
            Read::NotYet | Read::Failed(_) => {}
        }
    }

    /// Ends attempts whose deadline has passed. The socket is asked once more: what the kernel finished in time
    /// and this loop did not see yet is not called timed out.
    fn expire(&mut self, now: u64) {
        while let Some(&(deadline, token)) = self.deadlines.front() {
            let Some(slot) = self.slot(token) else {
                self.deadlines.pop_front();
                continue;
            };
            if deadline > now {
                return;
            }
            self.deadlines.pop_front();
            let Some(attempt) = &self.slots[slot] else { continue };
            if attempt.stage == Stage::Confirming || attempt.is_established() {
                self.advance(token, slot, &self.slots[slot].as_ref().map_or(Read::NotYet, Attempt::read));
                self.conclude(token, (Verdict::Unserved, None));
            } else if let Some(errno) = attempt.error() {
                self.advance(token, slot, &Read::Failed(errno));
            } else {
                self.conclude(token, (Verdict::TimedOut, None));
            }
        }
    }

    /// Gives the attempt its verdict, closes its socket and frees its slot. Nothing happens when it has one.
    fn conclude(&mut self, token: u64, (verdict, errno): (Verdict, Option<Errno>)) {
        let Some(slot) = self.slot(token) else { return };
        let Some(attempt) = self.slots[slot].take() else { return };
        match attempt.stage {
            Stage::Connecting => self.counts.connecting.sub(1),
            Stage::Confirming => self.counts.confirming.sub(1),
        }
        let tally = &self.counts.phases[attempt.phase];
        tally.conclude(verdict);
        // With confirm reply its data came right behind the last ACK, which was counted then.
        if self.plan.opts.confirm != Confirm::Reply
            && matches!(verdict, Verdict::Connected | Verdict::Unserved)
            && monotonic_ns().saturating_sub(attempt.established) < ABRUPT_NS
        {
            tally.abrupt.add(1);
        }
        if let Some(errno) = errno {
            tally.other(errno.raw_os_error());
        }
        attempt.close(self.plan.opts.close);
        self.free.push(u32::try_from(slot).unwrap_or(u32::MAX));
    }

    /// How long to wait for events: until just before the next arrival, or the next deadline.
    fn timeout(&self, next: Option<u64>, now: u64) -> Option<Timespec> {
        let arrival = next.map(|planned| planned.saturating_sub(SPIN_NS));
        let deadline = self.deadlines.front().map(|(deadline, _)| *deadline);
        let wake = match (arrival, deadline) {
            (Some(a), Some(d)) => a.min(d),
            (a, d) => a.or(d)?,
        };
        let left = std::time::Duration::from_nanos(wake.saturating_sub(now));
        Timespec::try_from(left).ok()
    }
}

fn verdict_with_errno(verdict: Verdict, errno: Errno) -> (Verdict, Option<Errno>) {
    (verdict, (verdict == Verdict::Other).then_some(errno))
}

impl<I: Iterator<Item = u64>> std::fmt::Debug for Worker<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("stop_fd", &self.stop_fd)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
