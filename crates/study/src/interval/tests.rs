use super::*;

#[test]
fn five_trials_have_no_interval_and_six_have_their_range() {
    assert_eq!(Interval::of_median(&[1.0, 2.0, 3.0, 4.0, 5.0]), None);
    assert_eq!(Interval::of_median(&[]), None);
    let six = Interval::of_median(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    assert_eq!((six.low, six.high), (1.0, 6.0));
    assert!((six.coverage - 0.96875).abs() < 1e-12, "{}", six.coverage);
}

#[test]
fn thousands_of_trials_have_one_too() {
    let values: Vec<f64> = (0..5000).map(f64::from).collect();
    let interval = Interval::of_median(&values).unwrap();
    assert!((0.95..0.953).contains(&interval.coverage), "{interval:?}");
    // 2500 ± 1.96 √5000 / 2.
    assert!((interval.low - 2430.0).abs() < 2.0 && (interval.high - 2569.0).abs() < 2.0, "{interval:?}");
}

#[test]
fn coverage_is_as_often_as_it_says() {
    let mut covered = 0;
    for mut random in streams(3, 4000) {
        let mut values: Vec<f64> = (0..9).map(|_| below(&mut random, 1_000_000) as f64).collect();
        values.sort_by(f64::total_cmp);
        let interval = Interval::of_median(&values).unwrap();
        covered += u32::from(interval.low <= 500_000.0 && 500_000.0 <= interval.high);
    }
    // 96.1 % ± 3 standard errors.
    assert!((f64::from(covered) / 4000.0 - 0.961).abs() < 0.0092, "{covered}");
}

#[test]
fn a_bootstrap_needs_six_blocks_and_ends_that_are_numbers() {
    let mean = |blocks: &[usize]| blocks.iter().sum::<usize>() as f64 / blocks.len() as f64;
    assert_eq!(Interval::bootstrap(5, 1, mean), None);
    assert_eq!(Interval::bootstrap(6, 1, |_| f64::INFINITY), None);
    let interval = Interval::bootstrap(6, 1, mean).unwrap();
    assert!(interval.low < 2.5 && interval.high > 2.5 && interval.low > 0.0, "{interval:?}");
    assert_eq!(Interval::bootstrap(6, 1, mean), Some(interval), "the same seed");
    assert_eq!(Interval::bootstrap(6, 2, |_| 3.0).map(|same| (same.low, same.high)), Some((3.0, 3.0)));
}
