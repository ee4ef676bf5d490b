use study::ledger::Ledger;
use study::results::{Timings, Topology};

use super::*;

/// Two cells, three times each; the second measures 2 s, the first 1 s.
pub(in crate::run) fn two_cells() -> Experiment {
    let text = r#"
        [experiment]
        name = "two"
        question = "which?"
        order = "as-written"
        [loadgen]
        deadline = "800ms"
        [[factor]]
        set = "experiment.measure"
        to = ["1s", "2s"]
    "#;
    Experiment::parse("two.toml", text).expect("a valid experiment")
}

/// The record of a trial in which nothing happened, but for the time it took.
pub(in crate::run) fn record(trial: usize, cell: usize, seconds: f64) -> Trial {
    Trial {
        trial,
        retry: 0,
        block: trial / 2,
        cell,
        name: format!("measure {}s", cell + 1),
        settings: std::collections::BTreeMap::new(),
        started: jiff::Timestamp::UNIX_EPOCH,
        topology: Topology::Veth,
        timings: Timings { load_ms: seconds * 1e3, ..Timings::default() },
        sysctls: std::collections::BTreeMap::new(),
        server: ::server::Snapshot::default(),
        loadgen: ::loadgen::Snapshot::default(),
        ledger: Ledger::default(),
        invalid: Vec::new(),
        warnings: Vec::new(),
    }
}

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
    let main = Quantity::named("served-ratio").ok();
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
