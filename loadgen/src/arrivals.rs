//! When attempts are planned: a pure stream of instants from options and a seed, no clock.
//!
//! Every instant is computed from the arrival's index, so nothing drifts, and one stream serves any number of
//! workers: worker w of n takes the arrivals i ≡ w (mod n), whose union is the stream itself.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use telemetry::units::{Rate, Span};

use crate::opts::{ArrivalKind, Instants, Profile};

/// ns.
const SECOND: u64 = 1_000_000_000;

/// Planned instants in ns from the start, in order. Endless but for a trace and a profile that does not repeat; in a closed loop
/// nothing is planned ahead, and every instant is 0: at once.
#[derive(Clone, Debug)]
pub struct Arrivals {
    kind: Kind,
    index: u64,
}

/// The arithmetic of each process.
#[derive(Clone, Debug)]
enum Kind {
    Constant {
        per_second: f64,
    },
    Poisson {
        mean_gap_ns: f64,
        /// The last instant, ns with its fraction.
        clock_ns: f64,
        random: Xoshiro256PlusPlus,
    },
    Burst {
        size: u64,
        every_ns: u64,
    },
    Profile(Course),
    Trace(Instants),
    Closed,
}

/// A profile as expected attempts over time.
#[derive(Clone, Debug)]
struct Course {
    /// Attempts and seconds before each stage, its seconds, its rate at the beginning, and the change of the rate per second.
    legs: Vec<Leg>,
    /// Attempts of the whole.
    attempts: f64,
    /// s.
    seconds: f64,
    repeat: bool,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    before: f64,
    starts: f64,
    lasts: f64,
    from: f64,
    slope: f64,
}

impl Course {
    fn new(profile: &Profile) -> Self {
        let (mut attempts, mut seconds) = (0.0, 0.0);
        let mut legs = Vec::new();
        for stage in profile.stages() {
            let slope = (stage.to - stage.from) / stage.seconds();
            if stage.attempts() > 0.0 {
                let (before, starts, lasts) = (attempts, seconds, stage.seconds());
                legs.push(Leg { before, starts, lasts, from: stage.from, slope });
            }
            attempts += stage.attempts();
            seconds += stage.seconds();
        }
        Self { legs, attempts, seconds, repeat: profile.repeats() }
    }

    /// The instant (s) of arrival number `index`: where the integral of the rate reaches it.
    fn instant(&self, index: u64) -> Option<f64> {
        let index = index as f64;
        let rounds = if self.repeat { (index / self.attempts).floor() } else { 0.0 };
        let within = index - rounds * self.attempts;
        if within >= self.attempts {
            return None;
        }
        let leg = self.legs.iter().rev().find(|leg| leg.before <= within)?;
        let more = within - leg.before;
        // from·t + slope·t²/2 = more, in the form that loses no digits when the slope is small; at its very beginning a
        // ramp from 0 has had no attempt yet.
        let root = (leg.from * leg.from + 2.0 * leg.slope * more).max(0.0).sqrt();
        let t = if more == 0.0 { 0.0 } else { 2.0 * more / (leg.from + root) };
        Some(rounds * self.seconds + leg.starts + t)
    }

    /// The integral of the rate up to `end` (s).
    fn before(&self, end: f64) -> f64 {
        let rounds = if self.repeat { (end / self.seconds).floor() } else { 0.0 };
        let within = (end - rounds * self.seconds).clamp(0.0, self.seconds);
        let started = self.legs.iter().filter(|leg| leg.starts <= within);
        let attempts: f64 = started
            .map(|leg| {
                let t = (within - leg.starts).min(leg.lasts);
                leg.from * t + leg.slope * t * t / 2.0
            })
            .sum();
        rounds * self.attempts + attempts
    }
}

impl Arrivals {
    /// The stream of `kind`, at `rate` attempts per second where the process brings no rate of its own.
    pub fn new(kind: &ArrivalKind, rate: Rate, seed: u64) -> Self {
        let kind = match kind {
            ArrivalKind::Constant => Kind::Constant { per_second: rate.per_second() },
            ArrivalKind::Poisson => Kind::Poisson {
                mean_gap_ns: 1e9 / rate.per_second(),
                clock_ns: 0.0,
                random: Xoshiro256PlusPlus::seed_from_u64(seed),
            },
            ArrivalKind::Burst { size, every } => Kind::Burst { size: u64::from(size.get()), every_ns: every.as_ns() },
            ArrivalKind::Profile(profile) => Kind::Profile(Course::new(profile)),
            ArrivalKind::Trace(trace) => Kind::Trace(trace.instants()),
            ArrivalKind::Closed(_) => Kind::Closed,
        };
        Self { kind, index: 0 }
    }

    /// Part `part` (from 0) of `parts`.
    pub fn shard(self, part: usize, parts: usize) -> impl Iterator<Item = u64> + Send + use<> {
        self.skip(part).step_by(parts)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates after 584 years")]
fn whole_ns(ns: f64) -> u64 {
    ns.round() as u64
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let index = self.index;
        self.index += 1;
        match &mut self.kind {
            Kind::Constant { per_second } => Some(whole_ns(index as f64 * 1e9 / *per_second)),
            Kind::Poisson { mean_gap_ns, clock_ns, random } => {
                let uniform = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
                *clock_ns += -(1.0 - uniform).ln() * *mean_gap_ns;
                Some(whole_ns(*clock_ns))
            }
            Kind::Burst { size, every_ns } => Some((index / *size).saturating_mul(*every_ns)),
            Kind::Profile(course) => course.instant(index).map(|seconds| whole_ns(seconds * 1e9)),
            Kind::Trace(instants) => instants.next(),
            Kind::Closed => Some(0),
        }
    }
}

/// Mean attempts per second of an arrival process; of a closed loop nobody knows: 0.
pub fn mean_rate(kind: &ArrivalKind, rate: Rate) -> f64 {
    match kind {
        ArrivalKind::Constant | ArrivalKind::Poisson => rate.per_second(),
        ArrivalKind::Burst { size, every } => f64::from(size.get()) * 1e9 / every.as_ns() as f64,
        ArrivalKind::Profile(profile) => {
            let course = Course::new(profile);
            course.attempts / course.seconds
        }
        // One that is over at once has no other length.
        ArrivalKind::Trace(trace) => trace.attempts() as f64 * 1e9 / (trace.last_ns() + 1) as f64,
        ArrivalKind::Closed(_) => 0.0,
    }
}

/// Attempts per second planned at `elapsed` ns from the start: the mean where the process has no other.
pub fn rate_at(kind: &ArrivalKind, rate: Rate, elapsed: u64) -> f64 {
    let profile = match kind {
        ArrivalKind::Profile(profile) => profile,
        // Of the second that it is in.
        ArrivalKind::Trace(trace) => {
            let begins = elapsed / SECOND * SECOND;
            return (trace.before(begins + SECOND) - trace.before(begins)) as f64;
        }
        _ => return mean_rate(kind, rate),
    };
    let whole: u64 = profile.stages().iter().map(|stage| stage.lasts.as_ns()).sum();
    let mut left = if profile.repeats() { elapsed % whole.max(1) } else { elapsed };
    for stage in profile.stages() {
        if left < stage.lasts.as_ns() {
            return stage.from + (stage.to - stage.from) * left as f64 / stage.lasts.as_ns() as f64;
        }
        left -= stage.lasts.as_ns();
    }
    0.0
}

/// Attempts planned before `end` (ns from the start): the mean for random arrivals, 0 for a closed loop, which plans none.
pub fn planned_before(kind: &ArrivalKind, rate: Rate, end: u64) -> f64 {
    let seconds = end as f64 / 1e9;
    match kind {
        // The first is planned at 0.
        ArrivalKind::Constant => (seconds * rate.per_second()).ceil(),
        ArrivalKind::Poisson => seconds * rate.per_second(),
        ArrivalKind::Burst { size, every } => f64::from(size.get()) * end.div_ceil(every.as_ns()) as f64,
        ArrivalKind::Profile(profile) => Course::new(profile).before(seconds),
        ArrivalKind::Trace(trace) => trace.before(end) as f64,
        ArrivalKind::Closed(_) => 0.0,
    }
}

/// The highest rate of an arrival process, attempts per second; of a trace that of its busiest second.
pub fn peak_rate(kind: &ArrivalKind, rate: Rate) -> f64 {
    match kind {
        ArrivalKind::Profile(profile) => {
            profile.stages().iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max)
        }
        ArrivalKind::Trace(trace) => trace.most_within(Span::from_secs(1)) as f64,
        kind => mean_rate(kind, rate),
    }
}

/// Attempts planned at one instant at most.
pub fn simultaneous(kind: &ArrivalKind) -> u32 {
    match kind {
        ArrivalKind::Constant | ArrivalKind::Poisson | ArrivalKind::Profile(_) => 1,
        ArrivalKind::Burst { size, .. } => size.get(),
        ArrivalKind::Trace(trace) => trace.most_at_once(),
        ArrivalKind::Closed(n) => n.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(r: f64) -> Rate {
        r.to_string().parse().expect("a rate")
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let third = Arrivals::new(&ArrivalKind::Constant, rate(3.0), 1).take(4).collect::<Vec<_>>();
        assert_eq!(third, [0, 333_333_333, 666_666_667, 1_000_000_000]);
        let late = Arrivals::new(&ArrivalKind::Constant, rate(10_000.0), 1).nth(36_000_000);
        assert_eq!(late, Some(3_600_000_000_000));
    }

    #[test]
    fn bursts_come_together() {
        let kind = "burst:3/500ms".parse().expect("a burst");
        let planned = Arrivals::new(&kind, rate(1.0), 1).take(7).collect::<Vec<_>>();
        assert_eq!(planned, [0, 0, 0, 500_000_000, 500_000_000, 500_000_000, 1_000_000_000]);
        assert!((mean_rate(&kind, rate(1.0)) - 6.0).abs() < 1e-9);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_the_exponential() {
        let n = 200_000;
        let planned: Vec<u64> = Arrivals::new(&ArrivalKind::Poisson, rate(1000.0), 42).take(n).collect();
        let gaps: Vec<f64> = planned.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let sd = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean - 1.0).abs() < 0.01, "mean gap {mean} ms");
        assert!((sd / mean - 1.0).abs() < 0.02, "cv {}", sd / mean);
    }

    #[test]
    fn the_seed_decides() {
        let take = |seed| Arrivals::new(&ArrivalKind::Poisson, rate(1000.0), seed).take(50).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    fn profile(text: &str) -> ArrivalKind {
        format!("profile:{text}").parse().expect("a profile")
    }

    #[test]
    fn a_profile_plans_what_its_rates_come_to() {
        let kind = profile("100x1s,ramp:100-300x2s,0x1s,200x500ms");
        let planned: Vec<u64> = Arrivals::new(&kind, rate(1.0), 1).collect();
        assert_eq!(planned.len(), 100 + 400 + 100);
        assert_eq!((planned[0], planned[50], planned[100]), (0, 500_000_000, 1_000_000_000));
        // Half of the ramp's time has 100 + 50 attempts of 1 s: 100 t + 50 t² = 150 at t = 1.
        assert_eq!(planned[250], 2_000_000_000);
        assert_eq!(planned[500], 4_000_000_000, "nothing in the pause");
        assert!(planned.is_sorted());
        assert!((mean_rate(&kind, rate(1.0)) - 600.0 / 4.5).abs() < 1e-9);
        let text = |rate: f64| format!("{rate:.6}");
        assert_eq!(text(peak_rate(&kind, rate(1.0))), "300.000000");
        let at = |ms: u64| text(rate_at(&kind, rate(1.0), ms * 1_000_000));
        let expected = [100.0, 200.0, 0.0, 200.0, 0.0].map(text);
        assert_eq!([at(0), at(2000), at(3500), at(4200), at(9000)], expected);
    }

    #[test]
    fn a_profile_that_repeats_goes_on_without_a_seam() {
        let kind = profile("ramp:0-200x1s,repeat");
        let planned: Vec<u64> = Arrivals::new(&kind, rate(1.0), 1).take(1001).collect();
        assert_eq!((planned[0], planned[100], planned[1000]), (0, 1_000_000_000, 10_000_000_000));
        // 100 t² = 25 at t = 0.5.
        assert_eq!((planned[25], planned[925]), (500_000_000, 9_500_000_000));
        assert!((rate_at(&kind, rate(1.0), 9_500_000_000) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_planned_before_an_instant_is_what_the_stream_has_before_it() {
        for kind in [
            "constant",
            "burst:7/300ms",
            "profile:100x1s,0x500ms,ramp:0-300x2s,repeat",
            "profile:50x2s",
            "trace:1ms:0x9,300*7,0*20",
        ] {
            let kind: ArrivalKind = kind.parse().expect("an arrival process");
            for end in [1, 300_000_000, 999_999_999, 1_400_000_000, 2_100_000_001, 9_000_000_000] {
                let stream = Arrivals::new(&kind, rate(700.0), 1).take_while(|planned| *planned < end).count() as f64;
                let planned = planned_before(&kind, rate(700.0), end);
                assert!((stream - planned).abs() <= 1.0, "{kind} before {end} ns: {planned}, the stream has {stream}");
            }
        }
    }

    proptest! {
        #[test]
        fn parts_of_parts_unite_to_the_stream(shards in 1_usize..5, workers in 1_usize..5, seed: u64, ramp: bool) {
            let kind = if ramp { profile("ramp:10-900x1s,50x3s,repeat") } else { ArrivalKind::Poisson };
            let whole = Arrivals::new(&kind, rate(777.0), seed);
            let parts = shards * workers;
            let mut expected: Vec<u64> = whole.clone().take(parts * 40).collect();
            // Worker w of shard s takes the arrivals i ≡ s + shards·w.
            let mut union: Vec<u64> = (0..shards)
                .flat_map(|s| (0..workers).map(move |w| s + shards * w))
                .flat_map(|part| whole.clone().shard(part, parts).take(40))
                .collect();
            expected.sort_unstable();
            union.sort_unstable();
            prop_assert_eq!(union, expected);
        }

        #[test]
        fn shards_unite_to_the_stream(workers in 1_usize..9, seed: u64, kind in 0..3_u8) {
            let kind = match kind {
                0 => ArrivalKind::Constant,
                1 => ArrivalKind::Poisson,
                _ => "burst:7/10ms".parse().expect("a burst"),
            };
            let whole = Arrivals::new(&kind, rate(777.0), seed);
            let mut expected: Vec<u64> = whole.clone().take(workers * 40).collect();
            let mut union: Vec<u64> =
                (0..workers).flat_map(|w| whole.clone().shard(w, workers).take(40)).collect();
            expected.sort_unstable();
            union.sort_unstable();
            prop_assert_eq!(union, expected);
        }
    }
}
