//! When a worker wakes up for a planned instant: a little early, so that the rest can be spent looking at the clock.
//!
//! A sleeping thread wakes up late, and how late depends on how long it slept: a CPU that has nothing to do for some ten µs
//! falls asleep, too. On the machines this was measured on a sleep of 5 µs ends 10 to 15 µs late, one of 30 µs or more 25 to
//! 60 µs. Spinning the longer of the two always would cost a core at high rates; not spinning at all makes every start late
//! by it. So the mean lateness of wake-ups is followed, for each length of sleep apart, and the worker wakes that much
//! earlier. Where that was too early it sleeps once more, for less, rather than spin longer than [`MOST`].
//!
//! The wake-up for the arrival after the next one can be foreseen, and prepared before the next one's (an engine's timer that
//! is set ahead costs less). It is kept to, unless what was learned in between says otherwise by more than [`NEAR`].

use crate::opts::Spin;

/// Longest time that `spin auto` spends looking at the clock, ns.
const MOST: u64 = 25_000;

/// A wake-up this late was not the timer's doing: the thread had lost its CPU. It says nothing of the next.
const STOLEN: u64 = 4 * MOST;

/// What was foreseen is as good as what would be chosen anew, up to so many ns.
const NEAR: u64 = 8_000;

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

/// Follows how late wake-ups come, and says when to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    early: Early,
    /// What is planned next, and its wake-up, monotonic ns.
    next: (u64, u64),
    /// What is planned after it, and the wake-up that was foreseen.
    then: Option<(u64, u64)>,
    /// How long after a planned instant the worker sleeps again, ns.
    busy: u64,
}

/// How much earlier than planned to wake up.
#[derive(Clone, Copy, Debug)]
enum Early {
    /// By how late a sleep of each class ends, ns.
    Auto([u64; CLASSES as usize]),
    /// By a time that is always spent looking at the clock, ns.
    Fixed(u64),
}

impl Pacer {
    pub(crate) fn new(spin: Spin) -> Self {
        let early = match spin {
            Spin::Auto => Early::Auto([MOST; CLASSES as usize]),
            Spin::For(time) => Early::Fixed(time.as_ns()),
        };
        Self { early, next: (0, 0), then: None, busy: MOST }
    }

    /// When to wake up, seen from `now`, for what is planned at `planned`; not after `now` for not sleeping any more. All
    /// monotonic ns.
    pub(crate) fn wake_for(&self, planned: u64, now: u64) -> u64 {
        let wake = self.choose(planned, now);
        let keeps = |(of, kept): &(u64, u64)| *of == planned && *kept > now && kept.abs_diff(wake) <= NEAR;
        // What is so near that it is not slept for is not slept for because it was foreseen, either.
        let kept = [Some(self.next), self.then].into_iter().flatten().find(|chosen| wake > now && keeps(chosen));
        kept.map_or(wake, |(_, kept)| kept)
    }

    /// The worker is about to sleep from `now` until `wake`, between what was planned at `before` and what is planned at
    /// `next`. Returns the wake-up for what is planned at `then`, after it; `None` where there will hardly be time to sleep in
    /// between. All monotonic ns.
    pub(crate) fn foresee(&mut self, (now, wake): (u64, u64), [before, next, then]: [u64; 3]) -> Option<u64> {
        if self.next.0 != next {
            let busy = now.saturating_sub(before).min(STOLEN);
            self.busy = (self.busy * 7 + busy).div_ceil(8);
            let free = next + self.busy;
            let ahead = self.choose(then, free);
            (self.next, self.then) = ((next, wake), (ahead > free).then_some((then, ahead)));
        }
        self.then.map(|(_, ahead)| ahead)
    }

    fn choose(&self, planned: u64, now: u64) -> u64 {
        let late = match &self.early {
            Early::Auto(late) => late,
            Early::Fixed(time) => return planned.saturating_sub(*time),
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
        let Early::Auto(lateness) = &mut self.early else { return };
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

    /// The worker has learned that a sleep of half a millisecond ends so much later.
    fn learn(pacer: &mut Pacer, late: u64, times: usize) {
        (0..times).for_each(|_| pacer.woke(0, 500_000, 500_000 + late));
    }

    #[test]
    fn what_was_foreseen_is_kept_to() {
        let mut pacer = Pacer::new(Spin::Auto);
        learn(&mut pacer, 10_000, 99);
        let (next, then) = (1_000_000, 2_000_000);
        let wake = pacer.wake_for(next, 0);
        let foreseen = pacer.foresee((0, wake), [0, next, then]).expect("time to sleep");
        assert!((then - 10_100..=then - 10_000).contains(&foreseen), "{foreseen}");
        learn(&mut pacer, 50_000, 1);
        assert_eq!(pacer.wake_for(next, 1_000), wake, "an event woke it: it would be 5 µs earlier now");
        assert_eq!(pacer.foresee((1_000, wake), [0, next, then]), Some(foreseen), "chosen once");
        assert_eq!(pacer.wake_for(then, 1_020_000), foreseen);
        assert_ne!(pacer.wake_for(then + 1, 1_020_000), foreseen, "another arrival");
        assert!(pacer.wake_for(then, foreseen) <= foreseen, "up then: what is left is looked at, not slept for");
        learn(&mut pacer, 50_000, 9);
        let anew = pacer.wake_for(then, 1_020_000);
        assert!((then - 45_000..then - 30_000).contains(&anew), "too far from what was learned since: {anew}");
    }

    #[test]
    fn a_wake_up_is_foreseen_as_it_is_chosen_then() {
        let mut pacer = Pacer::new(Spin::Auto);
        // Sleeps of 65 µs and more are much later than shorter ones, and every attempt takes 80 µs of the 200 between two.
        let late = |sleep: u64| if sleep < 65_536 { 5_000 } else { 40_000 };
        let (mut now, mut kept) = (0, 0);
        for planned in (1..=200).map(|n| n * 200_000) {
            let wake = pacer.wake_for(planned, now);
            kept += u32::from(pacer.then == Some((planned, wake)));
            pacer.foresee((now, wake), [planned - 200_000, planned, planned + 200_000]).expect("time to sleep");
            pacer.woke(now, wake, wake + late(wake - now));
            now = planned + 80_000;
        }
        assert!(kept > 150, "{kept} of 200 as foreseen: {pacer:?}");
    }

    #[test]
    fn nothing_is_foreseen_where_there_is_no_time_to_sleep() {
        let mut off = Pacer::new("off".parse().expect("a spin"));
        assert_eq!(off.foresee((990_000, 1_000_000), [980_000, 1_000_000, 1_005_000]), None);
        let mut pacer = Pacer::new(Spin::Auto);
        // What takes 40 µs each time is known to after some.
        let mut foresee = |between: u64, times: u64| {
            let last = (1..=times).map(|n| {
                let before = n * 1_000_000 + between;
                let next = before + 1_000_000;
                pacer.foresee((before + 40_000, next - MOST), [before, next, next + between])
            });
            last.last().flatten().is_some()
        };
        assert!(foresee(500_000, 50));
        assert!(!foresee(20_000, 1), "no sleep at all");
        assert!(!foresee(64_000, 1), "up before it is free");
        assert!(foresee(67_000, 1));
    }

    #[test]
    fn nothing_foreseen_makes_anything_late() {
        for (late, took, gap) in
            [(10_000, 3_000, 0), (10_000, 3_000, 5_000), (2_000, 12_000, 10_000), (2_000, 32_000, 40_000)]
        {
            let mut pacer = Pacer::new(Spin::Auto);
            let next = 1_000_000_000;
            for _ in 0..99 {
                learn(&mut pacer, late, 1);
                // Another one before, so that each is new and says how long the worker was busy.
                pacer.foresee((next - 500_000 + took, next - late), [next - 500_000, next - 1, next + gap]);
                pacer.foresee((next - 500_000 + took, next - late), [next - 500_000, next, next + gap]);
            }
            let planned = next + gap;
            for now in (planned.saturating_sub(60_000)..planned).step_by(500) {
                let wake = pacer.wake_for(planned, now);
                assert!(wake <= planned, "{late} {took} {gap}: up {} ns late", wake - planned);
                assert!(wake <= now || planned - now > MOST, "{late} {took} {gap}: {} ns are slept for", planned - now);
            }
        }
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
