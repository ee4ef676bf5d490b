use study::results::Course;

use super::*;
use crate::run::testing::{record, two_cells};

fn stored(trials: Vec<Trial>) -> Stored {
    let (experiment, course) = (two_cells(), Course::default());
    Stored { path: "results/two-1".into(), experiment, trials, environment: None, course, attached: None }
}

/// A record of every place of the order.
fn records() -> Vec<Trial> {
    (0..6).map(|trial| record(trial, trial % 2, 1.0)).collect()
}

#[test]
fn what_is_left_is_what_a_runner_would_run() {
    assert_eq!(left(&stored(records())), None);
    let of = |done| format!("{done} of 6 trials are stored; `acceptbench run --resume results/two-1` runs the others.");
    assert_eq!(left(&stored(records()[..4].to_vec())), Some(of(4)));
    let mut repeated = records();
    repeated[5].invalid.push("it was disturbed".to_owned());
    assert_eq!(left(&stored(repeated.clone())), Some(of(5)), "it is to be repeated");
    for retry in 1..=2 {
        repeated.push(Trial { retry, ..repeated[5].clone() });
    }
    assert_eq!(left(&stored(repeated)), None, "as often as it is tried");
}

#[test]
fn a_run_that_nobody_can_go_on_with_is_reported_with_the_reason() {
    let mut trials = records();
    trials[1].cell = 0;
    let said = left(&stored(trials)).expect("a sentence");
    let expected =
        "Nobody can go on with this run: results/two-1/trials.jsonl:2: trial 1 (block 0, cell 0) is not in the order";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn quantities_are_named_once_those_that_are_compared_first() {
    let mut experiment = two_cells();
    let named = |name| Quantity::named(name).expect("a quantity");
    (experiment.compare.main, experiment.compare.others) = (named("overflows"), vec![named("unserved-ratio")]);
    assert_eq!(
        quantities(&experiment),
        ["overflows", "unserved-ratio", "served-ratio", "confirm-latency.p50", "confirm-latency.p99", "phantoms"]
    );
}

#[test]
fn each_command_in_the_servers_place_is_told_once() {
    let mut trials = records();
    assert!(targets(&trials).is_empty());
    for trial in &mut trials {
        let settings = [("target.command".to_owned(), "nginx -c '{dir}/nginx.conf'".to_owned())].into();
        trial.target = Some(study::results::Target { settings, ..Default::default() });
    }
    assert_eq!(targets(&trials), ["in the server's place: nginx -c '{dir}/nginx.conf'"]);
}

#[test]
fn a_machine_is_told_alike_in_a_report_and_in_a_comparison() {
    let environment =
        Environment { kernel_release: Some("6.12.1".to_owned()), cpus_online: Some(4), ..Environment::default() };
    assert_eq!(known(&environment)["cpus-online"], "4");
    let lines = describe(&environment);
    assert!(lines.contains(&"kernel release: 6.12.1".to_owned()), "{lines:?}");
    assert_eq!(lines.len(), known(&environment).len(), "neither more nor less");
}
