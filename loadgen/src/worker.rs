//! One worker: issues its arrivals at their planned instants, and takes every attempt to its verdict.
//!
//! Open loop: an arrival is never delayed because the server is slow, and never dropped silently. One that comes
//! late (the machine was busy) is issued at once and its lag recorded; one beyond `max-in-flight` is shed, and
//! counted as such.
//!
//! Pacing: the engine sleeps until a little before the next planned instant ([`crate::pacer`]), by timers or with a timer
//! slack of 1 ns, and the rest is spent looking at the clock, while events are handled. Before it sleeps it is told when it
//! will sleep until after that.

mod attempts;
mod ends;
mod resent;
mod upcoming;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use kernel::process::monotonic_ns;
use telemetry::Stop;

use crate::attempt::{self, Attempt, Stage};
use crate::counts::Counts;
use crate::opts::{ArrivalKind, Confirm};
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::reactor::{Reactor, Seen, Token};
use crate::sources::Sources;
use crate::target::Aim;
use crate::verdict::Verdict;
use attempts::{Attempts, Queue};
use resent::Resent;
use upcoming::Upcoming;

/// Arrivals issued in a row before events are looked at again.
const ISSUE_AT_ONCE: usize = 64;

/// What a worker may have open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Sockets, those of kept connections included.
    pub(crate) open: usize,
    /// Connections kept, at most.
    pub(crate) keep: Option<usize>,
}

/// One worker, moved into its thread.
pub(crate) struct Worker<R, I: Iterator<Item = u64>> {
    plan: Arc<Plan>,
    aim: Aim,
    sources: Sources,
    /// Planned instants, ns from the start, that are this worker's.
    arrivals: Upcoming<I>,
    origin: u64,
    share: Share,
    stop: Stop,
    reactor: R,
    attempts: Attempts,
    /// Attempts without a verdict, by deadline.
    deadlines: Queue,
    /// Attempts whose connection ends by itself, by when that is prevented.
    quick: Queue,
    /// Connections held, by their end.
    held: Queue,
    /// Connections whose other side has not closed yet, by when that is not waited for any longer.
    ending: Queue,
    pacer: Pacer,
    /// No SYN is sent again sooner, ns.
    tick: u64,
    resent: Resent,
}

impl<R: Reactor, I: Iterator<Item = u64>> Worker<R, I> {
    /// A worker whose sockets `reactor` drives.
    pub(crate) fn new(
        plan: Arc<Plan>,
        aim: Aim,
        sources: Sources,
        arrivals: I,
        share: Share,
        (stop, reactor): (Stop, R),
    ) -> Self {
        Self {
            pacer: Pacer::new(plan.opts.spin),
            plan,
            aim,
            sources,
            arrivals: Upcoming::of(arrivals),
            origin: 0,
            share,
            stop,
            reactor,
            attempts: Attempts::default(),
            deadlines: Queue::default(),
            quick: Queue::default(),
            held: Queue::default(),
            ending: Queue::default(),
            tick: kernel::process::tick_ns(),
            resent: Resent::default(),
        }
    }

    /// Runs from `origin` (monotonic ns) until every arrival is issued, every attempt has its verdict and every socket is
    /// closed. Told to stop, it issues no more, finishes what has no verdict and closes what is held.
    pub(crate) fn run(mut self, origin: u64, counts: &Counts) -> io::Result<()> {
        kernel::process::set_timer_slack_min();
        self.reactor.enter()?;
        if self.reactor.ties() {
            self.resent.begin();
        }
        self.origin = origin;
        loop {
            let next = self.issue_due(counts);
            let now = monotonic_ns();
            self.expire(now, counts);
            counts.effort.note(now.saturating_sub(origin));
            if next.is_none() {
                self.let_go(now, counts);
                if self.attempts.len() == 0 {
                    counts.effort.settle(now.saturating_sub(origin));
                    return self.reactor.finish();
                }
            }
            let now = monotonic_ns();
            let arrival = next.map(|planned| self.pacer.wake_for(planned, now));
            let wake = self.wake(next, arrival);
            if let (Some(arrival), true) = (arrival, arrival == wake) {
                self.foresee(now, arrival);
            }
            self.reactor.wait(wake)?;
            self.resent.expire();
            let mut happened = false;
            while let Some((token, seen)) = self.reactor.next() {
                happened = true;
                self.advance(token, seen, counts);
            }
            if let Some(wake) = wake
                && wake > now
                && !happened
            {
                self.pacer.woke(now, wake, monotonic_ns());
            }
        }
    }

    /// Issues what is due, and returns the instant of the next arrival (ns), if any.
    fn issue_due(&mut self, counts: &Counts) -> Option<u64> {
        let until = self.plan.planned_until().unwrap_or(u64::MAX);
        if matches!(self.plan.opts.arrivals, ArrivalKind::Closed(_)) {
            return self.issue_free(until, counts);
        }
        for _ in 0..ISSUE_AT_ONCE {
            if self.stop.is_requested() {
                return None;
            }
            let offset = self.arrivals.next()?;
            if offset >= until {
                return None;
            }
            let planned = self.origin + offset;
            if monotonic_ns() < planned {
                return Some(planned);
            }
            self.arrivals.advance();
            let phase = u8::from(offset >= self.plan.opts.warm_up.as_ns());
            self.issue(Some(planned), phase, counts);
        }
        Some(0)
    }

    /// In a closed loop: issues as many as may be in flight, and returns the instant of the end (ns), unless it has come.
    /// Each is planned for when it is issued.
    fn issue_free(&mut self, until: u64, counts: &Counts) -> Option<u64> {
        let end = self.origin.saturating_add(until);
        let mut now = monotonic_ns();
        for _ in 0..ISSUE_AT_ONCE {
            if self.stop.is_requested() || now >= end {
                return None;
            }
            if now < self.origin {
                return Some(self.origin);
            }
            if self.attempts.len() >= self.share.open {
                return Some(end);
            }
            let phase = u8::from(now - self.origin >= self.plan.opts.warm_up.as_ns());
            now = self.issue(None, phase, counts).unwrap_or_else(monotonic_ns);
        }
        Some(0)
    }

    /// Issues an arrival that was planned for this instant, or for when it is issued. Returns when that was.
    fn issue(&mut self, planned: Option<u64>, phase: u8, counts: &Counts) -> Option<u64> {
        let tally = &counts.phases[usize::from(phase)];
        tally.planned.add(1);
        if self.attempts.len() >= self.share.open {
            tally.conclude(Verdict::Shed);
            return None;
        }
        let token = self.attempts.reserve();
        match self.reactor.open(token, self.aim.address(), self.sources.next()) {
            Ok(issued) => {
                let planned = planned.unwrap_or(issued);
                tally.lag.record(issued.saturating_sub(planned));
                tally.issued.add(1);
                counts.connecting.add(1);
                self.attempts.put(token, Attempt { stage: Stage::Connecting, phase, planned, issued, established: 0 });
                self.deadlines.push(issued.saturating_add(self.plan.opts.deadline.as_ns()), token);
                if self.reactor.is_tied(token) {
                    self.quick.push(issued + self.tick * 3 / 4, token);
                }
                Some(issued)
            }
            Err(failed) => {
                self.attempts.release(token);
                if failed.called {
                    let lag = planned.map_or(0, |planned| monotonic_ns().saturating_sub(planned));
                    tally.lag.record(lag);
                    tally.issued.add(1);
                    tally.before_syn.add(1);
                }
                tally.fail(attempt::verdict_of(failed.errno), failed.errno);
                None
            }
        }
    }

    /// Moves an attempt on by what happened to it.
    fn advance(&mut self, token: Token, seen: Seen, counts: &Counts) {
        let Some(&attempt) = self.attempts.get(token) else { return };
        let tally = counts.of(&attempt);
        match (attempt.stage, seen) {
            (Stage::Connecting, Seen::NoSocket(errno)) => {
                tally.before_syn.add(1);
                self.fail(token, errno, counts);
            }
            (Stage::Connecting, Seen::Failed(errno)) => {
                if attempt::verdict_of(errno) == Verdict::Reset {
                    tally.reset_at_connect.add(1);
                }
                if attempt::may_be_local(errno) && self.ask(token, attempt::sent_nothing) == Some(true) {
                    tally.before_syn.add(1);
                }
                self.fail(token, errno, counts);
            }
            (Stage::Connecting, Seen::Connected) => self.connected(token, counts),
            (Stage::Connecting, seen) => {
                self.connected(token, counts);
                self.advance(token, seen, counts);
            }
            (Stage::Confirming, Seen::Answered) => {
                let now = monotonic_ns();
                tally.confirm_latency.record(now.saturating_sub(attempt.planned));
                tally.confirm_service.record(now.saturating_sub(attempt.issued));
                self.conclude(token, Verdict::Served, counts);
            }
            (Stage::Confirming, Seen::WrongAnswer) => self.conclude(token, Verdict::Unexpected, counts),
            (Stage::Confirming, Seen::Ended) => {
                tally.closed_without_byte.add(1);
                self.conclude(token, Verdict::Unserved, counts);
            }
            (_, Seen::Connected) => {}
            (Stage::Confirming, Seen::Failed(errno) | Seen::NoSocket(errno)) => self.fail(token, errno, counts),
            (Stage::Holding, _) => {
                tally.held_lost.add(1);
                self.close(token, false, counts);
            }
            (Stage::Closing, _) => self.close(token, false, counts),
        }
    }

    /// Asks the attempt's socket.
    fn ask<T>(&mut self, token: Token, question: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        let answer = self.reactor.with_socket(token, question);
        if answer.is_some() {
            // What asking has brought in meanwhile is later than the last reading.
            self.resent.expire();
        }
        answer
    }

    /// The handshake is over.
    fn connected(&mut self, token: Token, counts: &Counts) {
        if self.plan.self_connect_possible && self.ask(token, attempt::is_self_connected) == Some(true) {
            return self.conclude(token, Verdict::SelfConnect, counts);
        }
        let now = monotonic_ns();
        let Some(attempt) = self.attempts.get_mut(token) else { return };
        attempt.established = now;
        let attempt = *attempt;
        self.stage(token, Stage::Confirming, counts);
        let service = now.saturating_sub(attempt.issued);
        // Nothing is sent again within a tick, and asking costs a system call.
        let retransmits = if service < self.tick {
            Some(0)
        } else {
            let asked = self.ask(token, attempt::syn_retransmits);
            asked.or_else(|| self.resent.nothing_since(attempt.issued).then_some(0))
        };
        let tally = counts.of(&attempt);
        tally.connect_latency.record(now.saturating_sub(attempt.planned));
        tally.established_after(service, retransmits);
        match self.plan.opts.confirm {
            Confirm::None => self.conclude(token, Verdict::Connected, counts),
            // The client speaks right behind its last ACK.
            Confirm::Reply => tally.abrupt.add(1),
            Confirm::Greeting => {}
        }
    }

    fn stage(&mut self, token: Token, stage: Stage, counts: &Counts) {
        if let Some(attempt) = self.attempts.get_mut(token) {
            counts.at(attempt.stage).sub(1);
            counts.at(stage).add(1);
            attempt.stage = stage;
        }
    }

    /// Ends attempts whose deadline has passed, and connections that were held or have been ending long enough.
    fn expire(&mut self, now: u64, counts: &Counts) {
        let at = |attempts: &Attempts, token, stages: [Stage; 2]| {
            attempts.get(token).is_some_and(|attempt| stages.contains(&attempt.stage))
        };
        while let Some(token) = self.quick.due(now, |token| at(&self.attempts, token, [Stage::Connecting; 2])) {
            self.reactor.untie(token);
        }
        let undecided = [Stage::Connecting, Stage::Confirming];
        while let Some(token) = self.deadlines.due(now, |token| at(&self.attempts, token, undecided)) {
            self.decide(token, counts);
        }
        while let Some(token) = self.held.due(now, |token| at(&self.attempts, token, [Stage::Holding; 2])) {
            self.end(token, counts);
        }
        while let Some(token) = self.ending.due(now, |token| at(&self.attempts, token, [Stage::Closing; 2])) {
            self.close(token, false, counts);
        }
    }

    /// An attempt's deadline has passed. The engine is asked once more: what the kernel finished in time and this loop did
    /// not see yet is not called timed out.
    fn decide(&mut self, token: Token, counts: &Counts) {
        self.resent.expire();
        while let Some(seen) = self.reactor.look_again(token) {
            self.advance(token, seen, counts);
        }
        let stage = self.attempts.get(token).map(|attempt| attempt.stage);
        if stage == Some(Stage::Connecting) {
            if self.ask(token, attempt::is_established) != Some(true) {
                return self.conclude(token, Verdict::TimedOut, counts);
            }
            self.connected(token, counts);
        }
        if self.attempts.get(token).is_some_and(|attempt| attempt.stage == Stage::Confirming) {
            self.conclude(token, Verdict::Unserved, counts);
        }
    }

    /// No arrival is to come: what would be kept for ever is kept until the load ends, for other workers may have arrivals
    /// still, and nothing is once a stop was asked for.
    fn let_go(&mut self, now: u64, counts: &Counts) {
        let over = self.plan.opts.hold.is_zero() && now >= self.kept_until();
        let until = if over || self.stop.is_requested() { u64::MAX } else { now };
        while let Some(token) = self.held.due(until, |token| self.attempts.get(token).is_some()) {
            self.end(token, counts);
        }
    }

    /// When the load ends (ns). One without an end does so with its last arrival.
    fn kept_until(&self) -> u64 {
        self.plan.planned_until().map_or(0, |until| self.origin.saturating_add(until))
    }

    /// When to wake up though nothing happens: at `arrival`, just before the next one, or when somebody's time has come.
    fn wake(&self, next: Option<u64>, arrival: Option<u64>) -> Option<u64> {
        let kept = next.is_none() && self.plan.opts.hold.is_zero() && self.held.first().is_some();
        let load = kept.then(|| self.kept_until());
        let queues = [&self.quick, &self.deadlines, &self.held, &self.ending].map(Queue::first);
        queues.into_iter().chain([arrival, load]).flatten().min()
    }

    /// Tells the engine of the wake-up for the arrival after the next one, before it sleeps until `wake` for the next one.
    fn foresee(&mut self, now: u64, wake: u64) {
        if let (Some(next), Some(then)) = (self.arrivals.next(), self.arrivals.then())
            && wake > now
        {
            let planned = [self.arrivals.before(), next, then].map(|offset| self.origin.saturating_add(offset));
            if let Some(then) = self.pacer.foresee((now, wake), planned) {
                self.reactor.foresee(then);
            }
        }
    }
}
