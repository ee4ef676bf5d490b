//! Which of the 2240 buckets' edges a Prometheus page shows as `le` bounds.
//!
//! Owns the choice: few enough for one series per bound, placed where this domain's answers change. Every bound is an
//! edge of the layout, so the exposed counts are exact.

use std::sync::LazyLock;

use super::{bucket_of, lower_edge, upper_edge};

/// Nanoseconds per second.
const SECOND: u64 = 1_000_000_000;

/// When Linux sends a lost SYN again, in seconds after connect(2): `tcp_syn_linear_timeouts` (4) steps of one second
/// and then doubling ones (Linux 6.5 and later; before, the grid was 1, 3, 7).
const SYN_RETRY_GRID: [u64; 6] = [1, 2, 3, 4, 5, 7];

/// The fill ratio's resolution: [`FILL_PARTS`] parts are a full queue.
///
/// 128 because values up to 128 are exact in the layout: a queue at capacity has a bucket of its own.
pub const FILL_PARTS: u64 = 128;

/// A queue's fill as the value to record for [`Bounds::Fill`]: `depth / capacity` in [`FILL_PARTS`], rounded down, so
/// that only a queue at capacity reaches the last part. A capacity of 0 is full.
pub fn fill_parts(depth: u64, capacity: u64) -> u64 {
    if depth >= capacity {
        return FILL_PARTS;
    }
    // Below capacity, so the quotient is below FILL_PARTS; u128 because depth is whatever the caller has.
    u64::try_from(u128::from(depth) * u128::from(FILL_PARTS) / u128::from(capacity)).unwrap_or(FILL_PARTS)
}

/// A family of `le` bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// Latencies in nanoseconds: 1-2-5 from 10 µs to 100 s, and every point of the SYN retry grid (1, 2, 3, 4, 5, 7 s,
    /// each up to 3 % late because timers fire late) in a bucket of its own.
    Latency,
    /// Lags and waits in nanoseconds: 1-2-5 from 100 ns to 10 s.
    Lag,
    /// Plain counts: 1, 2, 4, … 65536, exact.
    Count,
    /// Fill ratios in [`FILL_PARTS`]: eighths, and one bound just under 1, above which a queue is full.
    Fill,
}

/// The buckets whose upper edges are the `le` bounds of `kind`, ascending. `+Inf` is not among them.
pub fn le_bounds(kind: Bounds) -> &'static [usize] {
    static LATENCY: LazyLock<Vec<usize>> = LazyLock::new(latency);
    static LAG: LazyLock<Vec<usize>> = LazyLock::new(|| one_two_five(100, 10 * SECOND).map(nearest).collect());
    static COUNT: LazyLock<Vec<usize>> = LazyLock::new(|| (0..=16).map(|bits| bucket_of(1 << bits)).collect());
    static FILL: LazyLock<Vec<usize>> =
        LazyLock::new(|| [16, 32, 48, 64, 80, 96, 112, 120, 127, 128].map(bucket_of).to_vec());
    match kind {
        Bounds::Latency => &LATENCY,
        Bounds::Lag => &LAG,
        Bounds::Count => &COUNT,
        Bounds::Fill => &FILL,
    }
}

fn latency() -> Vec<usize> {
    let mut bounds: Vec<usize> = one_two_five(10_000, 100 * SECOND)
        .filter(|ns| !SYN_RETRY_GRID.map(|s| s * SECOND).contains(ns))
        .map(nearest)
        .collect();
    // Strictly below the point, never the nearest edge: a nearest edge may lie 0.8 % above and would cut the retries
    // of one point, which arrive up to 3 % late, into two buckets.
    bounds.extend(SYN_RETRY_GRID.iter().map(|s| bucket_of(s * SECOND) - 1));
    bounds.sort_unstable();
    bounds
}

/// 1-2-5 steps from `from` (a power of ten) to `to`, both included.
fn one_two_five(from: u64, to: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(from), |decade| decade.checked_mul(10))
        .flat_map(|decade| [1, 2, 5].map(|step| decade.saturating_mul(step)))
        .take_while(move |&ns| ns <= to)
}

/// The bucket whose upper edge is nearest to `v`.
fn nearest(v: u64) -> usize {
    let bucket = bucket_of(v);
    if v - lower_edge(bucket) < upper_edge(bucket) - v { bucket - 1 } else { bucket }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(kind: Bounds) -> Vec<u64> {
        le_bounds(kind).iter().map(|&bucket| upper_edge(bucket)).collect()
    }

    /// The index of the exposition bucket that counts `ns`.
    fn exposition_bucket(ns: u64) -> usize {
        edges(Bounds::Latency).partition_point(|&edge| edge < ns)
    }

    #[test]
    fn each_point_of_the_retry_grid_has_an_exposition_bucket_of_its_own() {
        let mut taken = Vec::new();
        for second in SYN_RETRY_GRID {
            let bucket = exposition_bucket(second * SECOND);
            for late in 0..=30 {
                let ns = second * SECOND + second * SECOND / 1000 * late;
                assert_eq!(exposition_bucket(ns), bucket, "{second} s is cut {late} ‰ late");
            }
            assert!(!taken.contains(&bucket), "{second} s shares its bucket");
            assert_ne!(exposition_bucket(second * SECOND * 49 / 50), bucket, "{second} s has early company");
            taken.push(bucket);
        }
    }

    #[test]
    fn bounds_are_strictly_ascending_and_near_what_they_are_called() {
        for kind in [Bounds::Latency, Bounds::Lag, Bounds::Count, Bounds::Fill] {
            assert!(le_bounds(kind).is_sorted_by(|a, b| a < b), "{kind:?}");
        }
        assert_eq!(edges(Bounds::Latency).len(), 25);
        for (kind, nominal) in [(Bounds::Latency, 10_000), (Bounds::Latency, 100 * SECOND), (Bounds::Lag, 2_000_000)] {
            let off = edges(kind).iter().map(|edge| edge.abs_diff(nominal)).min().unwrap();
            assert!(off * 128 <= nominal, "{kind:?} has no bound within 0.8 % of {nominal}");
        }
    }

    #[test]
    fn count_bounds_are_exact_powers_of_two() {
        assert_eq!(edges(Bounds::Count), (0..=16).map(|bits| 1 << bits).collect::<Vec<u64>>());
    }

    #[test]
    fn only_a_queue_at_capacity_passes_the_bound_just_under_one() {
        assert_eq!(fill_parts(0, 129), 0);
        assert_eq!(fill_parts(4096, 4097), 127);
        assert_eq!(fill_parts(4097, 4097), 128);
        assert_eq!(fill_parts(0, 0), 128);
        assert_eq!(fill_parts(u64::MAX - 1, u64::MAX), 127);
        assert_eq!(edges(Bounds::Fill)[8..], [127, 128]);
    }
}
