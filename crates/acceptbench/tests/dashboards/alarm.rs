//! The alerts, inside a private namespace: none while a server and its load are well, then each under the failure that
//! provokes it. Expressions are those of the files; only `for` and the interval of evaluation are shorter.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use dashboards::client::Range;
use dashboards::rules;

use crate::ask::{Prometheus, now};
use crate::scene::{RUNNER, WATCH, experiment, loadgen, prometheus, server, watch};
use crate::set_somaxconn;

/// Where each program shows its metrics.
const WELL: &str = "127.0.0.1:9710";
const SHORT: &str = "127.0.0.1:9720";
const CALM: &str = "127.0.0.1:9711";
const BURSTS: &str = "127.0.0.1:9721";
const LATE: &str = "127.0.0.1:9731";

/// How many seconds all is well. `ACCEPTBENCH_CALM_SECONDS` asks for more, and is handed into the namespace by this name.
pub(crate) const CALM_SECONDS: &str = "DASHBOARDS_CALM_SECONDS";

/// More half-open sockets than the SYN queue holds, without cookies and with them.
const EXPERIMENT: &str = r#"
[experiment]
name = "syn-queue"
question = "what does a full SYN queue do?"
replicates = 1
retries = 0
seed = 7
warm-up = "100ms"
measure = "4s"
[half-open]
count = 12
[server]
backlog = 8
[loadgen]
rate = 100
deadline = "300ms"
[[factor]]
set = "sysctl.net.ipv4.tcp_syncookies"
to = [0, 1]
"#;

/// Plays it. `required`: a kernel that hides somaxconn is a failure, not a reason to skip.
pub(crate) fn play(required: bool) {
    let began = Instant::now();
    if !set_somaxconn("1024", required) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_rules(directory.path());
    let well = server("127.0.0.1:9700", WELL, &["--backlog", "1024", "--accept-delay", "0"]);
    let calm = loadgen(CALM, "127.0.0.1:9700", &["--rate", "200"]);
    let watch = watch();
    let prometheus = prometheus(directory.path(), &[WELL, SHORT], &[CALM, BURSTS, LATE]);
    // Of the others there is nothing yet, and what never was is not missed.
    prometheus.wait_for("up == 1", 3);
    let from = now();
    thread::sleep(crate::calm_for());
    all_is_well(&prometheus, Range { from, to: now() });

    let short = server("127.0.0.1:9701", SHORT, &["--backlog", "4", "--accept-delay", "20ms"]);
    let bursts = loadgen(BURSTS, "127.0.0.1:9701", &["--arrivals", "burst:100/250ms", "--deadline", "300ms"]);
    // Refused at once, but so many in a row that the last ones are late; with this deadline by more than it allows itself.
    let arguments = ["--arrivals", "burst:6000/1s", "--workers", "1", "--deadline", "300ms"];
    let late = loadgen(LATE, "127.0.0.1:9", &arguments);
    fires(&prometheus, "AcceptbenchAcceptQueueFilling", "server", SHORT);
    fires(&prometheus, "AcceptbenchOverflowing", "server", SHORT);
    fires(&prometheus, "AcceptbenchOverflowingSlowly", "watch", WATCH);
    fires(&prometheus, "AcceptbenchUnserved", "loadgen", BURSTS);
    fires(&prometheus, "AcceptbenchGeneratorLimited", "loadgen", LATE);
    drop((bursts, late));

    let run = experiment(directory.path(), EXPERIMENT);
    fires(&prometheus, "AcceptbenchSynQueueDrops", "run-server", RUNNER);
    fires(&prometheus, "AcceptbenchSynCookies", "run-server", RUNNER);
    let (status, printed) = run.finish(Duration::from_mins(1));
    assert!(matches!(status.code(), Some(0 | 2)), "{status}: {printed:#?}");

    // A load that is over is not missed, nor is a run; a server is.
    calm.terminate();
    calm.finish(Duration::from_secs(10));
    prometheus.wait_for(&format!("up{{instance=\"{CALM}\"}} == 0 or up{{instance=\"{RUNNER}\"}} == 0"), 4);
    well.terminate();
    well.finish(Duration::from_secs(10));
    fires(&prometheus, "AcceptbenchTargetDown", "server", WELL);
    prometheus.wait_for("ALERTS{alertname=\"AcceptbenchTargetDown\"}", 1);
    // A range has a point per second, and the last alert is younger.
    thread::sleep(Duration::from_secs(2));
    every_alert_was_seen_and_says_what_it_means(&prometheus, from);
    drop((short, watch));
    println!("{:.0} s", began.elapsed().as_secs_f64());
}

/// Writes the rules with a `for` of nothing and an evaluation every second.
fn write_rules(directory: &Path) {
    for (name, text) in rules::files() {
        let line = |line: &str| {
            let key = line.trim_start().split(' ').next().unwrap_or_default();
            let indent = &line[..line.len() - line.trim_start().len()];
            match key {
                "for:" => format!("{indent}for: 0s\n"),
                "interval:" => format!("{indent}interval: 1s\n"),
                _ => format!("{line}\n"),
            }
        };
        fs::write(directory.join(name), text.lines().map(line).collect::<String>()).expect("write rules");
    }
}

/// No alert, not even a pending one, at any second; and each recorded series had something to say.
fn all_is_well(prometheus: &Prometheus, range: Range) {
    for recorded in rules::recorded::all() {
        let series = prometheus.instant(&recorded.name, range).expect("an answer");
        let values = || series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        println!("{} when all has been well: {least} to {most} in {} series", recorded.name, series.len());
        assert!(!series.is_empty(), "{} records nothing", recorded.name);
    }
    // On a machine that is busy with something else the generator is late, and then that is to be said.
    let late = prometheus.range("acceptbench_loadgen_limited{limit=\"lag\"} > 0", range).expect("an answer");
    for series in prometheus.range("ALERTS", range).expect("an answer") {
        let name = series.label("alertname");
        let true_all_the_same = name == "AcceptbenchGeneratorLimited" && !late.is_empty();
        assert!(true_all_the_same, "{name} of {} while all is well", series.label("instance"));
    }
}

/// Waits until an alert fires for one program, and says how long that took.
fn fires(prometheus: &Prometheus, alert: &str, job: &str, instance: &str) {
    let began = Instant::now();
    let of = format!("alertname=\"{alert}\",alertstate=\"firing\",job=\"{job}\",instance=\"{instance}\"");
    prometheus.wait_for(&format!("count(ALERTS{{{of}}}) > 0"), 1);
    let mut all = prometheus.alerts().expect("alerts");
    all.retain(|said| {
        let labels = &said["labels"];
        labels["alertname"] == alert && labels["instance"] == instance && labels["job"] == job
    });
    assert!(!all.is_empty(), "{alert} of {job} {instance} is not among the alerts");
    for said in all {
        let summary = said["annotations"]["summary"].as_str().unwrap_or_default();
        println!("{alert} after {:.1} s: {summary}", began.elapsed().as_secs_f64());
        assert!(summary.contains(instance), "{said}");
    }
}

/// Each alert of the files fired since `from`, and no sentence has a hole in it.
fn every_alert_was_seen_and_says_what_it_means(prometheus: &Prometheus, from: f64) {
    let fired = prometheus.range("ALERTS{alertstate=\"firing\"}", Range { from, to: now() }).expect("an answer");
    for alert in rules::alerts::all() {
        assert!(fired.iter().any(|series| series.label("alertname") == alert.name), "{} never fired", alert.name);
    }
    for said in prometheus.alerts().expect("alerts") {
        let text = said["annotations"].to_string();
        assert!(!text.contains("no value") && !text.contains("error") && !text.contains("{{"), "{text}");
    }
}
