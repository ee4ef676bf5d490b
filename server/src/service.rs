//! Service time: what makes the acceptor the bottleneck, on purpose and to the microsecond.
//!
//! A sleep of 500 µs takes 530, because the wake-up is late. While the acceptor is busy without a pause, each
//! completion is therefore planned from the *planned* end of the one before, so lateness does not add up and
//! the rate of a backlogged acceptor is 1 / mean service time.

use std::time::Duration;

use kernel::process::monotonic_ns;
use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;

use crate::opts::AcceptDelay;

/// The service clock of one acceptor.
#[derive(Debug)]
pub(crate) struct Service {
    delay: AcceptDelay,
    random: Xoshiro256PlusPlus,
    /// Planned end of the service before, monotonic ns.
    free_at: u64,
}

impl Service {
    /// A clock with its own random stream.
    pub(crate) fn new(delay: AcceptDelay, seed: u64) -> Self {
        Self { delay, random: Xoshiro256PlusPlus::seed_from_u64(seed), free_at: 0 }
    }

    /// Is there any service time?
    pub(crate) fn is_instant(&self) -> bool {
        self.delay == AcceptDelay::None
    }

    /// Spends the service time of one connection. `back_to_back` says that the acceptor found this
    /// connection waiting when it finished the one before. Returns early when `stop` becomes readable.
    pub(crate) fn spend(&mut self, back_to_back: bool, stop: BorrowedFd<'_>) {
        let length = match self.delay {
            AcceptDelay::None => return,
            AcceptDelay::Sleep(time) | AcceptDelay::Spin(time) => time.as_ns(),
            AcceptDelay::Exponential(mean) => exponential(&mut self.random, mean.as_ns()),
        };
        let end = planned_end(self.free_at, monotonic_ns(), length, back_to_back);
        self.free_at = end;
        if matches!(self.delay, AcceptDelay::Spin(_)) {
            while monotonic_ns() < end {
                std::hint::spin_loop();
            }
        } else {
            sleep_until(end, stop);
        }
    }
}

/// When a service that takes `length` ends, all in ns. A machine stall longer than one service time is not
/// made up for by a burst of instant services.
fn planned_end(free_at: u64, now: u64, length: u64, back_to_back: bool) -> u64 {
    let start = if back_to_back && now.saturating_sub(free_at) <= length { free_at } else { now };
    start + length
}

fn exponential(random: &mut Xoshiro256PlusPlus, mean_ns: u64) -> u64 {
    let uniform = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= -ln(1-u) * mean < 37 * mean")]
    let ns = (-(1.0 - uniform).ln() * mean_ns as f64) as u64;
    ns
}

/// Sleeps until the monotonic instant `end` (ns) or until `stop` is readable: true then.
pub(crate) fn sleep_until(end: u64, stop: BorrowedFd<'_>) -> bool {
    loop {
        let now = monotonic_ns();
        if now >= end {
            return false;
        }
        if wait_readable(stop, Duration::from_nanos(end - now)) {
            return true;
        }
    }
}

/// Waits at most `time`; true when `fd` became readable.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, time: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let time = Timespec::try_from(time).ok();
    poll(&mut fds, time.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_does_not_add_up_while_busy() {
        // The service before was planned to end at 1000; its wake-up came 30 late.
        assert_eq!(planned_end(1000, 1030, 500, true), 1500);
        assert_eq!(planned_end(1000, 1030, 500, false), 1530);
    }

    #[test]
    fn a_stall_is_not_made_up_for() {
        assert_eq!(planned_end(1000, 9000, 500, true), 9500);
    }

    #[test]
    fn exponential_times_have_the_asked_mean_and_spread() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|_| exponential(&mut random, 1_000_000) as f64).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((var.sqrt() / 1e6 - 1.0).abs() < 0.03, "sd {}", var.sqrt());
    }
}
