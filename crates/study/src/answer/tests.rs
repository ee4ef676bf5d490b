use super::*;
use crate::design::Grid;
use crate::testing;

const LOW: &[(u64, u64)] = &[(170, 800), (172, 800), (174, 800)];
const HIGH: &[(u64, u64)] = &[(1000, 2), (1000, 2), (1000, 2)];

fn sentence_about(metric: &str, design: &Design, cells: &[&[(u64, u64)]], baseline: Option<usize>) -> String {
    let trials = testing::trials(design, cells);
    let summary = Summary::of(design, &trials, &[metric, P99]).unwrap();
    let quantity = Quantity::named(metric).unwrap();
    Evidence { design, summary: &summary, quantity, smallest_effect: 0.05, baseline }.sentence()
}

fn sentence(design: &Design, cells: &[&[(u64, u64)]]) -> String {
    sentence_about("served-ratio", design, cells, None)
}

fn one_factor(levels: &[&str]) -> Design {
    testing::design(&[(None, vec![testing::factor("server.backlog", levels)])])
}

#[test]
fn raising_both_helps_where_raising_one_alone_does_not() {
    let mid: &[(u64, u64)] = &[(600, 90), (610, 90), (620, 90)];
    let cells = [LOW, LOW, LOW, LOW, mid, mid, LOW, mid, HIGH];
    assert_eq!(
        sentence(&testing::backlog_design(), &cells),
        "raising one alone changed nothing; both to 1024: 17.2 → 100 %, p99 800 → 2.00 ms"
    );
}

#[test]
fn the_nearest_cell_that_does_as_well_is_named() {
    let cells = [LOW, LOW, LOW, LOW, HIGH, HIGH, LOW, HIGH, HIGH];
    let text = sentence(&testing::backlog_design(), &cells);
    assert!(text.contains("both to 128: 17.2 → 100 %"), "{text}");
}

#[test]
fn a_factor_that_helps_alone_is_named_with_its_figures() {
    let mid: &[(u64, u64)] = &[(500, 90), (510, 90)];
    let cells = [LOW, mid, mid, LOW, HIGH, HIGH, LOW, HIGH, HIGH];
    assert_eq!(
        sentence(&testing::backlog_design(), &cells),
        "raising somaxconn alone changed nothing; backlog to 128 alone: 17.2 → 50.5 %, p99 800 → 90.0 ms; both to 128: 17.2 → \
         100 %, p99 800 → 2.00 ms"
    );
}

#[test]
fn overlapping_ranges_are_not_claimed() {
    let wide: &[(u64, u64)] = &[(150, 800), (300, 800), (400, 800)];
    assert_eq!(
        sentence(&one_factor(&["16", "128"]), &[LOW, wide]),
        "backlog to 128: 17.2 → 30.0 % (ranges overlap), p99 800 → 800 ms"
    );
}

#[test]
fn a_change_below_the_smallest_effect_is_nothing_however_repeatable() {
    let little: &[(u64, u64)] = &[(200, 800), (201, 800), (202, 800)];
    assert_eq!(
        sentence(&one_factor(&["16", "128"]), &[LOW, little]),
        "raising backlog changed nothing; nothing beats backlog 16 (17.2 %)"
    );
}

#[test]
fn the_baseline_is_what_others_are_compared_with() {
    let text = sentence_about("served-ratio", &one_factor(&["16", "128", "1024"]), &[LOW, HIGH, LOW], Some(1));
    assert_eq!(text, "backlog to 1024 alone: 100 → 17.2 %, p99 2.00 → 800 ms; nothing beats backlog 128 (100 %)");
}

#[test]
fn words_are_changed_not_raised_and_lower_is_better_for_latency() {
    let design = testing::design(&[(None, vec![testing::factor("server.engine", &["epoll", "blocking"])])]);
    let slow: &[(u64, u64)] = &[(1000, 100), (1000, 100)];
    let same = sentence(&design, &[HIGH, HIGH]);
    assert_eq!(same, "changing engine changed nothing; nothing beats engine epoll (100 %)");
    let latency = sentence_about(P99, &design, &[slow, HIGH], None);
    assert_eq!(latency, "engine to blocking: 100 → 2.00 ms");
}

#[test]
fn the_smallest_effect_is_relative_for_times() {
    let cells: [&[(u64, u64)]; 2] = [&[(1000, 100), (1000, 100)], &[(1000, 97), (1000, 97)]];
    let text = sentence_about(P99, &one_factor(&["16", "128"]), &cells, None);
    assert!(text.starts_with("raising backlog changed nothing"), "3 % is below 5 %: {text}");
}

#[test]
fn one_trial_per_cell_says_that_no_spread_is_known() {
    let text = sentence(&one_factor(&["16", "128"]), &[&LOW[..1], &HIGH[..1]]);
    assert!(text.ends_with("; one trial per cell: no spread known"), "{text}");
}

#[test]
fn without_valid_trials_there_is_no_answer() {
    assert_eq!(sentence(&one_factor(&["16", "128"]), &[]), "no valid trial, no answer");
    assert_eq!(sentence(&one_factor(&["16", "128"]), &[&[], HIGH]), "backlog 16 has no valid trial to compare with");
}

#[test]
fn a_single_cell_is_described() {
    assert_eq!(sentence(&testing::design(&[(None, vec![])]), &[LOW]), "served of planned: 17.2 %, p99 800 ms");
}

#[test]
fn another_grid_says_which_level_served_most_and_which_least() {
    let levels = ["16", "1024"];
    let factor = || vec![testing::factor("server.backlog", &levels)];
    let design = testing::design(&[(None, factor()), (Some("sustained overload"), factor())]);
    let quick: &[(u64, u64)] = &[(480, 8), (490, 8), (500, 8)];
    let slow: &[(u64, u64)] = &[(700, 520), (710, 520), (720, 520)];
    let text = sentence(&design, &[LOW, HIGH, quick, slow]);
    let last = text.split("; ").last().unwrap();
    assert_eq!(last, "sustained overload: backlog 1024 served most (71.0 %), backlog 16 least (49.0 %)");
    let text = sentence(&design, &[LOW, HIGH, quick, quick]);
    let last = text.split("; ").last().unwrap();
    assert_eq!(last, "sustained overload: no level stands out beyond the spread (served of planned 49.0 %)");
}

#[test]
fn another_grid_of_one_cell_only_says_its_figure() {
    let factor = |levels| vec![testing::factor("server.backlog", levels)];
    let design = testing::design(&[(None, factor(&["16", "1024"])), (Some("sustained overload"), factor(&["16"]))]);
    let text = sentence(&design, &[LOW, HIGH, LOW]);
    assert!(text.ends_with("; sustained overload: served of planned 17.2 %"), "{text}");
}

#[test]
fn levels_that_set_several_things_are_named_by_their_label() {
    let design = one_factor(&["16", "1024"]);
    let [Grid { factors, .. }] = design.grids.as_slice() else { panic!("one grid") };
    assert_eq!(target(&design.cells[0], &design.cells[1], factors), "backlog to 1024");
    assert_eq!(raised_levels(&factors[0], 0), [1]);
    assert_eq!(raised_levels(&factors[0], 1), [0; 0]);
}

/// The sentence with the cells compared, each grid with its first cell.
fn tested(design: &Design, cells: &[&[(u64, u64)]]) -> String {
    let trials = testing::trials(design, cells);
    let mut summary = Summary::of(design, &trials, &["served-ratio", P99]).unwrap();
    testing::compare(design, &trials, &mut summary, &["served-ratio", P99]);
    let quantity = Quantity::named("served-ratio").unwrap();
    Evidence { design, summary: &summary, quantity, smallest_effect: 0.05, baseline: None }.sentence()
}

/// Four blocks of it.
fn four(per_mille: [u64; 4], ms: u64) -> Vec<(u64, u64)> {
    per_mille.map(|served| (served, ms)).to_vec()
}

#[test]
fn a_finding_is_claimed_although_its_range_touches_another() {
    let design = one_factor(&["16", "128", "512", "1024"]);
    // One block went badly for all alike: ranges overlap, differences do not.
    let [low, alike, high] =
        [[100, 500, 510, 520], [101, 502, 507, 521], [400, 802, 811, 819]].map(|served| four(served, 5));
    let cells: [&[(u64, u64)]; 4] = [&low, &alike, &low, &high];
    assert!(sentence(&design, &cells).contains("(ranges overlap)"), "{}", sentence(&design, &cells));
    assert_eq!(tested(&design, &cells), "backlog to 1024: 50.5 → 80.7 %, p99 5.00 → 5.00 ms");
}

#[test]
fn ranges_that_are_apart_are_not_claimed_when_chance_explains_them() {
    let design = one_factor(&["16", "128", "512", "1024"]);
    let [base, apart] = [[500, 510, 520, 505], [530, 900, 540, 950]].map(|served| four(served, 5));
    let wild = four([20, 990, 700, 300], 5);
    let cells: [&[(u64, u64)]; 4] = [&base, &apart, &wild, &wild];
    let text = tested(&design, &cells);
    assert!(text.contains("backlog to 128: 50.8 → 72.0 % (inconclusive: p 0."), "{text}");
    assert!(!sentence(&design, &cells).contains('('), "{}", sentence(&design, &cells));
}

#[test]
fn what_cannot_reach_a_finding_is_judged_by_range() {
    let design = one_factor(&["16", "128"]);
    let wide: &[(u64, u64)] = &[(150, 800), (300, 800), (400, 800)];
    assert_eq!(tested(&design, &[LOW, wide]), "backlog to 128: 17.2 → 30.0 % (ranges overlap), p99 800 → 800 ms");
    assert_eq!(tested(&design, &[LOW, HIGH]), sentence(&design, &[LOW, HIGH]));
}

#[test]
fn another_grid_stands_out_by_its_findings() {
    let factor = || vec![testing::factor("server.backlog", &["16", "128", "512", "1024"])];
    let design = testing::design(&[(None, factor()), (Some("overload"), factor())]);
    let [low, high] = [[170, 172, 174, 171], [600, 610, 620, 605]].map(|served| four(served, 5));
    let text = tested(&design, &[&low, &low, &low, &high, &high, &high, &high, &low]);
    assert!(text.ends_with("; overload: backlog 16 served most (60.7 %), backlog 1024 least (17.2 %)"), "{text}");
    let noise = four([160, 300, 200, 400], 5);
    let text = tested(&design, &[&low, &low, &low, &high, &low, &noise, &noise, &low]);
    assert!(text.contains("; overload: no level stands out beyond chance (served of planned 17.2–25.0 %)"), "{text}");
}
