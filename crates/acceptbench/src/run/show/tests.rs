use super::*;
use crate::run::testing::{record, two_cells};

#[test]
fn the_bar_fits_its_line_and_says_when_it_is_done() {
    let experiment = two_cells();
    let agenda = Agenda::new(&experiment);
    assert_eq!(
        bar(&agenda, "somaxconn 16, backlog 128", "14:03:10", 79),
        "[                ] 0/6  done by 14:03:10  somaxconn 16, backlog 128"
    );
    let long = bar(&agenda, &"sustained overload ".repeat(9), "14:03:10", 79);
    assert_eq!((long.chars().count(), long.ends_with('…')), (79, true), "{long}");
}

#[test]
fn a_line_says_what_a_trial_came_to_and_what_is_left() {
    let experiment = two_cells();
    let agenda = Agenda::new(&experiment);
    let main = Quantity::named("served-ratio").expect("a quantity");
    let mut trial = record(0, 0, 1.0);
    trial.loadgen.measured.planned = 4;
    trial.loadgen.measured.verdicts.insert(::loadgen::Verdict::Served, 1);
    let budget = Budget { trials: 5, left: std::time::Duration::from_secs(7) };
    let said = line(&trial, &agenda, main, budget);
    assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), "0/6 measure 1s served-ratio 25.0 % 7 s left");
    trial.invalid.push("it was disturbed".to_owned());
    assert!(line(&trial, &agenda, main, budget).contains("does not count, will be repeated"));
}

#[test]
fn a_run_opens_with_its_budget() {
    let experiment = two_cells();
    let agenda = Agenda::new(&experiment);
    let now: Zoned = "2026-05-01T14:02:00+02:00[+02:00]".parse().expect("an instant");
    let budget = Budget::of(&experiment, &agenda, &[]);
    assert_eq!(
        opening("two", &agenda, "", &budget.line(&now)),
        "two: 6 trials of about 2.19 s: 13 s, done by 14:02:13"
    );
}
