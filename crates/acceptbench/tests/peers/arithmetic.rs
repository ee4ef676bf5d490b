//! Spacing, Kolmogorov-Smirnov, medians and tables.

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::settings::Format;
use crate::statistics::{Spacing, distance, ks_probability, mean, median, middle_half};
use crate::table::{Table, WIDTH, probability, short, whole};

/// Stamps of three seconds with these gaps, which begin at an odd instant.
fn stamps(mut gap_ns: impl FnMut() -> f64) -> Vec<u64> {
    let (mut now, mut stamps) = (0.0, Vec::new());
    while now < 3e9 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 3e9")]
        stamps.push(12_345 + now as u64);
        now += gap_ns();
    }
    stamps
}

/// Exponential gaps of this mean.
fn exponential(mean_ns: f64) -> impl FnMut() -> f64 {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    move || -mean_ns * (1.0 - (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64).ln()
}

fn near(value: f64, expected: f64, within: f64) {
    assert!((value - expected).abs() <= within, "{value} is not within {within} of {expected}");
}

#[test]
fn an_even_line_has_no_variation_and_is_never_late() {
    let spacing = Spacing::of(&stamps(|| 200_000.0), 5_000.0).unwrap();
    near(spacing.rate, 5_000.0, 0.01);
    near(spacing.gap_us, 200.0, 1e-6);
    assert!(spacing.gap_cv < 1e-9 && spacing.late_p99_us < 0.01, "{spacing:?}");
    assert!(spacing.ks > 0.6 && spacing.ks_p < 1e-9, "no Poisson process: {spacing:?}");
    assert_eq!(spacing.arrivals, 13_000, "200 ms are cut off at either end");
}

#[test]
fn alternating_gaps_vary_as_much_as_they_do() {
    let mut long = false;
    let spacing = Spacing::of(
        &stamps(|| {
            long = !long;
            if long { 300_000.0 } else { 100_000.0 }
        }),
        5_000.0,
    )
    .unwrap();
    near(spacing.gap_sd_us, 100.0, 0.01);
    near(spacing.gap_cv, 0.5, 1e-3);
    near(spacing.late_p99_us, 100.0, 1.0);
}

#[test]
fn exponential_gaps_pass_at_their_own_rate_and_at_no_other() {
    let stamps = stamps(exponential(200_000.0));
    let spacing = Spacing::of(&stamps, 5_000.0).unwrap();
    near(spacing.gap_cv, 1.0, 0.03);
    assert!(spacing.ks < 0.02 && spacing.ks_p > 0.01, "{spacing:?}");
    assert!(Spacing::of(&stamps, 6_000.0).unwrap().ks_p < 1e-6);
}

#[test]
fn too_little_says_nothing() {
    assert_eq!(Spacing::of(&[], 1.0), None);
    assert_eq!(Spacing::of(&[1, 2, 3], 1.0), None);
    assert_eq!(Spacing::of(&[5; 1000], 1.0), None, "all at once: nothing is left between the edges");
}

#[test]
fn the_distance_looks_at_both_sides_of_each_step() {
    let ln2 = std::f64::consts::LN_2;
    near(distance(&[ln2], 1.0), 0.5, 1e-12);
    // F is 1/4 and 3/4; the steps are at 0, 1/2 and 1.
    near(distance(&[(4.0f64 / 3.0).ln(), 4.0f64.ln()], 1.0), 0.25, 1e-12);
    near(distance(&[1e9], 1.0), 1.0, 1e-12);
}

#[test]
fn the_probability_is_kolmogorovs() {
    // Critical values of the limiting distribution: 1.3581 at 5 %, 1.6276 at 1 %.
    let n = 1_000_000;
    near(ks_probability(1.3581 / 1e3, n), 0.05, 2e-4);
    near(ks_probability(1.6276 / 1e3, n), 0.01, 1e-4);
    near(ks_probability(0.0, n), 1.0, 0.0);
    near(ks_probability(1.0, n), 0.0, 0.0);
}

#[test]
fn medians_are_between_two_values_in_proportion() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    assert_eq!(middle_half(&[5.0, 1.0, 2.0, 3.0, 4.0]), Some((2.0, 4.0)));
    assert_eq!(middle_half(&[7.0]), Some((7.0, 7.0)));
    near(mean(&[1.0, 2.0, 6.0]), 3.0, 0.0);
}

#[test]
fn numbers_are_as_long_as_they_need_to_be() {
    assert_eq!([999.4, 1_000.0, 160_432.4, 1_234_567.0].map(whole), ["999", "1 000", "160 432", "1 234 567"]);
    assert_eq!(
        [0.123, 9.99, 9.996, 99.94, 99.96, 1_877.6].map(short),
        ["0.12", "9.99", "10.0", "99.9", "100", "1 878"]
    );
    assert_eq!([0.5, 0.001, 0.000_9].map(probability), ["0.500", "0.001", "< 0.001"]);
}

fn table() -> Table {
    Table {
        title: "word ".repeat(30),
        head: vec!["tool", "µs CPU"],
        words: 1,
        rows: vec![vec!["acceptbench".to_owned(), "7.5".to_owned()], vec!["ab".to_owned(), "12.5".to_owned()]],
        notes: vec!["a note".to_owned()],
    }
}

#[test]
fn a_table_is_aligned_and_fits_a_terminal() {
    let text = table().render(Format::Text);
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    assert!(text.ends_with("tool         µs CPU\nacceptbench     7.5\nab             12.5\na note\n"), "{text}");
}

#[test]
fn a_table_is_markdown_too() {
    let expected = "| tool | µs CPU |\n|---|---:|\n| acceptbench | 7.5 |\n| ab | 12.5 |\n\na note\n";
    assert!(table().render(Format::Markdown).ends_with(expected));
}
