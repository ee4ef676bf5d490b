//! How an attempt ends: its verdict, and what becomes of its connection.

use kernel::process::monotonic_ns;
use rustix::io::Errno;

use super::Worker;
use crate::attempt::{self, Stage};
use crate::counts::Counts;
use crate::opts::{Close, Confirm};
use crate::reactor::{Reactor, Token};
use crate::verdict::Verdict;

/// A client that sends anything this soon after its last ACK may have the two handled on two CPUs.
const ABRUPT_NS: u64 = 10_000_000;

impl<R: Reactor, I: Iterator<Item = u64>> Worker<R, I> {
    /// Gives the attempt the verdict of an error.
    pub(super) fn fail(&mut self, token: Token, errno: Errno, counts: &Counts) {
        if let Some(attempt) = self.attempts.get(token) {
            counts.of(attempt).fail(attempt::verdict_of(errno), errno);
            self.close(token, false, counts);
        }
    }

    /// Gives the attempt its verdict. Its connection is held, if it is one to be held, or ended.
    pub(super) fn conclude(&mut self, token: Token, verdict: Verdict, counts: &Counts) {
        let Some(attempt) = self.attempts.get(token) else { return };
        counts.of(attempt).conclude(verdict);
        let good = matches!(verdict, Verdict::Served | Verdict::Connected);
        if !good {
            if verdict == Verdict::Unserved {
                self.note_abrupt(token, counts);
            }
            return self.close(token, false, counts);
        }
        if !self.plan.holds() {
            return self.end(token, counts);
        }
        self.stage(token, Stage::Holding, counts);
        let hold = self.plan.opts.hold;
        let until = if hold.is_zero() { u64::MAX } else { monotonic_ns().saturating_add(hold.as_ns()) };
        self.held.push(until, token);
        self.reactor.watch_end(token);
        let holding = |token| self.attempts.get(token).is_some_and(|attempt| attempt.stage == Stage::Holding);
        if let Some(keep) = self.share.keep
            && counts.holding.get() > keep as u64
            && let Some(oldest) = self.held.due(u64::MAX, holding)
        {
            self.end(oldest, counts);
        }
    }

    /// Ends a good connection the way the plan says.
    pub(super) fn end(&mut self, token: Token, counts: &Counts) {
        if self.plan.opts.confirm == Confirm::None {
            self.note_abrupt(token, counts);
        }
        if self.plan.opts.close != Close::Shutdown {
            return self.close(token, true, counts);
        }
        self.stage(token, Stage::Closing, counts);
        self.reactor.shut(token);
        self.ending.push(monotonic_ns().saturating_add(self.plan.opts.deadline.as_ns()), token);
    }

    /// Closes the attempt's socket and frees its slot. `fit`: the socket may be connected again.
    pub(super) fn close(&mut self, token: Token, fit: bool, counts: &Counts) {
        let Some(attempt) = self.attempts.get(token) else { return };
        counts.at(attempt.stage).sub(1);
        self.reactor.close(token, fit);
        self.attempts.release(token);
    }

    /// Counts an attempt that ends its connection right after its last ACK. With confirm reply it has been counted: its data
    /// came first.
    fn note_abrupt(&self, token: Token, counts: &Counts) {
        let Some(attempt) = self.attempts.get(token) else { return };
        let at_once = match self.plan.opts.confirm {
            Confirm::Reply => false,
            // Nothing is waited for: this is the instant at which it was established.
            Confirm::None if attempt.stage == Stage::Confirming => true,
            Confirm::None | Confirm::Greeting => monotonic_ns().saturating_sub(attempt.established) < ABRUPT_NS,
        };
        if at_once {
            counts.of(attempt).abrupt.add(1);
        }
    }
}
