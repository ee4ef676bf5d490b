//! Bursts that `watch --record` alone saw, replayed with other knobs, beside the true bursts under these knobs: the share that
//! is not served is the same, inside 95 % limits that hold for all bursts together.
//!
//! Each test has a network of its own. Three bursts by default; `ACCEPTBENCH_REPLAY_BURSTS=20` is what docs/replay.md shows.

#[path = "replay/burst.rs"]
mod burst;
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

/// Limits of the difference of two shares: Agresti & Caffo, *The American Statistician* 54 (2000), which has limits even where
/// nobody was lost.
fn limits(one: Lost, other: Lost, z: f64) -> [f64; 2] {
    let share = |lost: Lost| ((lost.lost + 1) as f64 / (lost.planned + 2) as f64, (lost.planned + 2) as f64);
    let variance = |(share, attempts): (f64, f64)| share * (1.0 - share) / attempts;
    let (one, other) = (share(one), share(other));
    let (difference, width) = (one.0 - other.0, z * (variance(one) + variance(other)).sqrt());
    [difference - width, difference + width]
}

#[test]
fn the_limits_are_those_of_the_books() {
    assert!((z(1) - 1.96).abs() < 1e-3 && (z(20) - 3.0233).abs() < 1e-3, "{} {}", z(1), z(20));
    let lost = |lost| Lost { lost, planned: 98 };
    let [low, high] = limits(lost(49), lost(49), 1.96);
    assert!((high - 0.1386).abs() < 1e-4 && (low + high).abs() < 1e-12, "{low} {high}");
    let [low, high] = limits(lost(0), lost(20), 1.96);
    assert!(low < high && high < 0.0, "20 of 98 more are told apart: {low} {high}");
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
            let scene = Scene::new();
            let recording = scene.record(&burst);
            let replayed = scene.replay(&recording, &burst);
            let truth = scene.truth(&burst);
            let [low, high] = limits(truth, replayed.other, z);
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
            assert!((counted - all).abs() <= allowed, "burst {number}: {counted} arrivals were told, there were {all}");
            if low > 0.0 || high < 0.0 {
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
