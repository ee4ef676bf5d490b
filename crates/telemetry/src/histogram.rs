//! Log-linear histograms for the hot path: one thread records, any thread takes snapshots.
//!
//! Owns the bucket layout that every part of acceptbench agrees on: 64 buckets per power of two, so a bucket is at
//! most 1/64 (1.6 %) as wide as the values in it. Values up to 128 have a bucket each. The index is computed from
//! `v - 1`, which makes a bucket the interval `(lower, upper]`: its upper edge is exactly the `le` bound of a
//! Prometheus histogram, and exposition needs no interpolation. The layout covers 0 to 2^40 (1 100 s in
//! nanoseconds); greater values are counted in the last bucket, and `max` still knows the greatest of them.
//!
//! Values are nanoseconds or plain counts; the histogram does not know which. The method is that of `HdrHistogram`
//! and of rezolus' H2 histograms with other constants.

mod bounds;
mod snapshot;

pub use bounds::{Bounds, FILL_PARTS, fill_parts, le_bounds};
pub use snapshot::{HistogramSnapshot, SnapshotError};

use crate::counter::Counter;

/// log2 of the number of buckets per octave.
const SUB_BITS: u32 = 6;
/// Buckets per octave.
const SUB: usize = 1 << SUB_BITS;
/// log2 of the greatest value that has a bucket of its own size.
const TOP_BITS: u32 = 40;

/// Number of buckets in every histogram. 18 kB of counters each: it fits the second-level cache of one core.
pub const BUCKETS: usize = (TOP_BITS - SUB_BITS + 1) as usize * SUB;

/// The bucket that counts `v`: the only one with `lower_edge < v <= upper_edge`.
///
/// Zero shares bucket 0 with 1; values above 2^40 share the last bucket.
#[inline]
pub fn bucket_of(v: u64) -> usize {
    let x = v.saturating_sub(1).min((1 << TOP_BITS) - 1);
    // Setting the sub-bucket bit gives the linear part the shift 0 without a branch.
    let shift = (x | SUB as u64).ilog2() - SUB_BITS;
    let sub = (x >> shift) as usize;
    shift as usize * SUB + sub
}

/// The greatest value that `bucket` counts (for the last bucket: that it counts exactly).
///
/// A `bucket` past the end is read as the last one.
pub fn upper_edge(bucket: usize) -> u64 {
    edge(bucket.min(BUCKETS - 1) + 1)
}

/// The greatest value below those that `bucket` counts; 0 for bucket 0, which also counts the value 0.
///
/// A `bucket` past the end is read as the last one.
pub fn lower_edge(bucket: usize) -> u64 {
    edge(bucket.min(BUCKETS - 1))
}

/// The smallest `x = v - 1` of `bucket`, which is the lower edge in terms of `v`.
fn edge(bucket: usize) -> u64 {
    if bucket < 2 * SUB {
        return bucket as u64;
    }
    let shift = bucket / SUB - 1;
    ((bucket % SUB + SUB) as u64) << shift
}

kernel::shareable! {
/// A histogram with one writer. It may live in memory shared between processes; elsewhere a structure of several is best
/// made by [`kernel::shared::zeroed`], since each is 18 kB.
///
/// The single-writer rule of [`Counter`] holds: only its owner may call [`record`](Self::record) and
/// [`record_n`](Self::record_n). A snapshot taken while the owner records is consistent bucket by bucket; its sum may
/// be ahead of its buckets by the record that is under way.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    /// One bit per row of 64 buckets that holds anything. A scrape of 64 workers visits 64 times 2240 counters, most of
    /// them zero and in the writer's cache; with the rows it leaves most of them alone.
    rows: Counter,
    sum: Counter,
    max: Counter,
}
}

impl Histogram {
    /// An empty histogram.
    #[expect(
        clippy::large_stack_arrays,
        reason = "18 kB once; structures of several are made by kernel::shared::zeroed"
    )]
    pub const fn new() -> Self {
        Self {
            buckets: [const { Counter::new() }; BUCKETS],
            rows: Counter::new(),
            sum: Counter::new(),
            max: Counter::new(),
        }
    }

    /// Counts one value. Owner only.
    #[inline]
    pub fn record(&self, v: u64) {
        self.record_n(v, 1);
    }

    /// Counts the same value `n` times. The sum saturates. Owner only.
    #[inline]
    pub fn record_n(&self, v: u64, n: u64) {
        if n == 0 {
            return;
        }
        let bucket = bucket_of(v);
        self.buckets[bucket].add(n);
        // `max` serves as "set this bit": a new row makes the set greater, a known one leaves it and its line alone.
        self.rows.max(self.rows.get() | 1 << (bucket / SUB));
        self.sum.set(self.sum.get().saturating_add(v.saturating_mul(n)));
        self.max.max(v);
    }

    /// What has been recorded so far. Any thread may call this.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot =
            HistogramSnapshot { sum: self.sum.get(), max: self.max.get(), ..HistogramSnapshot::default() };
        let rows = self.rows.get();
        for (first, row) in (0u32..).step_by(SUB).zip(self.buckets.chunks_exact(SUB)) {
            if rows & 1 << (first as usize / SUB) == 0 {
                continue;
            }
            for (bucket, counter) in (first..).zip(row) {
                let n = counter.get();
                if n > 0 {
                    // The count is the sum of the buckets rather than a counter of its own, so that the `+Inf` bucket
                    // and `_count` of one page always agree.
                    snapshot.count += n;
                    snapshot.buckets.push((bucket, n));
                }
            }
        }
        snapshot
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_values_are_exact_and_the_layout_has_no_gap() {
        assert_eq!(BUCKETS, 2240);
        assert_eq!(bucket_of(0), 0);
        for v in 1..=128 {
            let bucket = bucket_of(v);
            assert_eq!((lower_edge(bucket), upper_edge(bucket)), (v - 1, v));
        }
        for bucket in 1..BUCKETS {
            assert_eq!(lower_edge(bucket), upper_edge(bucket - 1), "gap at {bucket}");
            assert_eq!(bucket_of(upper_edge(bucket)), bucket);
            assert_eq!(bucket_of(lower_edge(bucket) + 1), bucket);
        }
        assert_eq!(upper_edge(BUCKETS - 1), 1 << 40);
    }

    #[test]
    fn values_past_the_top_are_counted_in_the_last_bucket() {
        let histogram = Histogram::new();
        histogram.record((1 << 40) + 1);
        histogram.record(u64::MAX);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets, vec![(2239, 2)]);
        assert_eq!((snapshot.count, snapshot.max), (2, u64::MAX));
        assert_eq!(snapshot.sum, u64::MAX, "the sum saturates");
        assert_eq!(upper_edge(usize::MAX), 1 << 40);
    }

    #[test]
    fn record_n_equals_n_records() {
        let (one, many) = (Histogram::new(), Histogram::new());
        for _ in 0..5 {
            one.record(1_000);
        }
        many.record_n(1_000, 5);
        many.record_n(9_999, 0);
        assert_eq!(one.snapshot(), many.snapshot());
        assert_eq!((one.snapshot().sum, one.snapshot().count, one.snapshot().max), (5_000, 5, 1_000));
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(v in (0u32..40).prop_flat_map(|bits| (1u64 << bits)..=(2u64 << bits))) {
            let bucket = bucket_of(v);
            let (lower, upper) = (lower_edge(bucket), upper_edge(bucket));
            prop_assert!(lower < v && v <= upper, "{lower} < {v} <= {upper}");
            if v > 64 {
                prop_assert!((upper - lower) * 64 <= lower, "({lower}, {upper}] is wider than 1/64");
            }
        }

        #[test]
        fn buckets_keep_the_order_of_values(a in 0u64..=1 << 41, b in 0u64..=1 << 41) {
            prop_assert!(bucket_of(a.min(b)) <= bucket_of(a.max(b)));
        }
    }
}
