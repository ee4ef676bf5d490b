//! Whole experiments, from trials to judgements: what a known effect and a merely erratic cell come to.

use rand_core::RngCore;
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::*;
use crate::random::{normal, streams};

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some milliseconds")]
fn whole_ns(ns: f64) -> u64 {
    ns.round() as u64
}

/// Trials of six cells in four blocks with latencies of some 2 ms. Blocks differ by 10 %, trials by 3 %; `factor` is what a
/// cell does to its latency, given the noise of the trial.
fn experiment(random: &mut Xoshiro256PlusPlus, factor: impl Fn(usize, f64) -> f64) -> Vec<Trial> {
    let mut trials = Vec::new();
    for block in 0..4 {
        let level = 2e6 * (0.1 * normal(random)).exp();
        for cell in 0..6 {
            let mut trial = testing::trial(cell);
            trial.block = block;
            let served = 950 + random.next_u64() % 10;
            testing::serve_ns(&mut trial, served, whole_ns(level * factor(cell, normal(random))));
            trials.push(trial);
        }
    }
    trials
}

/// How many of `experiments` are such that `holds`.
fn count(
    experiments: u64,
    factor: impl Fn(usize, f64) -> f64 + Sync,
    holds: impl Fn(&Findings) -> bool + Sync,
) -> usize {
    let design = backlogs(&["16", "32", "64", "128", "256", "512"]);
    let holds = |mut random: Xoshiro256PlusPlus| {
        let trials = experiment(&mut random, &factor);
        holds(&findings(&design, &[0], &["served-ratio", "confirm-latency.p99"], &trials))
    };
    streams(11, experiments).into_par_iter().filter(|random| holds(random.clone())).count()
}

#[test]
fn a_service_time_a_fifth_longer_is_found() {
    let slower = |cell: usize, noise: f64| (0.03 * noise).exp() * if cell == 3 { 1.2 } else { 1.0 };
    let found = count(1000, slower, |findings| {
        findings.contrast(0, 3, "confirm-latency.p99").is_some_and(|contrast| contrast.judgement == Worse)
    });
    println!("found in {found} of 1000 experiments");
    assert!(found >= 950, "{found}");
}

#[test]
fn a_cell_that_is_merely_erratic_is_seldom_called_a_finding() {
    let erratic = |cell: usize, noise: f64| (if cell == 3 { 0.3 } else { 0.03 } * noise).exp();
    let found = count(2000, erratic, |findings| findings.contrasts.iter().any(|c| c.judgement.is_finding()));
    println!("called one in {found} of 2000 experiments");
    assert!(found <= 140, "{found}");
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let found = count(2000, |_, noise| (0.1 * noise).exp(), |f| f.contrasts.iter().any(|c| c.judgement.is_finding()));
    println!("found something in {found} of 2000 experiments");
    assert!(found <= 110, "{found}");
}
