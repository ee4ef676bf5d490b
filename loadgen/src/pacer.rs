//! When a worker wakes up for a planned instant: a little early, so that the rest can be spent looking at the clock.
//!
//! A sleeping thread wakes up late, and how late depends on how long it slept: a CPU that has nothing to do for some ten µs
//! falls asleep, too. On the machines this was measured on a sleep of 5 µs ends 10 to 15 µs late, one of 30 µs or more 25 to
//! 60 µs. Spinning the longer of the two always would cost a core at high rates; not spinning at all makes every start late
//! by it. So the mean lateness of wake-ups is followed, for each length of sleep apart, and the worker wakes that much
//! earlier. Where that was too early it sleeps once more, for less, rather than spin longer than [`MOST`].

use crate::opts::Spin;

/// Longest time that `spin auto` spends looking at the clock, ns.
const MOST: u64 = 25_000;

/// A wake-up this late was not the timer's doing: the thread had lost its CPU. It says nothing of the next.
const STOLEN: u64 = 4 * MOST;

/// Sleeps are told apart by length, each class twice as long as the one before: below 8 µs, below 16 µs, up to 262 µs and more.
const CLASSES: u32 = 7;
const SHORTEST_BITS: u32 = 13;

/// The class of a sleep of so many ns.
fn class_of(sleep: u64) -> u32 {
    (u64::BITS - (sleep >> SHORTEST_BITS).leading_zeros()).min(CLASSES - 1)
}

/// The longest sleep of a class, ns.
fn longest(class: u32) -> u64 {
    if class == CLASSES - 1 { u64::MAX } else { (1 << (SHORTEST_BITS + class)) - 1 }
}

/// Follows how late wake-ups come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pacer {
    /// How late a sleep of each class ends, ns.
    Auto([u64; CLASSES as usize]),
    /// A time that is always spent looking at the clock, ns.
    Fixed(u64),
}

impl Pacer {
    pub(crate) fn new(spin: Spin) -> Self {
        match spin {
            Spin::Auto => Self::Auto([MOST; CLASSES as usize]),
            Spin::For(time) => Self::Fixed(time.as_ns()),
        }
    }

    /// When to wake up, seen from `now`, for what is planned at `planned`; not after `now` for not sleeping any more. All
    /// monotonic ns.
    pub(crate) fn wake_for(&self, planned: u64, now: u64) -> u64 {
        let late = match self {
            Self::Auto(late) => late,
            Self::Fixed(time) => return planned.saturating_sub(*time),
        };
        let left = planned.saturating_sub(now);
        if left <= MOST {
            return now;
        }
        // The longest that will probably be over in time.
        let sleep = (0..CLASSES).rev().zip(late.iter().rev()).find_map(|(class, late)| {
            let sleep = left.saturating_sub(*late).min(longest(class));
            (sleep > 0 && class_of(sleep) == class).then_some(sleep)
        });
        now + sleep.unwrap_or(left - MOST)
    }

    /// The worker began to sleep at `began`, asked to be woken at `asked`, and nothing else woke it before `now`; all
    /// monotonic ns.
    pub(crate) fn woke(&mut self, began: u64, asked: u64, now: u64) {
        let Self::Auto(lateness) = self else { return };
        let late = now.saturating_sub(asked);
        if now < asked || late > STOLEN {
            return;
        }
        let followed = &mut lateness[class_of(asked.saturating_sub(began)) as usize];
        // The mean of the last eight or so. Waking earlier than that makes few starts less late, for more looking at the clock.
        *followed = (*followed * 7 + late).div_ceil(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a worker to sleep until it looks at the clock for what is planned at `planned`; each sleep lasts as much longer as
    /// `late` says. Returns when it does, and how often it slept.
    fn sleep(pacer: &mut Pacer, planned: u64, late: impl Fn(u64) -> u64) -> (u64, u32) {
        let (mut now, mut sleeps) = (0, 0);
        loop {
            let wake = pacer.wake_for(planned, now);
            if wake <= now || now >= planned {
                return (now, sleeps);
            }
            let up = wake + late(wake - now);
            pacer.woke(now, wake, up);
            (now, sleeps) = (up, sleeps + 1);
        }
    }

    #[test]
    fn every_length_has_its_class() {
        for (ns, class) in [(0, 0), (8_191, 0), (8_192, 1), (16_384, 2), (131_071, 4), (262_143, 5), (262_144, 6)] {
            assert_eq!(class_of(ns), class, "{ns}");
        }
        assert_eq!(class_of(u64::MAX), 6);
        assert!((0..CLASSES).all(|class| class_of(longest(class)) == class));
    }

    #[test]
    fn it_wakes_as_early_as_wake_ups_are_late() {
        let mut pacer = Pacer::new(Spin::Auto);
        assert_eq!(pacer.wake_for(1_000_000, 0), 975_000);
        for _ in 0..100 {
            pacer.woke(0, 500_000, 503_000);
        }
        assert!((996_000..=997_000).contains(&pacer.wake_for(1_000_000, 0)), "{pacer:?}");
        assert_eq!(pacer.wake_for(1_000_000, 900_000), 975_000, "nothing is known of short sleeps");
        pacer.woke(0, 500_000, 560_000);
        let followed = pacer.wake_for(1_000_000, 0);
        assert!((989_000..=990_000).contains(&followed), "one that is late counts for an eighth: {pacer:?}");
        pacer.woke(0, 500_000, 1_500_000);
        pacer.woke(0, 500_000, 400_000);
        assert_eq!(pacer.wake_for(1_000_000, 0), followed, "neither a stolen CPU nor an early event counts");
        assert_eq!(pacer.wake_for(5_000, 10_000), 10_000, "what is due is not slept for");
    }

    /// A machine on which a sleep of 8 µs and more is four times as late as a shorter one.
    #[test]
    fn no_start_is_late_and_none_is_spun_for_longer_than_most() {
        let mut pacer = Pacer::new(Spin::Auto);
        let late = |sleep: u64| if sleep < 8_192 { 14_000 } else { 56_000 };
        for planned in [1_000_000, 200_000, 120_000, 90_000] {
            for _ in 0..80 {
                sleep(&mut pacer, planned, late);
            }
            let (up, sleeps) = sleep(&mut pacer, planned, late);
            assert!(
                (planned - MOST..=planned + 100).contains(&up) && sleeps <= 3,
                "{planned}: up at {up}, slept {sleeps} times"
            );
        }
    }

    #[test]
    fn who_is_up_too_early_sleeps_again() {
        let mut pacer = Pacer::new(Spin::Auto);
        for _ in 0..80 {
            pacer.woke(0, 500_000, 590_000);
        }
        // This time it comes 20 µs late: 70 are left.
        let (up, sleeps) = sleep(&mut pacer, 1_000_000, |sleep| if sleep > 100_000 { 20_000 } else { 5_000 });
        assert_eq!((up, sleeps), (980_000, 2), "{pacer:?}");
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
