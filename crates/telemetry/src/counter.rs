//! Counters for the hot path: one thread writes, any thread reads.
//!
//! Owns the single-writer rule. A relaxed load followed by a relaxed store compiles to plain moves; a locked
//! read-modify-write takes three times as long even when nobody else wants the line (0.7 against 1.9 ns on the machine
//! of `benches/hot_path.rs`), and every further writer makes it worse. The plain form is only right while
//! nobody else writes the same counter, so sharing a counter between writers is what this module refuses.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

kernel::shareable! {
/// A number that one thread writes and any thread may read. It may live in memory shared between processes.
///
/// **Single-writer rule:** [`add`](Self::add), [`set`](Self::set) and [`max`](Self::max) may only be called by the
/// counter's one owner. Two writers lose counts silently (they never cause undefined behaviour). Reads are relaxed: a
/// reader sees some recent value of each counter, with no order between counters, and the exact totals once the
/// writer has been joined.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);
}

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`, wrapping at 2^64. Owner only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`: for counts of what is there now. Only the one writer may call it.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Ordering::Relaxed);
    }

    /// The value as last seen by this thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Replaces the value. Owner only.
    #[inline]
    pub fn set(&self, v: u64) {
        self.0.store(v, Ordering::Relaxed);
    }

    /// Keeps the greater of the present value and `v`. Owner only.
    #[inline]
    pub fn max(&self, v: u64) {
        // A branch rather than an unconditional store: a new maximum is rare, and a line that is not written stays
        // shared between the caches of its readers.
        if v > self.get() {
            self.set(v);
        }
    }
}

/// One worker's counters on cache lines of their own.
///
/// 128 bytes, not 64: current x86-64 prefetches lines in pairs and some aarch64 cores have 128-byte lines, so with
/// 64 two neighbours would still slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

impl<T> Deref for Padded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_counter_adds_sets_and_keeps_the_greater() {
        let counter = Counter::new();
        counter.add(3);
        counter.add(4);
        assert_eq!(counter.get(), 7);
        counter.max(5);
        assert_eq!(counter.get(), 7);
        counter.max(9);
        assert_eq!(counter.get(), 9);
        counter.set(1);
        assert_eq!(counter.get(), 1);
    }

    #[test]
    fn totals_are_exact_once_the_writers_have_stopped() {
        let counters: [Padded<Counter>; 4] = Default::default();
        thread::scope(|scope| {
            for counter in &counters {
                scope.spawn(|| (0..100_000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counters.iter().map(|c| c.get()).sum::<u64>(), 400_000);
    }

    #[test]
    fn neighbours_never_share_a_pair_of_lines() {
        let counters: [Padded<Counter>; 2] = Default::default();
        let [a, b] = counters.each_ref().map(|c| std::ptr::from_ref(c).addr());
        assert_eq!(b - a, 128);
        assert_eq!(a % 128, 0);
    }
}
