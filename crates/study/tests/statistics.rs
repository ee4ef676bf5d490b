//! The statistics against scipy: `fixtures/statistics.py` makes `fixtures/statistics.json`.

use serde::Deserialize;
use study::interval::{Interval, Method};
use study::permutation::{Family, Layout};
use study::student;

#[derive(Deserialize)]
struct Fixtures {
    medians: Vec<Median>,
    student: Vec<Student>,
    bootstraps: Vec<Bootstrap>,
    pairs: Vec<Pair>,
    families: Vec<Expected>,
}

#[derive(Deserialize)]
struct Median {
    values: Vec<f64>,
    low: f64,
    high: f64,
    coverage: f64,
}

#[derive(Deserialize)]
struct Student {
    t: f64,
    freedom: usize,
    p: f64,
}

#[derive(Deserialize)]
struct Bootstrap {
    ratio: bool,
    base: Vec<f64>,
    other: Vec<f64>,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Pair {
    values: Vec<[f64; 2]>,
    p: f64,
}

#[derive(Deserialize)]
struct Expected {
    /// By metric, block and cell.
    metrics: Vec<Vec<Vec<Option<f64>>>>,
    statistics: Vec<f64>,
    p: Vec<f64>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("fixtures/statistics.json")).expect("fixtures")
}

fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let allowed = tolerance * expected.abs().max(1.0);
    assert!((found - expected).abs() <= allowed, "{what}: {found}, not {expected}");
}

#[test]
fn the_interval_of_a_median_is_that_of_the_quantile_test() {
    for case in fixtures().medians {
        let interval = Interval::of_median(&case.values).expect("six values or more");
        assert_eq!((interval.low, interval.high), (case.low, case.high), "{} values", case.values.len());
        assert_eq!(interval.method, Method::OrderStatistics);
        assert_close(interval.coverage, case.coverage, 1e-12, "coverage");
    }
}

#[test]
fn tails_of_student_s_t_are_right() {
    for case in fixtures().student {
        let p = student::two_sided(case.t, case.freedom).expect("degrees of freedom");
        // The series leaves what cancels from 1.
        assert_close(p, case.p, 1e-12, &format!("t {} with {} degrees of freedom", case.t, case.freedom));
    }
}

#[test]
fn the_bootstrap_comes_to_the_percentiles_of_many_more_resamples() {
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
    };
    for case in fixtures().bootstraps {
        let interval = Interval::bootstrap(case.base.len(), 1, |blocks| {
            let [from, to] =
                [&case.base, &case.other].map(|values| median(&mut blocks.iter().map(|b| values[*b]).collect()));
            if case.ratio { to - from } else { (to - from) / from }
        });
        let interval = interval.expect("six blocks or more");
        let allowed = 0.1 * (case.high - case.low);
        assert_close(interval.low, case.low, allowed, "lower end");
        assert_close(interval.high, case.high, allowed, "upper end");
        assert_eq!(interval.method, Method::BootstrapPercentile);
    }
}

#[test]
fn two_cells_come_to_the_paired_permutation_test() {
    for case in fixtures().pairs {
        let mut layout = Layout::new(2, case.values.len());
        layout.push(|block, cell| Some(case.values[block][cell]));
        let family = Family::test(&[layout], 999, 1);
        assert!(family.exact);
        assert_eq!(family.relabellings, 1 << case.values.len());
        assert_close(family.tested[0].p, case.p, 1e-12, "p");
    }
}

#[test]
fn families_come_to_brute_force_with_least_squares_in_complete_and_incomplete_blocks() {
    for case in fixtures().families {
        let (blocks, cells) = (case.metrics[0].len(), case.metrics[0][0].len());
        let mut layout = Layout::new(cells, blocks);
        for metric in &case.metrics {
            layout.push(|block, cell| metric[block][cell]);
        }
        let family = Family::test(&[layout], 999, 1);
        assert!(family.exact);
        assert_eq!(family.tested.len(), case.p.len());
        for (tested, (statistic, p)) in family.tested.iter().zip(case.statistics.iter().zip(&case.p)) {
            let place = format!("{blocks} blocks, metric {}, cell {}", tested.metric, tested.cell);
            assert_close(tested.statistic, *statistic, 1e-9, &place);
            assert_close(tested.p, *p, 1e-12, &place);
        }
    }
}
