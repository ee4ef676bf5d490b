//! A search finds a limit that the kernel's rules say to the socket, and goes on with itself where it was interrupted.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Lab, last_of_each, machine, records, text};

/// Without cookies a quarter of `tcp_max_syn_backlog` is kept for peers that are known: at 64 the 49th half-open socket is the
/// last one in, so that nobody else is served.
const EXPERIMENT: &str = r#"
    [experiment]
    name = "searched"
    question = "how many half-open sockets leave room?"
    warm-up = "0s"
    measure = "100ms"
    [server]
    backlog = 128
    [loadgen]
    rate = 100
    deadline = "250ms"
    workers = 1
    [sysctl]
    "net.ipv4.tcp_syncookies" = 0
    "net.ipv4.tcp_max_syn_backlog" = 64
    [search]
    find = "half-open.count"
    between = [30, 80]
    while = "served-ratio >= 0.99"
    within = 0.02
"#;

/// What was asked, in the order of the search.
fn asked(directory: &Path) -> Vec<(usize, String)> {
    let trials = last_of_each(records(directory)).into_iter();
    trials.map(|trial| (trial.trial, trial.settings["half-open.count"].clone())).collect()
}

fn capacity(directory: &Path) -> Value {
    let summary = fs::read(directory.join("summary.json")).expect("a summary");
    serde_json::from_slice::<Value>(&summary).expect("JSON")["capacity"]["cells"][0]["estimate"].clone()
}

#[test]
fn a_limit_is_found_to_the_socket_and_an_interrupted_search_goes_on() {
    let _machine = machine();
    let lab = Lab::new();
    lab.file("searched.toml", EXPERIMENT);
    let output = lab.run(&["run", "searched.toml", "--admin", "off"]);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(text(&output.stdout).contains("the only cell holds up to 48 (48 to 49)"), "{said}");
    let directory = lab.path().join("results/latest");
    let (whole, found) = (asked(&directory), capacity(&directory));
    assert_eq!((&found["interval"], &found["complete"]), (&json!([48, 49]), &json!(true)));

    let lines = fs::read_to_string(directory.join("trials.jsonl")).expect("trials");
    let kept: String = lines.split_inclusive('\n').take(whole.len() / 2).collect();
    fs::write(directory.join("trials.jsonl"), kept).expect("a file of the run");
    let output = lab.run(&["report", "results/latest"]);
    assert!(text(&output.stdout).contains("The search is not done"), "{}", text(&output.stdout));
    let output = lab.run(&["run", "--resume", "results/latest", "--admin", "off"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((asked(&directory), capacity(&directory)), (whole, found), "as it would have");
    let output = lab.run(&["compare", "results/latest", "results/latest"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
}
