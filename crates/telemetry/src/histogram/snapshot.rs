//! What a histogram held at one moment: sparse, mergeable, and the form in which histograms are stored and sent.
//!
//! Owns the arithmetic between snapshots (merge, difference, quantile). Everything is exact by bucket: two snapshots
//! merged are bit for bit the snapshot of one histogram that saw both inputs. Nothing is interpolated.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{BUCKETS, bucket_of, upper_edge};

/// A histogram as data: the filled buckets only, in ascending order.
///
/// Units are those of the recorded values (nanoseconds or plain counts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct HistogramSnapshot {
    /// Number of recorded values; always the sum over `buckets`.
    pub count: u64,
    /// Sum of the recorded values, saturating.
    pub sum: u64,
    /// The greatest recorded value, exact; 0 when empty.
    pub max: u64,
    /// `(bucket, values in it)`, ascending by bucket, no zero counts. See [`bucket_of`].
    pub buckets: Vec<(u32, u64)>,
}

/// A snapshot as read, before its invariants are checked: merging relies on them, and a file may come from anywhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    count: u64,
    sum: u64,
    max: u64,
    buckets: Vec<(u32, u64)>,
}

/// Why stored data is not a histogram of this layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Buckets out of order or named twice.
    #[error("read a histogram: bucket {bucket} follows bucket {previous}; write buckets in ascending order, each once")]
    Order {
        /// The bucket that came too late.
        bucket: u32,
        /// The bucket before it.
        previous: u32,
    },
    /// A bucket this layout does not have.
    #[error("read a histogram: bucket {bucket} does not exist, the last one is {last}; was it written by another version?", last = BUCKETS - 1)]
    Unknown {
        /// The bucket that does not exist.
        bucket: u32,
    },
    /// A count that is not the sum over the buckets.
    #[error(
        "read a histogram: count says {count} values, its buckets hold {buckets}; the record is damaged, leave it out"
    )]
    Count {
        /// What `count` says.
        count: u64,
        /// What the buckets hold.
        buckets: u128,
    },
}

impl TryFrom<Stored> for HistogramSnapshot {
    type Error = SnapshotError;

    fn try_from(Stored { count, sum, max, buckets }: Stored) -> Result<Self, SnapshotError> {
        if let Some(pair) = buckets.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(SnapshotError::Order { bucket: pair[1].0, previous: pair[0].0 });
        }
        if let Some(&(bucket, _)) = buckets.last().filter(|(bucket, _)| *bucket as usize >= BUCKETS) {
            return Err(SnapshotError::Unknown { bucket });
        }
        let held: u128 = buckets.iter().map(|(_, n)| u128::from(*n)).sum();
        if held != u128::from(count) {
            return Err(SnapshotError::Count { count, buckets: held });
        }
        Ok(Self { count, sum, max, buckets })
    }
}

impl HistogramSnapshot {
    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The mean, exact unless the sum saturated; `None` when empty.
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum as f64 / self.count as f64)
    }

    /// Adds everything `other` counted. Exact by bucket, associative and commutative.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
        if other.buckets.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut ours, mut theirs) = (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        while let (Some(&&(a, n)), Some(&&(b, m))) = (ours.peek(), theirs.peek()) {
            let order = a.cmp(&b);
            merged.push(match order {
                Ordering::Less => (a, n),
                Ordering::Equal => (a, n + m),
                Ordering::Greater => (b, m),
            });
            if order.is_le() {
                ours.next();
            }
            if order.is_ge() {
                theirs.next();
            }
        }
        merged.extend(ours.chain(theirs));
        self.buckets = merged;
    }

    /// What was recorded after `earlier` was taken from the same histogram.
    ///
    /// Exact except for `max`: when the maximum did not move in between, the greatest value of the interval is only
    /// known to its bucket, and the upper edge of that bucket is given. Counts that went backwards (another histogram,
    /// a restart) count as zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.buckets.iter().peekable();
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for &(bucket, n) in &self.buckets {
            while before.next_if(|(b, _)| *b < bucket).is_some() {}
            let old = before.next_if(|(b, _)| *b == bucket).map_or(0, |&(_, old)| old);
            if n > old {
                buckets.push((bucket, n - old));
            }
        }
        let max = match buckets.last() {
            None => 0,
            Some(_) if self.max > earlier.max => self.max,
            Some(&(last, _)) => upper_edge(last as usize).min(self.max),
        };
        Self { count: buckets.iter().map(|(_, n)| n).sum(), sum: self.sum.saturating_sub(earlier.sum), max, buckets }
    }

    /// The value that a share `q` of all values does not exceed: the upper edge of the bucket that holds the
    /// `ceil(q * count)`-th value, or the greatest value where that is less. At most 1.6 % too high, never too low.
    ///
    /// `q` outside 0 to 1 is clamped. `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        // Scaled down by some ulp first: 0.07 * 100 is 7.000000000000001 in f64, and its ceiling would be the 8th value.
        let rank = (q.clamp(0.0, 1.0) * self.count as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil();
        let mut seen = 0u64;
        for &(bucket, n) in &self.buckets {
            seen += n;
            if seen as f64 >= rank {
                let bucket = bucket as usize;
                // The last bucket also counts what lies beyond its edge, so only the maximum bounds it.
                let edge = if bucket + 1 == BUCKETS { self.max } else { upper_edge(bucket) };
                return Some(edge.min(self.max));
            }
        }
        (!self.is_empty()).then_some(self.max)
    }

    /// How many values do not exceed the upper edge of `edge_bucket`: the Prometheus bucket with that `le`.
    pub fn cumulative(&self, edge_bucket: usize) -> u64 {
        self.buckets.iter().take_while(|(bucket, _)| *bucket as usize <= edge_bucket).map(|(_, n)| n).sum()
    }

    /// Counts one value here. For tools that build a histogram from stored data; the hot path uses
    /// [`Histogram`](super::Histogram).
    pub fn record(&mut self, v: u64) {
        // bucket_of is below BUCKETS, which fits u32 many times over.
        #[expect(clippy::cast_possible_truncation, reason = "a bucket index is below 2240")]
        let bucket = bucket_of(v) as u32;
        self.merge(&Self { count: 1, sum: v, max: v, buckets: vec![(bucket, 1)] });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Histogram;
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::new();
        for &v in values {
            histogram.record(v);
        }
        histogram.snapshot()
    }

    /// Values over the whole range, as spread as latencies are.
    fn values() -> impl Strategy<Value = Vec<u64>> {
        let value = (0u32..40, 0.0..1.0f64).prop_map(|(bits, part)| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test value, any will do")]
            let extra = ((1u64 << bits) as f64 * part) as u64;
            (1u64 << bits) + extra
        });
        proptest::collection::vec(value, 1..200)
    }

    #[test]
    fn an_empty_snapshot_has_no_quantile_and_no_mean() {
        let empty = HistogramSnapshot::default();
        assert!(empty.is_empty());
        assert_eq!((empty.quantile(0.5), empty.mean(), empty.cumulative(100)), (None, None, 0));
        assert_eq!(empty, Histogram::new().snapshot());
    }

    #[test]
    fn quantiles_pick_the_ceil_rank_in_spite_of_float_dust() {
        let hundred = of(&(1..=100).collect::<Vec<_>>());
        assert_eq!(hundred.quantile(0.07), Some(7));
        assert_eq!(hundred.quantile(0.071), Some(8));
        assert_eq!(hundred.quantile(0.0), Some(1));
        assert_eq!(hundred.quantile(0.99), Some(99));
        assert_eq!(hundred.quantile(1.0), Some(100));
        assert_eq!(hundred.mean(), Some(50.5));
        assert_eq!(hundred.cumulative(bucket_of(64)), 64);
    }

    #[test]
    fn a_quantile_never_exceeds_the_maximum() {
        assert_eq!(of(&[1_000_001]).quantile(0.5), Some(1_000_001));
        assert_eq!(of(&[5 << 40]).quantile(0.5), Some(5 << 40));
    }

    #[test]
    fn the_difference_of_two_moments_is_what_came_between() {
        let histogram = Histogram::new();
        histogram.record(5);
        histogram.record(900_000);
        let earlier = histogram.snapshot();
        histogram.record(5);
        histogram.record(7);
        histogram.record(1_000);
        let between = histogram.snapshot().since(&earlier);
        assert_eq!((between.count, between.sum), (3, 1_012));
        assert_eq!(between.max, upper_edge(bucket_of(1_000)), "an unmoved maximum is known to its bucket");
        histogram.record(2_000_000);
        assert_eq!(histogram.snapshot().since(&earlier).max, 2_000_000, "a new maximum is exact");
        assert_eq!(earlier.since(&earlier), HistogramSnapshot::default());
    }

    #[test]
    fn json_round_trips_and_a_foreign_layout_is_refused() {
        let snapshot = of(&[1, 1, 3_000]);
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(json, r#"{"count":3,"sum":3002,"max":3000,"buckets":[[0,2],[413,1]]}"#);
        assert_eq!(serde_json::from_str::<HistogramSnapshot>(&json).unwrap(), snapshot);
        for (buckets, cause) in
            [("[[4,1],[4,1]]", "ascending"), ("[[2240,1]]", "another version"), ("[[4,2]]", "its buckets hold 2")]
        {
            let text = format!(r#"{{"count":1,"sum":1,"max":1,"buckets":{buckets}}}"#);
            let error = serde_json::from_str::<HistogramSnapshot>(&text).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_merge_is_the_histogram_of_both_inputs(a in values(), b in values()) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(&merged, &of(&[a.clone(), b.clone()].concat()));
            prop_assert_eq!(merged.since(&of(&a)).buckets, of(&b).buckets);
        }

        #[test]
        fn a_quantile_is_never_low_and_at_most_1_6_percent_high(mut values in values(), q in 0.0..=1.0f64) {
            let estimate = of(&values).quantile(q).unwrap() as f64;
            values.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank of a short list")]
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            prop_assert!(exact <= estimate && estimate <= exact * (1.0 + 1.0 / 64.0), "{} for {}", estimate, exact);
        }

        #[test]
        fn recording_into_a_snapshot_equals_recording_before_it(values in values()) {
            let mut snapshot = HistogramSnapshot::default();
            for &v in &values {
                snapshot.record(v);
            }
            prop_assert_eq!(snapshot, of(&values));
        }
    }
}
