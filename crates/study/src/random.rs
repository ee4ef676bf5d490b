//! Random numbers by a named algorithm (xoshiro256++): the same seed gives the same p and the same interval everywhere.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A number below `end`, by multiplication (Lemire 2019): the bias is below 2^-50 for any number of cells.
pub(crate) fn below(random: &mut Xoshiro256PlusPlus, end: usize) -> usize {
    let product = u128::from(random.next_u64()) * end as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

/// Puts a list into a random order (Fisher-Yates).
pub(crate) fn shuffle(list: &mut [usize], random: &mut Xoshiro256PlusPlus) {
    for last in (1..list.len()).rev() {
        list.swap(last, below(random, last + 1));
    }
}

/// Streams of one seed that do not overlap: 2^128 numbers apart.
pub(crate) fn streams(seed: u64, number: u64) -> Vec<Xoshiro256PlusPlus> {
    let mut next = Xoshiro256PlusPlus::seed_from_u64(seed);
    let stream = |_| {
        let stream = next.clone();
        next.jump();
        stream
    };
    (0..number).map(stream).collect()
}

/// Uniform above 0 and below 1.
#[cfg(test)]
pub(crate) fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Normal with mean 0 and standard deviation 1, by Box and Muller.
#[cfg(test)]
pub(crate) fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    let (radius, angle) = ((-2.0 * uniform(random).ln()).sqrt(), std::f64::consts::TAU * uniform(random));
    radius * angle.cos()
}
