//! What real experiments find where nothing differs, and where something does: 100 of each, in namespaces of their own.
//!
//! Ignored, because it takes twenty minutes of a machine that does nothing else:
//!
//! ```sh
//! cargo test --release -p acceptbench --test chance -- --ignored --nocapture
//! ```
#![expect(clippy::print_stdout, reason = "what is found is shown")]

use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Experiments of a kind. `ACCEPTBENCH_CHANCE_EXPERIMENTS` runs fewer, and then nothing is asserted.
const EXPERIMENTS: usize = 100;

/// Room for what is tested: 100 experiments at 5 % have 5 false findings, and more than 11 in 1 of 234 such hundreds.
const FALSE_FINDINGS: usize = 11;

/// A queue that overflows now and then and a load that has nothing to do with the levels: the SYN queue never fills.
const NOTHING_DIFFERS: &str = r#"
[experiment]
name = "chance"
question = "what is found where nothing differs?"
replicates = 4
seed = SEED
warm-up = "50ms"
measure = "200ms"
topology = "veth"
[server]
backlog = 16
accept-delay = "exp:500us"
[loadgen]
arrivals = "poisson"
rate = 1800
deadline = "100ms"
[sysctl]
"net.ipv4.tcp_syncookies" = 0
[[factor]]
set = "sysctl.net.ipv4.tcp_max_syn_backlog"
to = [1024, 2048, 4096, 8192]
[compare]
metrics = ["served-ratio", "confirm-latency.p50", "confirm-latency.p99"]
smallest-effect = 0.001
"#;

/// Eight clients in turn before one acceptor: each waits for eight services.
const A_FIFTH_MORE: &str = r#"
[experiment]
name = "power"
question = "is a service that takes a fifth longer found?"
replicates = 6
seed = SEED
warm-up = "50ms"
measure = "200ms"
topology = "veth"
[loadgen]
arrivals = "closed:8"
deadline = "500ms"
[[factor]]
set = "server.accept-delay"
to = ["1ms", "1200us"]
[compare]
metrics = ["confirm-latency.p50", "accept-rate"]
smallest-effect = 0.05
"#;

/// One measurement at a time: two would be each other's noise.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs the experiment with one seed after the other; how many had a finding, and how many there were.
fn with_findings(experiment: &str) -> (usize, usize) {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = std::env::var("ACCEPTBENCH_CHANCE_EXPERIMENTS").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(EXPERIMENTS);
    let found = (1..=count).filter(|seed| {
        let contrasts = contrasts(&experiment.replace("SEED", &seed.to_string()));
        let findings: Vec<String> = contrasts.iter().filter(|contrast| is_finding(contrast)).map(words).collect();
        println!("seed {seed}: {}", if findings.is_empty() { "nothing".to_owned() } else { findings.join("; ") });
        !findings.is_empty()
    });
    (found.count(), count)
}

/// One run; every contrast that was tested.
fn contrasts(experiment: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("experiment.toml"), experiment).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
    command.env_clear().current_dir(directory.path()).args(["run", "experiment.toml", "--admin", "off"]);
    let output = command.output().expect("the built program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = fs::read(directory.path().join("results/latest/summary.json")).expect("a summary");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    let contrasts = summary["findings"]["contrasts"].as_array().expect("contrasts").clone();
    assert!(!contrasts.is_empty() && contrasts.iter().all(|contrast| contrast["p"].is_number()), "{contrasts:?}");
    contrasts
}

fn is_finding(contrast: &Value) -> bool {
    ["better", "worse", "changed"].iter().any(|word| contrast["judgement"] == *word)
}

fn words(contrast: &Value) -> String {
    format!("{} {} by {} (p {})", contrast["name"], contrast["metric"], contrast["effect"], contrast["p"])
}

#[test]
#[ignore = "1600 trials take ten minutes of a machine that does nothing else"]
fn where_nothing_differs_little_is_found() {
    let (found, of) = with_findings(NOTHING_DIFFERS);
    println!("nothing differs: {found} of {of} experiments have a finding");
    assert!(of < EXPERIMENTS || found <= FALSE_FINDINGS, "{found} of {of}");
}

#[test]
#[ignore = "1200 trials take ten minutes of a machine that does nothing else"]
fn a_service_that_takes_a_fifth_longer_is_found() {
    let (found, of) = with_findings(A_FIFTH_MORE);
    println!("a fifth longer: {found} of {of} experiments have a finding");
    assert!(of < EXPERIMENTS || found * 10 >= of * 9, "{found} of {of}");
}
