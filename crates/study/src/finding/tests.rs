use Judgement::{Better, Inconclusive, NoDifference, Worse};

use super::*;
use crate::testing;

mod simulated;

const LOW: &[(u64, u64)] = &[(170, 800), (172, 800), (174, 800), (172, 800)];
const HIGH: &[(u64, u64)] = &[(1000, 2); 4];

fn backlogs(levels: &[&str]) -> Design {
    testing::design(&[(None, vec![testing::factor("server.backlog", levels)])])
}

fn compared(comparison: &Comparison, trials: &[Trial]) -> Findings {
    let names: Vec<&str> = comparison.metrics.iter().map(|metric| metric.name).collect();
    let summary = Summary::of(comparison.design, trials, &names).unwrap();
    Findings::of(comparison, trials, &summary)
}

fn findings(design: &Design, baselines: &[usize], metrics: &[&str], trials: &[Trial]) -> Findings {
    let metrics: Vec<&'static Quantity> = metrics.iter().map(|name| Quantity::named(name).unwrap()).collect();
    let comparison =
        Comparison { design, baselines, metrics: &metrics, smallest_effect: 0.05, claim: Claim::Findings, seed: 1 };
    compared(&comparison, trials)
}

fn judgements(findings: &Findings) -> Vec<Judgement> {
    findings.contrasts.iter().map(|contrast| contrast.judgement).collect()
}

#[test]
fn every_cell_is_held_against_the_baseline_in_every_metric() {
    let design = backlogs(&["16", "128", "512", "1024"]);
    let trials = testing::trials(&design, &[LOW, HIGH, &[(990, 2), (995, 2), (992, 2), (996, 2)], HIGH]);
    let found = findings(&design, &[1], &["served-ratio", "confirm-latency.p99"], &trials);
    assert_eq!(judgements(&found), [Worse, NoDifference, NoDifference, Worse, NoDifference, NoDifference]);
    assert!(found.contrasts.iter().all(|contrast| contrast.baseline == 1));
    let served = found.contrast(1, 0, "served-ratio").unwrap();
    assert_eq!((served.medians, served.blocks, served.interval), ([1.0, 0.172], 4, None));
    assert!((served.effect.unwrap() + 0.828).abs() < 1e-9);
    // Of 4^4 places for the one cell that differs it is the same label's in 4.
    assert!((served.p.unwrap() - 1.0 / 64.0).abs() < 0.006 && !found.exact, "{served:?}");
    assert_eq!(found.sentence().unwrap(), "2 worse of 6 comparisons, adjusted p ≤ 0.05");
    let latency = found.contrast(1, 0, "confirm-latency.p99").unwrap();
    assert!(latency.effect.unwrap() > 300.0, "a share of the baseline: {latency:?}");
}

#[test]
fn a_difference_below_the_smallest_effect_is_none_however_repeatable() {
    let design = backlogs(&["16", "128", "512", "1024"]);
    let little: &[(u64, u64)] = &[(200, 800), (202, 800), (204, 800), (203, 800)];
    let found = findings(&design, &[0], &["served-ratio"], &testing::trials(&design, &[LOW, little, LOW, LOW]));
    let contrast = found.contrast(0, 1, "served-ratio").unwrap();
    assert!(contrast.p.unwrap() <= 0.05, "{contrast:?}");
    assert_eq!(contrast.judgement, NoDifference);
    assert_eq!(contrast.judgement_in_words(), "no difference: below the smallest effect");
    assert_eq!(found.sentence().unwrap(), "no difference of 3 comparisons, adjusted p ≤ 0.05");
}

#[test]
fn what_cannot_reach_a_twentieth_is_not_tested() {
    let design = backlogs(&["16", "128"]);
    let found = findings(&design, &[0], &["served-ratio"], &testing::trials(&design, &[LOW, HIGH]));
    assert_eq!((found.relabellings, found.contrasts[0].p, found.contrasts[0].own_p), (0, None, None));
    assert_eq!(found.contrasts[0].judgement, Inconclusive);
    assert!((found.grids[0].reachable - 0.125).abs() < 1e-12 && !found.grids[0].tested);
    assert_eq!(found.sentence().unwrap(), "not tested: 2 cells in 4 blocks reach p 0.12 only; judged by range");
    let (low, high) = ([LOW, &LOW[..2]].concat(), [HIGH, &HIGH[..2]].concat());
    let found = findings(&design, &[0], &["served-ratio"], &testing::trials(&design, &[&low, &high]));
    assert_eq!(judgements(&found), [Better]);
    assert!((found.contrasts[0].p.unwrap() - 2.0 / 64.0).abs() < 1e-12);
}

#[test]
fn invalid_trials_leave_gaps_and_a_repeated_one_fills_its_own() {
    let design = backlogs(&["16", "128", "512"]);
    let mut trials = testing::trials(&design, &[LOW, HIGH, LOW]);
    trials[5].invalid.push("the generator was the bottleneck".to_owned());
    let found = findings(&design, &[0], &["served-ratio"], &trials);
    assert_eq!(found.contrasts[0].blocks, 3);
    // Blocks of 3, 2, 3 and 3 cells: 2 of 54 places.
    assert!((found.grids[0].reachable - 2.0 / 54.0).abs() < 1e-12 && found.relabellings == 432, "{found:?}");
    let mut again = trials[5].clone();
    (again.trial, again.invalid) = (12, Vec::new());
    trials.push(again);
    let found = findings(&design, &[0], &["served-ratio"], &trials);
    assert_eq!((found.contrasts[0].blocks, found.relabellings, found.exact), (4, 1296, true));
    assert_eq!(judgements(&found), [Better, NoDifference]);
}

#[test]
fn another_grid_has_a_baseline_of_its_own_or_is_not_compared() {
    let factor = |levels| vec![testing::factor("server.backlog", levels)];
    let design = testing::design(&[
        (None, factor(&["16", "128", "512", "1024"])),
        (Some("overload"), factor(&["16", "128", "512", "1024"])),
        (Some("alone"), factor(&["16"])),
        (Some("few"), factor(&["16", "128"])),
    ]);
    let cells = [LOW, HIGH, LOW, LOW, HIGH, HIGH, LOW, HIGH, LOW, LOW, HIGH];
    let trials = testing::trials(&design, &cells);
    let found = findings(&design, &[0, 5, 8, 9], &["served-ratio"], &trials);
    assert_eq!(
        judgements(&found),
        [Better, NoDifference, NoDifference, NoDifference, Worse, NoDifference, Inconclusive]
    );
    assert_eq!(found.contrasts[3].name, "overload: backlog 16");
    // Each of the two grids gives the other 1/64 to stand out from.
    assert!((found.contrasts[0].p.unwrap() - 2.0 / 64.0).abs() < 0.008, "{:?}", found.contrasts[0]);
    assert_eq!(
        found.sentence().unwrap(),
        "1 better, 1 worse of 6 comparisons, adjusted p ≤ 0.05; few: backlog 16: by range, 2 cells in 4 blocks reach p 0.12 only"
    );
    assert_eq!(
        found.grids.iter().map(|grid| grid.name.as_str()).collect::<Vec<_>>(),
        ["backlog 16", "overload: backlog 128", "few: backlog 16"]
    );
    assert_eq!(findings(&design, &[0], &["served-ratio"], &trials).contrasts.len(), 3);
}

#[test]
fn from_six_blocks_on_effects_have_intervals_and_json_keeps_everything() {
    let design = backlogs(&["16", "128"]);
    let slow: Vec<(u64, u64)> = [100, 104, 98, 101, 99, 103].map(|ms| (1000, ms)).to_vec();
    let fast: Vec<(u64, u64)> = [60, 63, 58, 61, 60, 62].map(|ms| (1000, ms)).to_vec();
    let found = findings(&design, &[0], &["confirm-latency.p99"], &testing::trials(&design, &[&slow, &fast]));
    let contrast = &found.contrasts[0];
    assert_eq!(contrast.judgement, Better, "less is better for a latency");
    let interval = contrast.interval.unwrap();
    let effect = contrast.effect.unwrap();
    assert!(interval.low <= effect && effect <= interval.high && interval.low < interval.high, "{contrast:?}");
    assert!((interval.low - effect).abs() < 0.03 && (interval.high - effect).abs() < 0.03, "{contrast:?}");
    let words = contrast.effect_and_interval(Unit::Seconds);
    assert!(words.starts_with("−39.") && words.contains(" % (95.0 % CI −4") && words.ends_with(" %)"), "{words}");
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.contains(r#""judgement":"better""#) && text.contains(r#""own-p":"#), "{text}");
    assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), found);
}

#[test]
fn what_was_not_tested_has_a_reason_of_its_own() {
    let factor = |levels| vec![testing::factor("server.backlog", levels)];
    let two = testing::design(&[(None, factor(&["16", "128"])), (Some("overload"), factor(&["16", "128"]))]);
    let (low, high) = ([LOW, &LOW[..2]].concat(), [HIGH, &HIGH[..2]].concat());
    let found = findings(&two, &[0, 2], &["served-ratio"], &testing::trials(&two, &[&low, &high, &low, &high]));
    assert_eq!(
        found.sentence().unwrap(),
        "1 better of 1 comparison, adjusted p ≤ 0.05; overload: backlog 16: by range, its p 0.031 and those of the grids \
         before it add up to more than 0.05"
    );
    let few = testing::design(&[(None, factor(&["16", "128", "512"])), (Some("overload"), factor(&["16", "128"]))]);
    let three = [&LOW[..3], &HIGH[..3], &LOW[..3], &LOW[..3], &HIGH[..3]];
    assert_eq!(
        findings(&few, &[0, 3], &["served-ratio"], &testing::trials(&few, &three)).sentence().unwrap(),
        "not tested: backlog 16: 3 cells in 3 blocks reach p 0.11 only, overload: backlog 16: 2 cells in 3 blocks reach p \
         0.25 only; judged by range"
    );
    let mut trials = testing::trials(&two, &[&low, &high]);
    for trial in trials.iter_mut().filter(|trial| (trial.block < 3) == (trial.cell == 0)) {
        trial.loadgen.measured.confirm_latency = telemetry::histogram::HistogramSnapshot::default();
    }
    assert_eq!(
        findings(&two, &[0], &["confirm-latency.p99"], &trials).sentence().unwrap(),
        "not tested: too few blocks in which a cell and its baseline have a value; judged by range"
    );
}

#[test]
fn an_effect_and_its_interval_are_of_the_same_trials() {
    let design = backlogs(&["16", "128"]);
    // The cell has no valid trial in the eight blocks in which the baseline takes twice as long.
    let base: Vec<(u64, u64)> = (0..14).map(|block| (1000, if block < 6 { 100 } else { 200 } + block)).collect();
    let cell: Vec<(u64, u64)> = (0..14).map(|block| (1000, 300 + block)).collect();
    let mut trials = testing::trials(&design, &[&base, &cell]);
    for trial in trials.iter_mut().filter(|trial| trial.cell == 1 && trial.block >= 6) {
        trial.invalid.push("residual".to_owned());
    }
    let contrast = &findings(&design, &[0], &["confirm-latency.p99"], &trials).contrasts[0];
    let (effect, interval) = (contrast.effect.unwrap(), contrast.interval.unwrap());
    assert!((0.4..0.6).contains(&effect) && contrast.blocks == 6, "{contrast:?}");
    assert!(interval.low <= effect && effect <= interval.high, "{contrast:?}");
    trials
        .iter_mut()
        .filter(|trial| trial.cell == 1 && trial.block == 5)
        .for_each(|t| t.invalid.push("off".to_owned()));
    assert_eq!(findings(&design, &[0], &["confirm-latency.p99"], &trials).contrasts[0].interval, None, "five values");
}

#[test]
fn ranges_are_not_tested_and_still_have_effects() {
    let design = backlogs(&["16", "128", "512"]);
    let trials = testing::trials(&design, &[LOW, HIGH, LOW]);
    let metrics = [Quantity::named("served-ratio").unwrap()];
    let comparison = Comparison {
        design: &design,
        baselines: &[0],
        metrics: &metrics,
        smallest_effect: 0.05,
        claim: Claim::Ranges,
        seed: 1,
    };
    let found = compared(&comparison, &trials);
    assert_eq!((found.relabellings, found.tested()), (0, None));
    assert!((found.contrasts[0].effect.unwrap() - 0.828).abs() < 1e-9);
    assert_eq!(found.contrasts[0].judgement_in_words(), "not tested");
    assert_eq!(found.sentence().unwrap(), "not asked for; judged by range");
}

#[test]
fn a_count_that_begins_at_zero_has_no_share_but_may_be_a_finding() {
    let design = backlogs(&["16", "128", "512"]);
    let mut trials = testing::trials(&design, &[HIGH, HIGH, HIGH]);
    for trial in trials.iter_mut().filter(|trial| trial.cell == 1) {
        trial.server.kernel.net.listen_overflows = 200 + trial.block as u64;
    }
    let found = findings(&design, &[0], &["overflows", "planned"], &trials);
    let contrast = found.contrast(0, 1, "overflows").unwrap();
    assert_eq!((contrast.effect, contrast.judgement), (None, Worse));
    assert_eq!(contrast.effect_in_words(Unit::Count), "from 0");
    assert_eq!(found.contrast(0, 2, "overflows").unwrap().effect, Some(0.0));
    assert_eq!(found.contrast(0, 2, "planned").unwrap().judgement, NoDifference);
}

#[test]
fn a_metric_without_a_good_side_changes() {
    let design = backlogs(&["16", "128", "512"]);
    let mut trials = testing::trials(&design, &[HIGH, HIGH, HIGH]);
    for trial in trials.iter_mut().filter(|trial| trial.cell == 2) {
        trial.server.syn_recv = 40;
    }
    let found = findings(&design, &[0], &["syn-recv"], &trials);
    assert_eq!(judgements(&found), [NoDifference, Judgement::Changed]);
}

#[test]
fn a_contrast_without_a_value_on_one_side_is_left_out() {
    let design = backlogs(&["16", "128", "512"]);
    let mut trials = testing::trials(&design, &[HIGH, HIGH, HIGH]);
    for trial in trials.iter_mut().filter(|trial| trial.cell == 2) {
        trial.loadgen.measured.confirm_latency = telemetry::histogram::HistogramSnapshot::default();
    }
    let found = findings(&design, &[0], &["served-ratio", "confirm-latency.p99"], &trials);
    assert_eq!(found.contrasts.len(), 3);
    assert_eq!(found.contrast(0, 2, "confirm-latency.p99"), None);
}
