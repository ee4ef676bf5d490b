use super::*;
use crate::table::width;
use crate::testing;

const QUANTITIES: [&str; 3] = ["served-ratio", "confirm-latency.p99", "confirm-service.p50"];

fn environment(kernel: &str) -> BTreeMap<String, String> {
    [("kernel-release", kernel), ("cpus-allowed", "2")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Two runs of a design of two cells: backlog 16 and 128.
fn compared(a: &[&[(u64, u64)]], b: &[&[(u64, u64)]], bend: impl FnOnce(&mut Vec<Trial>)) -> Comparison {
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "128"])])]);
    let (one, mut other) = (testing::trials(&design, a), testing::trials(&design, b));
    bend(&mut other);
    let environments = [environment("6.1.0"), environment("6.12.9")];
    let run = |name, trials, environment| Run { name, design: &design, trials, environment };
    let (a, b) = (run("a", &one, &environments[0]), run("b", &other, &environments[1]));
    Comparison::of(&a, &b, &[(0, 0), (1, 1)], &QUANTITIES, 0.05).unwrap()
}

/// Two runs of a design of so many cells, four trials each, compared in one quantity that `set` gives them by run, cell and
/// trial.
fn overall(quantity: &str, cells: usize, set: impl Fn(&mut Trial, usize, usize, u64)) -> (Overall, String) {
    let design =
        testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "32", "64", "128"][..cells])])]);
    let trials = |run: usize| -> Vec<Trial> {
        let places = (0..cells).flat_map(|cell| (0..4).map(move |number| (cell, number)));
        let trial = |(cell, number)| {
            let mut trial = testing::trial(cell);
            set(&mut trial, run, cell, number);
            trial
        };
        places.map(trial).collect()
    };
    let (one, other, same) = (trials(0), trials(1), environment("6.1.0"));
    let run = |name, trials| Run { name, design: &design, trials, environment: &same };
    let pairs: Vec<(usize, usize)> = (0..cells).map(|cell| (cell, cell)).collect();
    let found = Comparison::of(&run("a", &one), &run("b", &other), &pairs, &[quantity], 0.05).unwrap();
    (found.overall[0].clone(), found.text(80))
}

#[test]
fn cells_that_begin_at_nothing_are_not_left_out_over_all_cells() {
    let (found, text) = overall("overflows", 2, |trial, run, cell, number| {
        trial.server.kernel.net.listen_overflows = if run == 0 { 0 } else { 100 * (cell as u64 + 1) + number };
    });
    assert_eq!((found.change, found.finding), (None, Judgement::Worse), "{found:?}");
    assert!(text.contains("\nOver all cells: worse, from 0 in the median (p 0.00"), "{text}");
    // Two cells have something from nothing, one is as it was: the cell in the middle has more than any share.
    let (found, _) = overall("overflows", 3, |trial, run, cell, number| {
        trial.server.kernel.net.listen_overflows = if cell == 2 { 7 } else { run as u64 * (100 + number) };
    });
    assert_eq!((found.change, found.finding), (None, Judgement::Worse), "{found:?}");
}

#[test]
fn over_all_cells_a_median_against_the_mean_is_no_finding() {
    let (found, text) = overall("served-ratio", 3, |trial, run, cell, number| {
        let by = if cell == 2 { [900, 500] } else { [500, 560] };
        testing::serve(trial, by[run] + number, 1);
    });
    assert!(found.p.unwrap() <= 0.05 && (found.change.unwrap() - 0.06).abs() < 1e-9, "{found:?}");
    assert_eq!(found.finding, Judgement::Inconclusive, "two cells better by 6 points, one worse by 40");
    assert!(text.contains("\nOver all cells: inconclusive, median +6.0 pts, mean the other way (p 0.0"), "{text}");
    assert!(text.lines().all(|line| width(line) <= 80), "{text}");
}

const HALF: &[(u64, u64)] = &[(500, 10), (510, 10), (520, 10)];
const MORE: &[(u64, u64)] = &[(600, 20), (610, 20), (620, 20)];

#[test]
fn what_is_apart_overlaps_or_is_small_is_told_by_ranges_and_smallest_effect() {
    let wide: &[(u64, u64)] = &[(480, 10), (570, 10), (900, 10)];
    let found = compared(&[HALF, HALF], &[MORE, wide], |_| ());
    let served = |cell: usize| &found.cells[cell].quantities[0];
    assert_eq!(served(0).quantity, "served-ratio");
    assert!((served(0).difference.unwrap() - 0.1).abs() < 1e-9 && served(0).outcome == Outcome::Apart);
    assert!((served(1).change.unwrap() - 0.06).abs() < 1e-9 && served(1).outcome == Outcome::Overlap);
    let p99 = &found.cells[0].quantities[1];
    assert!((p99.difference.unwrap() - 0.01).abs() < 1e-3 && (p99.change.unwrap() - 1.0).abs() < 0.05, "{p99:?}");
    assert_eq!(found.cells[0].quantities.len(), 2, "what nobody measured is not shown");
    let near = compared(&[HALF, HALF], &[&[(540, 10)], HALF], |_| ());
    assert_eq!(near.cells[0].quantities[0].outcome, Outcome::Small, "apart by 3 points, and 5 matter");
    assert_eq!(near.cells[1].quantities[0].difference, Some(0.0));
}

#[test]
fn over_all_cells_a_finding_needs_size_and_no_chance() {
    let overall = |a: &[&[(u64, u64)]], b: &[&[(u64, u64)]]| compared(a, b, |_| ()).overall;
    let four: &[(u64, u64)] = &[(500, 10), (505, 10), (510, 10), (515, 10)];
    let more: &[(u64, u64)] = &[(600, 20), (605, 20), (610, 20), (615, 20)];
    let found = overall(&[four, four], &[more, more]);
    assert_eq!((found[0].quantity, found[0].finding), ("served-ratio", Judgement::Better));
    assert_eq!(
        (found[1].quantity, found[1].finding),
        ("confirm-latency.p99", Judgement::Worse),
        "it takes twice as long"
    );
    assert!(found.iter().all(|overall| overall.p.unwrap() < 0.01), "{found:?}");
    assert!((found[0].change.unwrap() - 0.1).abs() < 1e-9);
    let near: &[(u64, u64)] = &[(520, 10), (525, 10), (530, 10), (535, 10)];
    let small = &overall(&[four, four], &[near, near])[0];
    assert_eq!((small.finding, small.p.unwrap() < 0.01), (Judgement::NoDifference, true), "real and of no matter");
    let one = overall(&[&[(500, 10)], &[(500, 10)]], &[&[(900, 10)], &[(900, 10)]]);
    assert_eq!((one[0].p, one[0].finding), (None, Judgement::Inconclusive), "one trial each says nothing");
}

#[test]
fn invalid_trials_do_not_count_and_a_cell_without_valid_ones_has_no_difference() {
    let found = compared(&[HALF, HALF], &[MORE, HALF], |trials| {
        trials[0].invalid.push("off".to_owned());
        for trial in trials.iter_mut().filter(|trial| trial.cell == 1) {
            trial.invalid.push("off".to_owned());
        }
    });
    assert_eq!((found.cells[0].trials, found.cells[0].valid), ([3, 3], [3, 2]));
    let spread = found.cells[0].quantities[0].spreads[1].unwrap();
    assert_eq!((spread.trials, spread.median, spread.range), (2, f64::midpoint(0.61, 0.62), [0.61, 0.62]));
    let gone = &found.cells[1].quantities[0];
    assert_eq!((gone.spreads[1], gone.difference, gone.outcome), (None, None, Outcome::Missing));
}

#[test]
fn what_else_was_different_is_listed_and_nothing_else() {
    let found = compared(&[HALF, HALF], &[HALF, HALF], |trials| {
        for trial in trials {
            trial.sysctls.insert("net.ipv4.tcp_rmem".to_owned(), "4096\t131072\t33554432".to_owned());
        }
    });
    let unlike = |name: &str, values: [Option<&str>; 2]| Unlike {
        name: name.to_owned(),
        values: values.map(|value| value.map(str::to_owned)),
    };
    assert_eq!(found.environment, [unlike("kernel-release", [Some("6.1.0"), Some("6.12.9")])]);
    assert_eq!(found.sysctls, [unlike("net.ipv4.tcp_rmem", [None, Some("4096 131072 33554432")])]);
}

#[test]
fn the_tables_say_both_medians_their_ranges_and_the_difference_in_80_columns() {
    let text = compared(&[HALF, HALF], &[MORE, HALF], |_| ()).text(80);
    for line in text.lines() {
        assert!(width(line) <= 80, "{} characters: {line}", width(line));
        assert_eq!(line, line.trim_end());
    }
    let words = |begin: &str, skip: usize| {
        let line = text.lines().filter(|line| line.starts_with(begin)).nth(skip).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words("A  a", 0), "A a 6 trials, 6 valid");
    assert_eq!(words("  kernel-release", 0), "kernel-release 6.1.0 6.12.9");
    assert_eq!(words("backlog 16", 0), "backlog 16 51.0 % 61.0 % +10.0 pts apart");
    assert_eq!(words("      ", 0), "50.0–52.0 % 60.0–62.0 %");
    assert!(text.contains(" pts in the median (p 0."), "{text}");
    assert!(text.contains("\nThe same median in both: 1 cell\n") && !text.contains("\nbacklog 128"), "{text}");
    assert!(words("backlog 16", 1).ends_with("% apart"), "{text}");
    assert!(text.contains("Effective sysctls: no difference"), "{text}");
    let same = compared(&[HALF, HALF], &[HALF, HALF], |_| ()).text(80);
    assert!(same.contains("\nserved of planned: the same median in every cell\n"), "{same}");
}

#[test]
fn a_name_too_long_for_its_column_has_a_line_of_its_own() {
    let mut found = compared(&[HALF, HALF], &[MORE, HALF], |_| ());
    found.cells[0].name = "sustained overload: ".repeat(2);
    let text = found.text(80);
    let (at, _) = text.lines().enumerate().find(|(_, line)| line.starts_with("sustained")).unwrap();
    assert!(text.lines().nth(at + 1).unwrap().trim_start().starts_with("51.0 %"), "{text}");
}

#[test]
fn json_has_everything_the_tables_show() {
    let found = serde_json::to_value(compared(&[HALF, HALF], &[MORE, HALF], |_| ())).unwrap();
    assert_eq!(found["runs"], serde_json::json!(["a", "b"]));
    let served = &found["cells"][0]["quantities"][0];
    assert_eq!((&served["unit"], &served["outcome"]), (&"ratio".into(), &"apart".into()));
    assert_eq!(served["spreads"][0]["range"], serde_json::json!([0.5, 0.52]));
}
