//! Bursts that `watch --record` alone saw, replayed with other knobs, beside the true bursts under these knobs: the share that
//! is not served is the same, inside 95 % limits that hold for all bursts together. A burst that is outside is recorded, replayed
//! and run again: who loses a race for the last place in the queue loses it for the attempts behind it, too, so that runs
//! differ by more than chance for each attempt would have it, which one run of each cannot know.
//!
//! Each test has a network of its own. Three bursts by default; `ACCEPTBENCH_REPLAY_BURSTS=20` is what docs/replay.md shows.

#[path = "replay/burst.rs"]
mod burst;
#[path = "replay/elsewhere.rs"]
mod elsewhere;
#[path = "replay/input.rs"]
mod input;
#[path = "replay/scene.rs"]
mod scene;

use burst::Burst;
use rerun::{Own, in_namespaces};
use scene::{Lost, Scene, machine};

/// Bursts of a run of the tests, and where more can be asked for.
const FEW: u32 = 3;
const BURSTS: &str = "ACCEPTBENCH_REPLAY_BURSTS";

/// The z of two-sided limits that hold together with 95 % for `pairs` pairs (Bonferroni). Abramowitz & Stegun 26.2.23,
/// within 4.5e-4.
fn z(pairs: u32) -> f64 {
    let t = (-2.0 * (0.05 / 2.0 / f64::from(pairs)).ln()).sqrt();
    let above = 0.010_328_f64.mul_add(t, 0.802_853).mul_add(t, 2.515_517);
    let below = 0.001_308_f64.mul_add(t, 0.189_269).mul_add(t, 1.432_788).mul_add(t, 1.0);
    t - above / below
}

/// How often a burst is tried at most.
const ROUNDS: usize = 3;

/// Attempts of all runs together.
fn pooled(runs: &[Lost]) -> Lost {
    Lost { lost: runs.iter().map(|run| run.lost).sum(), planned: runs.iter().map(|run| run.planned).sum() }
}

/// The share that is lost, with one more of either outcome.
fn share(lost: Lost) -> f64 {
    (lost.lost + 1) as f64 / (lost.planned + 2) as f64
}

/// Squares of how far runs of a kind lie from their common share, in variances of the binomial distribution (Pearson).
fn scatter(runs: &[Lost]) -> f64 {
    let common = share(pooled(runs));
    let square = |run: &Lost| {
        let planned = run.planned as f64;
        (run.lost as f64 - planned * common).powi(2) / (planned * common * (1.0 - common))
    };
    runs.iter().map(square).sum()
}

/// Limits of the difference of two shares: Agresti & Caffo, *The American Statistician* 54 (2000), which has limits even where
/// nobody was lost; wider by as much as runs of a kind scatter more than binomially (quasi-likelihood: Wedderburn 1974).
fn limits(ones: &[Lost], others: &[Lost], z: f64) -> [f64; 2] {
    let (one, other) = (pooled(ones), pooled(others));
    let variance = |lost: Lost| share(lost) * (1.0 - share(lost)) / (lost.planned + 2) as f64;
    let freedom = (ones.len() + others.len() - 2) as f64;
    let dispersion = if freedom > 0.0 { ((scatter(ones) + scatter(others)) / freedom).max(1.0) } else { 1.0 };
    let (difference, width) = (share(one) - share(other), z * (dispersion * (variance(one) + variance(other))).sqrt());
    [difference - width, difference + width]
}

#[test]
fn the_limits_are_those_of_the_books() {
    assert!((z(1) - 1.96).abs() < 1e-3 && (z(20) - 3.0233).abs() < 1e-3, "{} {}", z(1), z(20));
    let lost = |lost| Lost { lost, planned: 98 };
    let [low, high] = limits(&[lost(49)], &[lost(49)], 1.96);
    assert!((high - 0.1386).abs() < 1e-4 && (low + high).abs() < 1e-12, "{low} {high}");
    let [low, high] = limits(&[lost(0)], &[lost(20)], 1.96);
    assert!(low < high && high < 0.0, "20 of 98 more are told apart: {low} {high}");
    // As often as not, so that a variance is a quarter of the attempts: (2 * (30 / 5)^2 + 0) / 2 = 36 of them.
    let even = |lost| Lost { lost, planned: 100 };
    let [low, high] = limits(&[even(20), even(80)], &[even(50), even(50)], 1.96);
    assert!((high - 1.96 * (36.0_f64 * 2.0 * 0.25 / 202.0).sqrt()).abs() < 1e-9 && (low + high).abs() < 1e-12);
    let [_, same] = limits(&[even(50), even(50)], &[even(50), even(50)], 1.96);
    assert!((same - 1.96 * (2.0_f64 * 0.25 / 202.0).sqrt()).abs() < 1e-9, "never narrower: {same}");
}

#[test]
fn what_was_recorded_and_replayed_loses_what_the_true_burst_loses() {
    let _machine = machine();
    in_namespaces("what_was_recorded_and_replayed_loses_what_the_true_burst_loses", Own::NetworkAndProcesses, || {
        let bursts: u32 = std::env::var(BURSTS).map_or(FEW, |text| text.parse().expect(BURSTS));
        let z = z(bursts);
        let mut outside = Vec::new();
        say(
            "burst                                      knobs           true        replayed   limits of the difference",
        );
        for number in 0..bursts {
            let burst = Burst::seeded(number);
            let (mut truths, mut replays) = (Vec::new(), Vec::new());
            let inside = (0..ROUNDS).any(|_| {
                let scene = Scene::new();
                let recording = scene.record(&burst);
                let replayed = scene.replay(&recording, &burst);
                let truth = scene.truth(&burst);
                truths.push(truth);
                replays.push(replayed.other);
                let [low, high] = limits(&truths, &replays, z);
                say(&format!(
                    "{number:>2} {burst:<40} {:<14} {:>4} of {:<4}  {:>4} of {:<4} {:>6.1} to {:>4.1} %   as recorded {} of {}",
                    burst.knobs(),
                    truth.lost,
                    truth.planned,
                    replayed.other.lost,
                    replayed.other.planned,
                    low * 100.0,
                    high * 100.0,
                    replayed.recorded.lost,
                    replayed.recorded.planned,
                ));
                let counted = f64::from(u32::try_from(replayed.other.planned).expect("attempts"));
                let (all, allowed) = (burst.instants.len() as f64, burst.miscounted());
                assert!(
                    (counted - all).abs() <= allowed,
                    "burst {number}: {counted} arrivals were told, there were {all}"
                );
                low <= 0.0 && high >= 0.0
            });
            if !inside {
                outside.push(number);
            }
        }
        assert!(outside.is_empty(), "bursts {outside:?} lose another share when they are replayed");
    });
}

#[expect(clippy::print_stdout, reason = "what is measured is shown")]
fn say(line: &str) {
    println!("{line}");
}
