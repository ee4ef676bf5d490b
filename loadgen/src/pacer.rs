//! When a worker wakes up for a planned instant: a little early, so that the rest can be spent looking at the clock.
//!
//! A wake-up from idle takes 25-45 µs on the machines this was measured on, one after a short sleep or of a busy CPU a few.
//! Spinning the longer of the two always would cost a core at high rates; not spinning at all makes every start late by it.
//! So the lateness of wake-ups is followed, that of long sleeps and of short ones apart, and the worker wakes that much
//! earlier. One that is up sooner than it had to be sleeps once more, a short sleep, rather than spin longer than [`MOST`].

use crate::opts::Spin;

/// Longest time that `spin auto` spends looking at the clock, ns.
const MOST: u64 = 25_000;

/// A sleep this long is a long one, ns: a CPU that has been idle for as long may be in a deep sleep of its own.
const LONG: u64 = 100_000;

/// A wake-up this late was not the timer's doing: the thread had lost its CPU. It says nothing of the next.
const STOLEN: u64 = 4 * MOST;

/// Follows how late wake-ups come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    /// How long before a planned instant to wake up from a long sleep, and from a short one; ns.
    long: u64,
    short: u64,
    follows: bool,
}

impl Pacer {
    pub(crate) fn new(spin: Spin) -> Self {
        match spin {
            Spin::Auto => Self { long: MOST, short: MOST, follows: true },
            Spin::For(time) => Self { long: time.as_ns(), short: time.as_ns(), follows: false },
        }
    }

    /// When to wake up, seen from `now`, for what is planned at `planned`; in the past for not sleeping any more. All
    /// monotonic ns.
    pub(crate) fn wake_for(&self, planned: u64, now: u64) -> u64 {
        let (long, short) = (planned.saturating_sub(self.long), planned.saturating_sub(self.short));
        if !self.follows || short >= now.saturating_add(LONG) {
            long
        } else if planned > now.saturating_add(MOST) {
            short
        } else {
            now
        }
    }

    /// The worker began to sleep at `began`, asked to be woken at `asked`, and nothing else woke it before `now`; all
    /// monotonic ns.
    pub(crate) fn woke(&mut self, began: u64, asked: u64, now: u64) {
        let late = now.saturating_sub(asked);
        if !self.follows || now < asked || late > STOLEN {
            return;
        }
        let is_long = asked.saturating_sub(began) >= LONG;
        let (ahead, most) = if is_long { (&mut self.long, STOLEN) } else { (&mut self.short, MOST) };
        // A late start costs more than a spin: up at once, down by an eighth of the way.
        let late = late.min(most);
        *ahead = if late > *ahead { late } else { *ahead - (*ahead - late) / 8 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest time before a planned instant that is looked at the clock for.
    fn spun(pacer: &Pacer, planned: u64) -> u64 {
        (0..planned)
            .rev()
            .step_by(100)
            .take_while(|now| pacer.wake_for(planned, *now) <= *now)
            .last()
            .map_or(0, |now| planned - now)
    }

    #[test]
    fn it_wakes_as_early_as_wake_ups_are_late() {
        let mut pacer = Pacer::new(Spin::Auto);
        assert_eq!(pacer.wake_for(1_000_000, 0), 975_000);
        for _ in 0..100 {
            pacer.woke(0, 500_000, 503_000);
        }
        assert!((996_000..=997_000).contains(&pacer.wake_for(1_000_000, 0)), "{pacer:?}");
        assert_eq!(pacer.wake_for(1_000_000, 950_000), 975_000, "nothing is known of short sleeps");
        pacer.woke(0, 500_000, 540_000);
        assert_eq!(pacer.wake_for(1_000_000, 0), 960_000, "up at once");
        pacer.woke(0, 500_000, 1_500_000);
        pacer.woke(0, 500_000, 400_000);
        assert_eq!(pacer.wake_for(1_000_000, 0), 960_000, "neither a stolen CPU nor an early event counts");
    }

    #[test]
    fn who_is_up_too_early_sleeps_again_and_spins_no_longer_than_most() {
        let mut pacer = Pacer::new(Spin::Auto);
        pacer.woke(0, 500_000, 590_000);
        assert_eq!(pacer.wake_for(1_000_000, 0), 910_000);
        assert_eq!(pacer.wake_for(1_000_000, 915_000), 975_000);
        for _ in 0..100 {
            pacer.woke(915_000, 975_000, 980_000);
        }
        assert!((994_000..=995_000).contains(&pacer.wake_for(1_000_000, 915_000)), "{pacer:?}");
        assert!((24_000..=25_000).contains(&spun(&pacer, 1_000_000)), "{pacer:?}");
        pacer.woke(915_000, 975_000, 1_015_000);
        assert_eq!(pacer.wake_for(1_000_000, 915_000), 975_000, "a short sleep is not that deep");
        assert!((24_000..=25_000).contains(&spun(&pacer, 1_000_000)), "{pacer:?}");
        assert_eq!(pacer.wake_for(1_000_000, 0), 910_000, "of long ones nothing new is known");
    }

    #[test]
    fn a_fixed_time_is_kept() {
        let mut pacer = Pacer::new("off".parse().expect("a spin"));
        pacer.woke(0, 500_000, 520_000);
        assert_eq!(pacer.wake_for(1_000_000, 0), 1_000_000);
        let pacer = Pacer::new("60us".parse().expect("a spin"));
        assert_eq!([0, 935_000, 999_000].map(|now| pacer.wake_for(1_000_000, now)), [940_000; 3]);
    }
}
