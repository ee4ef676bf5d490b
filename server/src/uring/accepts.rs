//! The accepts of a loop: when they are submitted, what becomes of their results, and how connections that were taken are
//! dealt with.
//!
//! Whether the acceptor was busy until a connection came matters to its service time. That somebody waited in the queue
//! when an accept was submitted does not say so: another acceptor of the same listener may be faster. It was idle when it
//! began to wait with nothing taken, after the accepts that complete at once have completed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kernel::process::monotonic_ns;
use rustix::io::Errno;

use super::{Loop, Shots, requests, settle};
use crate::acceptor::{Accepted, Acceptor, RESOURCE_PAUSE};
use crate::service::sleep_until;

/// How often an acceptor looks whether what it cancelled has ended.
const LOOK_NS: u64 = 10_000_000;

/// How often a stalled acceptor counts what multishot accepts have taken meanwhile.
const COUNT_NS: u64 = 5_000_000;

/// What the loop knows of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// No accept is in flight.
    Idle,
    /// One is.
    Armed,
    /// Descriptors or memory had run out: left alone until this instant (monotonic ns).
    Shut { until: u64 },
}

impl Door {
    /// Is it time for an accept?
    fn is_due(self, now: u64) -> bool {
        match self {
            Self::Idle => true,
            Self::Armed => false,
            Self::Shut { until } => now >= until,
        }
    }
}

impl Loop {
    /// Submits accepts where none is in flight and the door is not shut.
    pub(super) fn arm(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
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
            acceptor.sample(index);
            let accept = requests::accept(self.shots, acceptor.listeners[index].as_fd(), index as u64);
            self.push(acceptor, &accept)?;
            self.doors[index] = Door::Armed;
        }
        Ok(())
    }

    /// Waits for whatever comes next, and notes whether there was nobody to serve until then.
    pub(super) fn wait_for_anybody(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        // Without a service time nobody asks; a multishot accept is refused one.
        if !acceptor.is_instant() && self.taken.is_empty() {
            // With IORING_ENTER_GETEVENTS: what completed meanwhile is told only then.
            self.wait(Some(0))?;
            self.reap(acceptor)?;
            self.idle |= self.taken.is_empty();
        }
        // What was reaped since the loop was begun may have been the one poll that a stop completes: nothing else would end
        // this wait.
        if acceptor.desk.is_stopped() {
            return Ok(());
        }
        self.wait(self.next_look())
    }

    /// Cancels the accepts in flight, waits for their ends, and deals with whatever they have taken.
    pub(super) fn disarm(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
        while self.doors.contains(&Door::Armed) {
            for index in 0..self.doors.len() {
                if self.doors[index] == Door::Armed {
                    self.push(acceptor, &requests::cancel(index as u64))?;
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

    /// An accept has a result. `ended`: it will have no other.
    pub(super) fn accepted(&mut self, acceptor: &Acceptor, index: usize, result: Result<OwnedFd, Errno>, ended: bool) {
        if ended {
            self.doors[index] = Door::Idle;
        }
        let then = match result {
            Ok(socket) => return self.taken.push_back(socket),
            Err(Errno::CANCELED | Errno::INTR) => return,
            // Before Linux 5.19 and its stable fixes, O_NONBLOCK keeps an accept from waiting at an empty queue.
            Err(Errno::AGAIN) => Accepted::Exhausted,
            Err(errno) => acceptor.fail(errno),
        };
        self.failed = true;
        if matches!(then, Accepted::Exhausted) {
            let pause = u64::try_from(RESOURCE_PAUSE.as_nanos()).unwrap_or(u64::MAX);
            self.doors[index] = Door::Shut { until: monotonic_ns() + pause };
        }
    }

    /// Deals with nothing that was taken until the stall is over. Multishot accepts go on meanwhile.
    pub(super) fn sit_out_stall(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
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
    pub(super) fn take(&mut self, acceptor: &mut Acceptor) -> io::Result<()> {
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
            let Some(socket) = self.taken.pop_front() else { break };
            let back_to_back = !std::mem::take(&mut self.idle);
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
}
