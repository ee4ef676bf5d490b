//! How often experiments in which nothing differs come to something, and those in which something does to nothing.

use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;
use crate::random::uniform;

/// Student's t with two degrees of freedom: so heavy in its tails that it has no variance.
fn heavy(random: &mut Xoshiro256PlusPlus) -> f64 {
    let u = uniform(random);
    (2.0 * u - 1.0) / (2.0 * u * (1.0 - u)).sqrt()
}

/// The share of `experiments` for which `found` says so, each with random numbers of its own.
fn share(experiments: u64, found: impl Fn(u64, &mut Xoshiro256PlusPlus) -> bool + Sync) -> f64 {
    let runs: Vec<_> = (0..experiments).zip(streams(7, experiments)).collect();
    let found = runs.into_par_iter().filter_map(|(seed, mut random)| found(seed, &mut random).then_some(())).count();
    found as f64 / experiments as f64
}

/// Six cells in four blocks, two metrics that have half of their noise in common, blocks apart by five times the noise.
fn six_cells(random: &mut Xoshiro256PlusPlus, cell: impl Fn(usize, f64) -> f64) -> Layout {
    let mut layout = Layout::new(6, 4);
    let blocks: Vec<f64> = (0..4).map(|_| 5.0 * heavy(random)).collect();
    let common: Vec<f64> = (0..24).map(|_| heavy(random)).collect();
    for _ in 0..2 {
        let own: Vec<f64> = (0..24).map(|_| heavy(random)).collect();
        layout.push(|block, index| {
            let place = block * 6 + index;
            Some(blocks[block] + cell(index, common[place] + own[place]))
        });
    }
    layout
}

#[test]
fn of_experiments_without_any_effect_one_in_twenty_finds_something() {
    let rate = share(10_000, |seed, random| {
        let family = Family::test(&[six_cells(random, |_, noise| noise)], 199, seed);
        family.tested.iter().any(|tested| tested.p <= 0.05)
    });
    println!("{:.2} % of 10 000 experiments without an effect", rate * 100.0);
    assert!(rate <= 0.055, "{rate}");
    assert!(rate >= 0.045, "{rate}: an exact test uses up its 5 %");
}

#[test]
fn an_incomplete_block_does_not_raise_the_rate() {
    let rate = share(4_000, |seed, random| {
        let mut layout = six_cells(random, |_, noise| noise);
        // The trials of block 1 in cell 2 and of block 3 in the baseline do not count; one metric lacks another value.
        for values in &mut layout.metrics {
            (values[6 + 2], values[18]) = (None, None);
        }
        layout.metrics[0][below(random, 6)] = None;
        let family = Family::test(&[layout], 199, seed);
        assert_eq!(family.tested.len(), 10);
        family.tested.iter().any(|tested| tested.p <= 0.05)
    });
    println!("{:.2} % of 4000 with incomplete blocks", rate * 100.0);
    assert!((0.04..=0.058).contains(&rate), "{rate}");
}

#[test]
fn a_cell_that_is_far_off_does_not_make_the_others_findings() {
    let rate = share(4_000, |seed, random| {
        let far = |index: usize, noise: f64| if index == 5 { 1e4 + noise } else { noise };
        let family = Family::test(&[six_cells(random, far)], 199, seed);
        assert!(family.tested.iter().filter(|tested| tested.cell == 5).all(|tested| tested.p <= 0.05), "{family:?}");
        family.tested.iter().any(|tested| tested.cell != 5 && tested.p <= 0.05)
    });
    println!("{:.2} % of 4000 beside a cell that is far off", rate * 100.0);
    assert!(rate <= 0.06, "{rate}");
}
