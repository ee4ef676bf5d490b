//! Intervals, from six trials on. Of a median by order statistics, whose coverage is exact whatever the distribution; of an
//! effect by the bootstrap, whose coverage is nominal.
//!
//! It refuses intervals from fewer trials: the range of five covers the median with 93.75 %, so nothing reaches 95 %. Those
//! who show a spread then show the range and call it range.

use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use crate::random::{below, streams};

/// What an interval is to cover at least (order statistics) or about (bootstrap).
pub const LEVEL: f64 = 0.95;

/// Fewest trials, or blocks, that an interval is made from.
pub const FEWEST: usize = 6;

/// Resamples of a bootstrap. With 1999 both ends are resamples themselves: the 50th and the 1950th.
pub const RESAMPLES: usize = 1_999;

/// An interval, in the unit of what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How often such an interval covers the truth, from 0 to 1: exact by order statistics, nominal by bootstrap.
    pub coverage: f64,
    /// How it was made.
    pub method: Method,
}

/// How an interval was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The k-th value from either end (David & Nagaraja 2003, *Order Statistics*, 7.1).
    OrderStatistics,
    /// Percentiles of the value in resamples (Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, 13.3). Not `BCa`:
    /// its acceleration rests on the jackknife, which fails for medians (there, 11.6).
    BootstrapPercentile,
}

impl Interval {
    /// Of the median of ascending values: the innermost pair, equally far from both ends, that covers it with 95 % or more.
    /// Ties only make it cover more. `None` of fewer than [`FEWEST`].
    pub fn of_median(ascending: &[f64]) -> Option<Self> {
        let number = ascending.len();
        // P(Binomial(n, 1/2) ≤ k − 1) is how often the median lies beyond the k-th value from one end. By logarithms: 2^-n
        // is no number beyond n = 1074.
        let mut log = -(number as f64) * std::f64::consts::LN_2;
        let (mut tail, mut pairs, mut missed) = (0.0, 0, 0.0);
        for beyond in 0..number / 2 {
            tail += log.exp();
            if 2.0 * tail > 1.0 - LEVEL {
                break;
            }
            (pairs, missed) = (beyond + 1, 2.0 * tail);
            log += ((number - beyond) as f64).ln() - ((beyond + 1) as f64).ln();
        }
        let (low, high) = (*ascending.get(pairs.checked_sub(1)?)?, *ascending.get(number - pairs)?);
        Some(Self { low, high, coverage: 1.0 - missed, method: Method::OrderStatistics })
    }

    /// Of a statistic of `number` things (blocks), which is given the indices of each resample, in any order. `None` of
    /// fewer than [`FEWEST`], and where an end is not finite.
    pub fn bootstrap(number: usize, seed: u64, mut statistic: impl FnMut(&[usize]) -> f64) -> Option<Self> {
        if number < FEWEST {
            return None;
        }
        let mut random: Xoshiro256PlusPlus = streams(seed, 1).pop()?;
        let mut resample = vec![0; number];
        let mut found: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                resample.fill_with(|| below(&mut random, number));
                statistic(&resample)
            })
            .collect();
        // A resample may have no value of one side; sorted among the others it would push the upper end out.
        found.retain(|value| !value.is_nan());
        found.sort_unstable_by(f64::total_cmp);
        let outside = (found.len() + 1) / 40;
        let low = *found.get(outside.checked_sub(1)?)?;
        let high = found[found.len() - outside];
        let method = Method::BootstrapPercentile;
        (low.is_finite() && high.is_finite()).then_some(Self { low, high, coverage: LEVEL, method })
    }
}

#[cfg(test)]
mod tests;
