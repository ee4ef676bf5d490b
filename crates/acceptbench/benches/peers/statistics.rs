//! The arithmetic of the bench: medians, and how evenly arrivals are spaced. Pure.
//!
//! The coefficient of variation of the gaps is 0 for a perfect constant rate and 1 for a Poisson process. Whether gaps are
//! those of a Poisson process is asked of the Kolmogorov-Smirnov statistic against the exponential distribution of the
//! *planned* rate, so nothing is fitted and the limiting distribution applies as it is (Kolmogorov 1933; the finite-size
//! correction is Stephens 1970).

use serde::{Deserialize, Serialize};

/// What is cut off at either end: a tool's start, and its last replies.
const EDGE_NS: u64 = 200_000_000;

/// Fewer arrivals than this say nothing.
const FEWEST: usize = 100;

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Spacing {
    /// Arrivals looked at.
    pub(crate) arrivals: usize,
    /// Arrivals per second.
    pub(crate) rate: f64,
    /// Mean gap, µs.
    pub(crate) gap_us: f64,
    /// Standard deviation of the gaps, µs.
    pub(crate) gap_sd_us: f64,
    /// The second divided by the first.
    pub(crate) gap_cv: f64,
    /// How far behind an even line arrivals are, µs: half of them no more than this.
    pub(crate) late_p50_us: f64,
    /// 99 of 100 no more than this.
    pub(crate) late_p99_us: f64,
    /// Kolmogorov-Smirnov statistic of the gaps against the exponential distribution of the planned rate.
    pub(crate) ks: f64,
    /// The probability of a statistic as large as that if the gaps are exponential.
    pub(crate) ks_p: f64,
}

impl Spacing {
    /// Of ascending stamps in ns, when `planned` arrivals per second were asked for. `None` when there are too few.
    pub(crate) fn of(stamps: &[u64], planned: f64) -> Option<Self> {
        let (first, last) = (*stamps.first()?, *stamps.last()?);
        let from = stamps.partition_point(|stamp| *stamp < first + EDGE_NS);
        let to = stamps.partition_point(|stamp| *stamp + EDGE_NS <= last);
        let stamps = stamps.get(from..to).filter(|stamps| stamps.len() >= FEWEST)?;
        let mut gaps: Vec<f64> = stamps.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e3).collect();
        let gap_us = mean(&gaps);
        let gap_sd_us = (gaps.iter().map(|gap| (gap - gap_us).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        gaps.sort_by(f64::total_cmp);
        let ks = distance(&gaps, planned / 1e6);
        let late = lateness(stamps);
        Some(Self {
            arrivals: stamps.len(),
            rate: 1e6 / gap_us,
            gap_us,
            gap_sd_us,
            gap_cv: gap_sd_us / gap_us,
            late_p50_us: quantile(&late, 0.5)?,
            late_p99_us: quantile(&late, 0.99)?,
            ks,
            ks_p: ks_probability(ks, gaps.len()),
        })
    }
}

/// How far each stamp is behind the earliest even line of the rate that was seen, µs, ascending. The line of the planned
/// rate would turn a tool whose clock is off by a ten-thousandth into a late one; the slope is that of least squares, since
/// one late arrival at an end would tilt a line through both ends.
fn lateness(stamps: &[u64]) -> Vec<f64> {
    let at: Vec<f64> = stamps.iter().map(|stamp| (stamp - stamps[0]) as f64 / 1e3).collect();
    let (middle, mean_at) = ((at.len() - 1) as f64 / 2.0, mean(&at));
    let from_middle = |i: usize| i as f64 - middle;
    let together: f64 = at.iter().enumerate().map(|(i, at)| from_middle(i) * (at - mean_at)).sum();
    let slope = together / (0..at.len()).map(|i| from_middle(i).powi(2)).sum::<f64>();
    let mut late: Vec<f64> = at.iter().enumerate().map(|(i, at)| at - slope * i as f64).collect();
    late.sort_by(f64::total_cmp);
    let earliest = late.first().copied().unwrap_or(0.0);
    for late in &mut late {
        *late -= earliest;
    }
    late
}

/// The largest distance between the distribution of ascending `gaps` and the exponential one of `rate` per unit.
pub(crate) fn distance(gaps: &[f64], rate: f64) -> f64 {
    let n = gaps.len() as f64;
    let at = |(i, gap): (usize, &f64)| {
        let expected = 1.0 - (-gap * rate).exp();
        // The empirical distribution jumps at a gap: both of its sides count.
        (expected - i as f64 / n).max((i + 1) as f64 / n - expected)
    };
    gaps.iter().enumerate().map(at).fold(0.0, f64::max)
}

/// The probability of a Kolmogorov-Smirnov statistic of at least `distance` among `n` draws.
pub(crate) fn ks_probability(distance: f64, n: usize) -> f64 {
    let root = (n as f64).sqrt();
    let x = (root + 0.12 + 0.11 / root) * distance;
    // Below this the series needs very many terms and the sum is 1 to nine digits.
    if x < 0.3 {
        return 1.0;
    }
    let term = |k: i32| (-2.0 * f64::from(k * k) * x * x).exp() * if k % 2 == 1 { 2.0 } else { -2.0 };
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// The arithmetic mean; NaN of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The median, `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// Between which two values half of them lie, `None` of nothing.
pub(crate) fn middle_half(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    Some((quantile(&sorted, 0.25)?, quantile(&sorted, 0.75)?))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The quantile `q` of ascending values, between two of them in proportion.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * sorted.len().checked_sub(1)? as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within the slice")]
    let below = place.floor() as usize;
    let low = *sorted.get(below)?;
    let high = *sorted.get(below + 1).unwrap_or(&low);
    Some(low + (high - low) * place.fract())
}
