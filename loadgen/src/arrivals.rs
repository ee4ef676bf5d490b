//! When attempts are planned: a pure stream of instants from options and a seed, no clock.
//!
//! Every instant is computed from the arrival's index, so nothing drifts, and one stream serves any number of
//! workers: worker w of n takes the arrivals i ≡ w (mod n), whose union is the stream itself.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use telemetry::units::Rate;

use crate::opts::ArrivalKind;

/// Planned instants in ns from the start, in order. Endless.
#[derive(Clone, Debug)]
pub struct Arrivals {
    kind: ArrivalKind,
    rate: f64,
    index: u64,
    /// Poisson: the last instant, ns with its fraction.
    clock_ns: f64,
    random: Xoshiro256PlusPlus,
}

impl Arrivals {
    /// The stream of `kind` at `rate` attempts per second (bursts bring their own rate).
    pub fn new(kind: ArrivalKind, rate: Rate, seed: u64) -> Self {
        Self { kind, rate: rate.per_second(), index: 0, clock_ns: 0.0, random: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// The part of worker `worker` of `workers`.
    pub fn shard(self, worker: usize, workers: usize) -> impl Iterator<Item = u64> + Send + use<> {
        self.skip(worker).step_by(workers)
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let index = self.index;
        self.index += 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; saturates after 584 years"
        )]
        let ns = match self.kind {
            ArrivalKind::Constant => (index as f64 * 1e9 / self.rate).round() as u64,
            ArrivalKind::Poisson => {
                let uniform = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
                self.clock_ns += -(1.0 - uniform).ln() * 1e9 / self.rate;
                self.clock_ns.round() as u64
            }
            ArrivalKind::Burst { size, every } => (index / u64::from(size.get())).saturating_mul(every.as_ns()),
        };
        Some(ns)
    }
}

/// Mean attempts per second of an arrival process.
pub fn mean_rate(kind: ArrivalKind, rate: Rate) -> f64 {
    match kind {
        ArrivalKind::Constant | ArrivalKind::Poisson => rate.per_second(),
        ArrivalKind::Burst { size, every } => f64::from(size.get()) * 1e9 / every.as_ns() as f64,
    }
}

/// Attempts planned at one instant at most.
pub fn simultaneous(kind: ArrivalKind) -> u32 {
    match kind {
        ArrivalKind::Constant | ArrivalKind::Poisson => 1,
        ArrivalKind::Burst { size, .. } => size.get(),
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
        let third = Arrivals::new(ArrivalKind::Constant, rate(3.0), 1).take(4).collect::<Vec<_>>();
        assert_eq!(third, [0, 333_333_333, 666_666_667, 1_000_000_000]);
        let late = Arrivals::new(ArrivalKind::Constant, rate(10_000.0), 1).nth(36_000_000);
        assert_eq!(late, Some(3_600_000_000_000));
    }

    #[test]
    fn bursts_come_together() {
        let kind = "burst:3/500ms".parse().expect("a burst");
        let planned = Arrivals::new(kind, rate(1.0), 1).take(7).collect::<Vec<_>>();
        assert_eq!(planned, [0, 0, 0, 500_000_000, 500_000_000, 500_000_000, 1_000_000_000]);
        assert!((mean_rate(kind, rate(1.0)) - 6.0).abs() < 1e-9);
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_the_exponential() {
        let n = 200_000;
        let planned: Vec<u64> = Arrivals::new(ArrivalKind::Poisson, rate(1000.0), 42).take(n).collect();
        let gaps: Vec<f64> = planned.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let sd = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean - 1.0).abs() < 0.01, "mean gap {mean} ms");
        assert!((sd / mean - 1.0).abs() < 0.02, "cv {}", sd / mean);
    }

    #[test]
    fn the_seed_decides() {
        let take = |seed| Arrivals::new(ArrivalKind::Poisson, rate(1000.0), seed).take(50).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    proptest! {
        #[test]
        fn shards_unite_to_the_stream(workers in 1_usize..9, seed: u64, kind in 0..3_u8) {
            let kind = match kind {
                0 => ArrivalKind::Constant,
                1 => ArrivalKind::Poisson,
                _ => "burst:7/10ms".parse().expect("a burst"),
            };
            let whole = Arrivals::new(kind, rate(777.0), seed);
            let mut expected: Vec<u64> = whole.clone().take(workers * 40).collect();
            let mut union: Vec<u64> =
                (0..workers).flat_map(|w| whole.clone().shard(w, workers).take(40)).collect();
            expected.sort_unstable();
            union.sort_unstable();
            prop_assert_eq!(union, expected);
        }
    }
}
