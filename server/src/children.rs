//! A child process per accepted connection (`handler fork`): the classic concurrent server, where the acceptor forks,
//! closes its copy of the connection and goes on accepting, and the child serves and exits.
//!
//! The acceptor has one thread, so forking it is safe, and it alone writes its tally: what a child did comes back in its
//! exit code ([`Told`]). What does not fit there is lost: the wait by time stamp of the client's first bytes. Ended
//! children are looked for whenever something happens, and every [`LOOK`] when nothing does; no signal is involved, so
//! none can be missed. Source: fork(2), waitpid(2), `PR_SET_PDEATHSIG` in prctl(2).

use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kernel::fork::{Child, Forked, OneThread, alone};
use kernel::process::{self, ExitSummary, Signal, monotonic_ns};
use kernel::shared::zeroed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::{Connection, End, Fate, Manners};
use crate::tally::{Desk, Tally};

/// How long an ended child may stay a zombie when nothing else happens.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// How often an acceptor that only waits for its children looks whether it must end at once.
const LOOK_TO_END: Duration = Duration::from_millis(10);

/// How long children that must end at once may take: they look every 10 ms.
const END_NS: u64 = 200_000_000;

/// Descriptors an acceptor keeps for other things than its children.
const SPARE_DESCRIPTORS: u64 = 16;

/// The children of one acceptor.
#[derive(Debug)]
pub(crate) struct Children {
    most: usize,
    running: Vec<Child>,
    /// Never written here: each child counts in its copy.
    blank: Box<Tally>,
    /// Did the last fork fail?
    failing: bool,
}

impl Children {
    /// Nobody yet; `most` at a time, or what descriptors allow.
    pub(crate) fn new(most: NonZeroU32) -> Self {
        let most = usize::try_from(most.get()).unwrap_or(usize::MAX).min(affordable());
        Self { most, running: Vec::new(), blank: zeroed(), failing: false }
    }

    /// Has a child deal with a connection that was accepted at `accepted` (`CLOCK_REALTIME`, ns). False when it cannot be
    /// forked: the connection is closed.
    pub(crate) fn serve(
        &mut self,
        connection: OwnedFd,
        manners: Manners,
        accepted: u64,
        desk: &Desk,
        stop: BorrowedFd<'_>,
    ) -> bool {
        let acceptor = std::process::id();
        match OneThread::check().and_then(|one| one.fork()) {
            Ok(Forked::Child) => alone(connection, &[stop], |connection| {
                if process::die_with_parent(Some(acceptor)).is_err() {
                    return Told::of(End::Error, &self.blank).code();
                }
                let end = match Connection::begin(connection, manners, accepted, &self.blank) {
                    Fate::Over(end) => end,
                    Fate::Open(connection) => connection.serve_to_the_end(desk, &self.blank, stop),
                };
                Told::of(end, &self.blank).code()
            }),
            Ok(Forked::Parent(child)) => {
                desk.tally.forks.add(1);
                self.running.push(child);
                self.failing = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "handler fork: no child for a connection");
                }
                false
            }
        }
    }

    /// Counts what those did that have ended.
    pub(crate) fn reap(&mut self, tally: &Tally) {
        while !self.running.is_empty()
            && let Ok(Some((pid, ended))) = process::reap_any()
        {
            let Some(index) = self.running.iter().position(|child| i64::from(child.id()) == i64::from(pid)) else {
                continue;
            };
            drop(self.running.swap_remove(index));
            Told::by(ended).count(tally);
        }
    }

    /// Are there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits until there is room for one more; false when `stop` became readable before.
    pub(crate) fn make_room(&mut self, tally: &Tally, stop: BorrowedFd<'_>) -> bool {
        loop {
            self.reap(tally);
            if self.running.len() < self.most {
                return true;
            }
            if self.wait(Some(stop), None) {
                return false;
            }
        }
    }

    /// Waits until all have ended. Once the acceptor must end at once they do so themselves, or are killed.
    pub(crate) fn see_out(&mut self, desk: &Desk) {
        let mut kill_at = None;
        loop {
            self.reap(&desk.tally);
            if self.running.is_empty() {
                return;
            }
            if desk.must_end() && monotonic_ns() >= *kill_at.get_or_insert_with(|| monotonic_ns() + END_NS) {
                for child in &self.running {
                    // ESRCH: it has ended.
                    let _ = child.signal(Signal::KILL);
                }
            }
            self.wait(None, Some(LOOK_TO_END));
        }
    }

    /// Waits until one has ended or `stop` is readable: true then.
    fn wait(&self, stop: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> bool {
        let stop = stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN));
        let ends = self.running.iter().map(|child| PollFd::from_borrowed_fd(child.as_fd(), PollFlags::IN));
        let stops = usize::from(stop.is_some());
        let mut fds: Vec<_> = stop.into_iter().chain(ends).collect();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // EINTR: the caller looks again.
        poll(&mut fds, limit.as_ref()).is_ok() && fds[..stops].iter().any(|stop| !stop.revents().is_empty())
    }
}

/// How many children there are descriptors for: one each.
fn affordable() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = process::open_fds().unwrap_or(0);
    usize::try_from(limit.saturating_sub(open + SPARE_DESCRIPTORS)).unwrap_or(usize::MAX).max(1)
}

/// What a child says of its connection when it exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    end: End,
    greeted: bool,
    replied: bool,
}

impl Told {
    /// Marks the code of a child that came to its end; a panic, for one, has another.
    const MARK: u8 = 0x80;
    const END: u8 = 0x07;
    const GREETED: u8 = 0x08;
    const REPLIED: u8 = 0x10;

    fn of(end: End, tally: &Tally) -> Self {
        Self { end, greeted: tally.greetings.get() > 0, replied: tally.replies.get() > 0 }
    }

    fn code(self) -> u8 {
        let flag = |set, flag| if set { flag } else { 0 };
        Self::MARK | self.end as u8 | flag(self.greeted, Self::GREETED) | flag(self.replied, Self::REPLIED)
    }

    /// What the way a child ended says.
    fn by(ended: ExitSummary) -> Self {
        let failed = |end| Self { end, greeted: false, replied: false };
        match ended {
            ExitSummary::Signal(_) => failed(End::Killed),
            ExitSummary::Code(code) => Self::from_code(code).unwrap_or(failed(End::Error)),
        }
    }

    fn from_code(code: i32) -> Option<Self> {
        let code = u8::try_from(code).ok().filter(|code| code & Self::MARK != 0)?;
        let end = *End::ALL.get(usize::from(code & Self::END))?;
        Some(Self { end, greeted: code & Self::GREETED != 0, replied: code & Self::REPLIED != 0 })
    }

    fn count(self, tally: &Tally) {
        tally.greetings.add(u64::from(self.greeted));
        tally.replies.add(u64::from(self.replied));
        tally.close(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says_survives_its_exit_code() {
        for end in End::ALL {
            for (greeted, replied) in [(false, false), (true, false), (false, true), (true, true)] {
                let told = Told { end, greeted, replied };
                assert_eq!(Told::by(ExitSummary::Code(i32::from(told.code()))), told);
            }
        }
    }

    #[test]
    fn a_child_that_did_not_come_to_its_end_served_nobody() {
        let failed = |end| Told { end, greeted: false, replied: false };
        for code in [0, 1, 70, 101, 0x87, -1, 256] {
            assert_eq!(Told::by(ExitSummary::Code(code)), failed(End::Error), "{code}");
        }
        assert_eq!(Told::by(ExitSummary::Signal(9)), failed(End::Killed));
    }
}
