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
    /// When the service of now began, and when the one before was over, as the clock said; monotonic ns.
    began: u64,
    ended: u64,
}

impl Service {
    /// A clock with its own random stream, far from the one that a load generator of the same seed draws its gaps from: in
    /// step with them, a long gap would always be followed by a long service, and queues would be half as long as they
    /// should be.
    pub(crate) fn new(delay: AcceptDelay, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        random.long_jump();
        Self { delay, random, free_at: 0, began: 0, ended: 0 }
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
            AcceptDelay::Exponential(mean) | AcceptDelay::SpinExponential(mean) => {
                exponential(&mut self.random, mean.as_ns())
            }
        };
        let now = monotonic_ns();
        // 0: there was none before.
        self.began = if back_to_back && self.ended > 0 { self.ended } else { now };
        let end = planned_end(self.free_at, now, length, back_to_back);
        self.free_at = end;
        if matches!(self.delay, AcceptDelay::Spin(_) | AcceptDelay::SpinExponential(_)) {
            while monotonic_ns() < end {
                std::hint::spin_loop();
            }
        } else {
            sleep_until(end, stop);
        }
    }

    /// A stall is over: it was nobody's service, and none goes on in it.
    pub(crate) fn resume(&mut self) {
        self.ended = monotonic_ns();
        self.free_at = self.ended;
    }

    /// Ends the service of one connection, when all is done for it that is done at once, and returns how long the acceptor
    /// had no time for another, ns: from the end of the one before where this one was waiting, otherwise from its
    /// accept.
    pub(crate) fn end(&mut self) -> u64 {
        self.ended = monotonic_ns();
        self.ended.saturating_sub(self.began)
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
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

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
    fn what_was_spent_is_what_the_clock_says_not_what_was_planned() {
        let (stop, _other) = UnixStream::pair().unwrap();
        let mut service = Service::new("spin:2ms".parse().unwrap(), 1);
        service.spend(false, stop.as_fd());
        std::thread::sleep(Duration::from_millis(3));
        let first = service.end();
        assert!(first >= 5_000_000, "the greeting belongs to it: {first}");
        let between = monotonic_ns();
        std::thread::sleep(Duration::from_millis(3));
        service.spend(true, stop.as_fd());
        let second = service.end();
        assert!(
            second >= 3_000_000 && second <= monotonic_ns() - between + 100_000_000,
            "one after the other: {second}"
        );
        std::thread::sleep(Duration::from_millis(200));
        service.spend(false, stop.as_fd());
        let third = service.end();
        assert!((2_000_000..200_000_000).contains(&third), "idle before it: {third}");
        std::thread::sleep(Duration::from_millis(200));
        service.resume();
        service.spend(true, stop.as_fd());
        let fourth = service.end();
        assert!((2_000_000..200_000_000).contains(&fourth), "a stall before it: {fourth}");
    }

    #[test]
    fn the_first_connection_waited_for_nobody() {
        let (stop, _other) = UnixStream::pair().unwrap();
        let mut service = Service::new("spin:1ms".parse().unwrap(), 1);
        let before = monotonic_ns();
        service.spend(true, stop.as_fd());
        let first = service.end();
        assert!(first >= 1_000_000 && first <= monotonic_ns() - before, "{first}");
    }

    #[test]
    fn service_times_are_not_in_step_with_the_gaps_of_a_generator_of_the_same_seed() {
        let mut gaps = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut service = Service::new("exp:1ms".parse().unwrap(), 1);
        let pairs =
            (0..10_000).map(|_| (exponential(&mut gaps, 1_000_000), exponential(&mut service.random, 1_000_000)));
        let product = pairs.map(|(gap, time)| (gap as f64 / 1e6 - 1.0) * (time as f64 / 1e6 - 1.0)).sum::<f64>() / 1e4;
        assert!(product.abs() < 0.05, "correlation {product}, standard deviation 0.01 for independent ones");
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
