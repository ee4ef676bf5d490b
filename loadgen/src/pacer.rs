//! When a worker wakes up for a planned instant: a little early, so that the rest can be spent looking at the clock.
//!
//! A wake-up from idle takes 25-35 µs on the machines this was measured on, one of a busy CPU a few. Spinning the longer of
//! the two always would cost a core at high rates; not spinning at all makes every start late by it. So the lateness of
//! wake-ups is followed, and the worker wakes that much earlier, at most [`MOST`].

use crate::opts::Spin;

/// Longest time that `spin auto` spends looking at the clock, ns.
const MOST: u64 = 25_000;

/// A wake-up this late was not the timer's doing: the thread had lost its CPU. It says nothing of the next.
const STOLEN: u64 = 4 * MOST;

/// Follows how late wake-ups come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    /// How long before a planned instant to wake up, ns.
    ahead: u64,
    follows: bool,
}

impl Pacer {
    pub(crate) fn new(spin: Spin) -> Self {
        match spin {
            Spin::Auto => Self { ahead: MOST, follows: true },
            Spin::For(time) => Self { ahead: time.as_ns(), follows: false },
        }
    }

    /// When to wake up for what is planned at `planned` (monotonic ns).
    pub(crate) fn wake_for(&self, planned: u64) -> u64 {
        planned.saturating_sub(self.ahead)
    }

    /// The worker asked to be woken at `asked` and nothing else woke it before `now`, both monotonic ns.
    pub(crate) fn woke(&mut self, asked: u64, now: u64) {
        let late = now.saturating_sub(asked);
        if !self.follows || now < asked || late > STOLEN {
            return;
        }
        // A late start costs more than a spin: up at once, down by an eighth of the way.
        let late = late.min(MOST);
        self.ahead = if late > self.ahead { late } else { self.ahead - (self.ahead - late) / 8 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wakes_as_early_as_wake_ups_are_late() {
        let mut pacer = Pacer::new(Spin::Auto);
        assert_eq!(pacer.wake_for(1_000_000), 975_000);
        for _ in 0..100 {
            pacer.woke(500, 3_500);
        }
        assert!((996_000..=997_000).contains(&pacer.wake_for(1_000_000)), "{pacer:?}");
        pacer.woke(0, 20_000);
        assert_eq!(pacer.wake_for(1_000_000), 980_000);
        pacer.woke(0, 40_000);
        assert_eq!(pacer.wake_for(1_000_000), 975_000, "25 µs at most");
        pacer.woke(0, 1_000_000);
        pacer.woke(500, 400);
        assert_eq!(pacer.wake_for(1_000_000), 975_000, "neither a stolen CPU nor an early event counts");
    }

    #[test]
    fn a_fixed_time_is_kept() {
        let mut pacer = Pacer::new("off".parse().expect("a spin"));
        pacer.woke(0, 20_000);
        assert_eq!(pacer.wake_for(1_000_000), 1_000_000);
    }
}
