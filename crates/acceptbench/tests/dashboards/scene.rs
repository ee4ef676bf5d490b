//! The scene, inside the private namespace: servers that overflow for different reasons, load generators that fail in
//! different ways, an experiment, a Prometheus; then every query.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use dashboards::client::Range;
use dashboards::queries;
use dashboards::query::Binds;
use kernel::sysctl;

use crate::ask::{Prometheus, now};
use crate::binds;
use crate::children::{ACCEPTBENCH, Running};
use crate::put::utf8;
use crate::{SOMAXCONN, look, provoked, set_somaxconn};

/// Where each program shows its metrics. The namespace is ours, so every port is free.
const CAPPED: &str = "127.0.0.1:9710";
const SHORT: &str = "127.0.0.1:9720";
const STALE: &str = "127.0.0.1:9730";
const BURSTS: &str = "127.0.0.1:9711";
const REFUSED: &str = "127.0.0.1:9721";
const STEADY: &str = "127.0.0.1:9731";
pub(crate) const RUNNER: &str = "127.0.0.1:9712";
const STARVED: &str = "127.0.0.1:9740";
const HELD: &str = "127.0.0.1:9741";
pub(crate) const WATCH: &str = "127.0.0.1:9713";

/// Descriptors of a server that runs out of them.
const DESCRIPTORS: &str = "--nofile=40";

/// Two trials of two cells, long enough to be scraped. More half-open sockets than the SYN queue holds: without cookies
/// it drops SYNs, with them it sends some.
const EXPERIMENT: &str = r#"
[experiment]
name = "regions"
question = "does each trial become a region?"
replicates = 2
retries = 0
seed = 7
warm-up = "100ms"
measure = "1500ms"
[half-open]
count = 12
[server]
backlog = 8
accept-delay = "2ms"
[loadgen]
rate = 300
deadline = "300ms"
[[factor]]
set = "sysctl.net.ipv4.tcp_syncookies"
to = [0, 1]
"#;

/// Time for rates to have a window of samples after the last change.
const SETTLE: Duration = Duration::from_secs(10);

/// Plays it and asks every query. `required`: a kernel that hides somaxconn is a failure, not a reason to skip.
pub(crate) fn play(required: bool) {
    let began = Instant::now();
    if !set_somaxconn("8", required) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let capped = server("127.0.0.1:9700", CAPPED, &["--backlog", "4096", "--acceptors", "2", "--accept-delay", "10ms"]);
    let programs = [
        server("127.0.0.1:9701", SHORT, &["--backlog", "4", "--accept-delay", "10ms"]),
        server("127.0.0.1:9702", STALE, &["--backlog", "64", "--accept-delay", "10ms"]),
        loadgen(BURSTS, "127.0.0.1:9700", &["--arrivals", "burst:100/250ms", "--deadline", "400ms"]),
        loadgen(STEADY, "127.0.0.1:9701", &["--rate", "300", "--deadline", "200ms", "--max-in-flight", "20"]),
        loadgen(REFUSED, "127.0.0.1:9", &["--rate", "50"]),
        starved("127.0.0.1:9703", STARVED),
        loadgen(HELD, "127.0.0.1:9703", &["--rate", "60", "--hold", "3s", "--deadline", "300ms"]),
        watch(),
    ];
    let prometheus = prometheus(directory.path(), &[CAPPED, SHORT, STALE, STARVED], &[BURSTS, REFUSED, STEADY, HELD]);
    let from = now();
    prometheus.wait_for("up == 1", programs.len() + 1);

    // Everything is scraped: trials, then changes that annotations are about. One server starts again and listens under
    // the new somaxconn, another keeps the limit of the old one.
    let run = experiment(directory.path(), EXPERIMENT);
    prometheus.wait_for("up{job=~\"run.*\"} == 1", 3);
    sysctl::write(SOMAXCONN, "16").expect("somaxconn of this namespace");
    capped.terminate();
    capped.finish(Duration::from_secs(10));
    let again = server("127.0.0.1:9700", CAPPED, &["--backlog", "4096", "--acceptors", "2", "--accept-delay", "10ms"]);
    thread::sleep(SETTLE);
    prometheus.wait_for("max(last_over_time(acceptbench_experiment_trials_completed_total[60s])) >= 4", 1);

    let range = Range { from, to: now() };
    binds::check(
        &prometheus,
        range,
        &[
            (CAPPED, Binds::Somaxconn, &[("somaxconn", "16"), ("backlog", "4096")]),
            (SHORT, Binds::Backlog, &[("somaxconn", "16"), ("backlog", "4")]),
            (STALE, Binds::Earlier, &[("somaxconn", "16"), ("limit", "8")]),
        ],
    );
    provoked::check(&prometheus, range);
    ask_everything(&prometheus, range);
    look::at_every_board(&prometheus, range, directory.path());
    drop((run, programs, again));
    println!("{:.0} s", began.elapsed().as_secs_f64());
}

/// Starts a program and waits until it shows its metrics.
fn shown(program: &str, arguments: &[&str]) -> Running {
    let mut running = Running::start(program, arguments);
    running.admin();
    running
}

pub(crate) fn watch() -> Running {
    shown(ACCEPTBENCH, &["watch", "--admin", WATCH])
}

/// A server that has few descriptors, while its clients hold their connections.
fn starved(listen: &str, admin: &str) -> Running {
    let arguments = [DESCRIPTORS, "--", ACCEPTBENCH, "server", "--listen", listen, "--admin", admin, "--hold", "3s"];
    shown("prlimit", &arguments)
}

pub(crate) fn server(listen: &str, admin: &str, options: &[&str]) -> Running {
    shown(ACCEPTBENCH, &[&["server", "--listen", listen, "--admin", admin], options].concat())
}

pub(crate) fn loadgen(admin: &str, target: &str, options: &[&str]) -> Running {
    let fixed = ["loadgen", "--target", target, "--admin", admin, "--duration", "forever"];
    shown(ACCEPTBENCH, &[&fixed[..], options].concat())
}

/// Starts a run of an experiment that is kept, with its results, in `directory`.
pub(crate) fn experiment(directory: &Path, text: &str) -> Running {
    let file = directory.join("experiment.toml");
    fs::write(&file, text).expect("write an experiment");
    let results = directory.join("results");
    shown(ACCEPTBENCH, &["run", utf8(&file), "--results", utf8(&results), "--admin", RUNNER])
}

/// Starts one that scrapes these, the run and the watch.
pub(crate) fn prometheus(directory: &Path, servers: &[&str], loadgens: &[&str]) -> Prometheus {
    let (servers, loadgens) = (list(servers), list(loadgens));
    let (runner, watch) = (list(&[RUNNER]), list(&[WATCH]));
    let jobs = [
        ("server", servers.as_str(), "/metrics"),
        ("loadgen", &loadgens, "/metrics"),
        ("runner", &runner, "/metrics"),
        ("run-server", &runner, "/server/metrics"),
        ("run-loadgen", &runner, "/loadgen/metrics"),
        ("watch", &watch, "/metrics"),
    ];
    Prometheus::start(directory, &jobs)
}

fn list(targets: &[&str]) -> String {
    targets.iter().map(|target| format!("\"{target}\"")).collect::<Vec<_>>().join(", ")
}

/// Asks each query of each board, prints how many series it has, and fails when one has none.
fn ask_everything(prometheus: &Prometheus, range: Range) {
    let (mut asked, mut empty) = (0, Vec::new());
    for board in dashboards::json().expect("boards become JSON") {
        let title = board["title"].as_str().unwrap_or_default();
        let of_board = queries::of(&board);
        for query in of_board {
            let found = prometheus.count(&query, range);
            let line = format!("{title}\t{} {}", query.place, query.ref_id);
            println!("{}\t{line}", found.as_ref().map_or_else(Clone::clone, ToString::to_string));
            asked += 1;
            if !matches!(found, Ok(1..)) {
                empty.push(format!("{line}: {}: {found:?}", query.text));
            }
        }
    }
    println!("{asked} queries asked, {} without an answer", empty.len());
    assert!(empty.is_empty(), "{}", empty.join("\n"));
}
