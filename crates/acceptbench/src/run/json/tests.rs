use serde_json::{Value, json};
use study::results::Session;

use super::*;
use crate::run::testing::{record, two_cells};

fn parsed(event: &Event<'_>) -> Value {
    serde_json::from_str(&event.line()).expect("one JSON document")
}

fn course() -> Course {
    let warning = Warning::new("resumed-elsewhere", "kernel a → b", "compare");
    let session = |warnings| Session {
        started: jiff::Timestamp::UNIX_EPOCH,
        version: "1.0.0".to_owned(),
        revision: "abc".to_owned(),
        warnings,
    };
    Course { only: Vec::new(), sessions: vec![session(Vec::new()), session(vec![warning])] }
}

fn progress(experiment: &Experiment) -> (Agenda, Progress) {
    let agenda = Agenda::new(experiment);
    let progress = Progress::new(&agenda, Budget::of(experiment, &agenda, &[]));
    (agenda, progress)
}

#[test]
fn the_start_is_a_budget() {
    let (experiment, course) = (two_cells(), course());
    let (_, progress) = progress(&experiment);
    let address = Some(([127, 0, 0, 1], 9712).into());
    let start = parsed(&Event::Start(Start::new(&experiment, Path::new("results/x"), address, &course, progress)));
    let counts = ["cells", "replicates", "retries", "trials", "done", "resumed"].map(|key| start[key].clone());
    assert_eq!(json!(counts), json!([2, 3, 2, 6, 0, 1]));
    assert_eq!(
        (&start["metrics"], &start["directory"]),
        (&json!("http://127.0.0.1:9712/metrics"), &json!("results/x"))
    );
    assert!((start["expected-seconds"].as_f64().expect("seconds") - 13.14).abs() < 0.01, "{start}");
    assert_eq!(start["warnings"][0]["code"], "resumed-elsewhere");
}

#[test]
fn a_trial_that_does_not_count_says_why_and_whether_it_is_repeated() {
    let experiment = two_cells();
    let (agenda, progress) = progress(&experiment);
    let quantity = Quantity::named("served-ratio").expect("a quantity");
    let mut trial = record(0, 0, 1.5);
    trial.invalid.push("the books never stood still".to_owned());
    trial.loadgen.measured.planned = 8;
    trial.loadgen.measured.verdicts = [(Verdict::Served, 6), (Verdict::TimedOut, 2)].into();
    let ended = parsed(&Event::Ended(Box::new(Ended::new(&trial, quantity, &agenda, progress))));
    assert_eq!((&ended["valid"], &ended["repeated"], &ended["seconds"]), (&json!(false), &json!(true), &json!(1.5)));
    assert_eq!(ended["verdicts"], json!({ "served": 6, "timed-out": 2 }));
    assert_eq!(ended["quantity"], json!({ "name": "served-ratio", "value": 0.75, "unit": "ratio" }));
    assert_eq!((&ended["invalid"][0], &ended["residuals"]), (&json!("the books never stood still"), &json!({})));
    let latency = Quantity::named("confirm-latency.p99").expect("a quantity");
    let ended = parsed(&Event::Ended(Box::new(Ended::new(&trial, latency, &agenda, progress))));
    assert_eq!(ended["event"], "ended");
    let nothing = json!({ "name": "confirm-latency.p99", "value": null, "unit": "seconds" });
    assert_eq!(ended["quantity"], nothing, "the latency of nothing");
}

#[test]
fn the_end_names_what_went_wrong() {
    let experiment = two_cells();
    let failed = Err(Failure::Requirement("the disk is full".to_owned()));
    let end = parsed(&Event::End(Box::new(End::new(&experiment, Path::new("results/x"), None, &failed))));
    assert_eq!(end["exit"], json!({ "code": 69, "meaning": "the disk is full" }));
    assert_eq!((&end["answer"], &end["summary"]), (&Value::Null, &Value::Null));
    let trials = [record(0, 0, 1.0), record(1, 1, 1.0)];
    let answer = Answer::of(&experiment, &trials, None).expect("an answer").noting(vec!["A note.".to_owned()]);
    let end =
        parsed(&Event::End(Box::new(End::new(&experiment, Path::new("results/x"), Some(&answer), &Ok(Exit::Success)))));
    assert_eq!((&end["summary"]["valid"], &end["notes"][0]), (&json!(2), &json!("A note.")));
    assert_eq!(end["exit"], json!({ "code": 0, "meaning": "all well" }));
    assert!(end["answer"].as_str().is_some_and(|answer| !answer.is_empty()), "{end}");
}

#[test]
fn every_key_of_every_event_stands_on_its_page() {
    let page = include_str!("../../../../../docs/experiments.md");
    let (experiment, course, trial) = (two_cells(), course(), record(0, 0, 1.0));
    let (agenda, progress) = progress(&experiment);
    let quantity = Quantity::named("served-ratio").expect("a quantity");
    let planned = agenda.upcoming().expect("a trial");
    let end = Ok(Exit::Success);
    for event in [
        Event::Start(Start::new(&experiment, Path::new("x"), None, &course, progress)),
        Event::Began(Began::new(planned, "backlog 16", progress)),
        Event::Ended(Box::new(Ended::new(&trial, quantity, &agenda, progress))),
        Event::End(Box::new(End::new(&experiment, Path::new("x"), None, &end))),
    ] {
        let event = parsed(&event);
        let name = event["event"].as_str().expect("a name");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        let row = row.unwrap_or_else(|| panic!("{name} has no row"));
        for key in event.as_object().expect("an object").keys().filter(|key| *key != "event") {
            assert!(row.contains(&format!("`{key}`")), "{name} has {key}: {row}");
        }
    }
}
