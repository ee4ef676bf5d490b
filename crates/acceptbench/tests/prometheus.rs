//! What Prometheus sees is what happened: a real Prometheus scrapes a server and a load generator, every page of a run is
//! read while it runs, and runs written as OpenMetrics are put into one Prometheus.
//!
//! Needs prometheus and promtool (Debian package `prometheus`); without them the tests say so and pass, unless
//! `ACCEPTBENCH_REQUIRE_PROMETHEUS=1`. The load lasts 10 s; `ACCEPTBENCH_PROMETHEUS_SECONDS=60` makes it a minute:
//!
//! ```sh
//! ACCEPTBENCH_PROMETHEUS_SECONDS=60 cargo test -p acceptbench --test prometheus -- --nocapture
//! ```

#[path = "prometheus/api.rs"]
mod api;
#[path = "prometheus/backfill.rs"]
mod backfill;
#[path = "prometheus/children.rs"]
mod children;
#[path = "prometheus/page.rs"]
mod page;
#[path = "prometheus/put.rs"]
mod put;
#[path = "prometheus/run_pages.rs"]
mod run_pages;

use std::process::Command;
use std::thread;
use std::time::Duration;

use dashboards::rules::recorded;
use serde_json::Value;

use api::{Prometheus, at, free_address, now};
use children::{ACCEPTBENCH, Running};

/// Attempts per second of the constant load.
const RATE: u64 = 500;

/// The configuration people are given.
const CONFIG: &str = include_str!("../../../deploy/prometheus/host.yml");

/// The directory it is in, and where its rules are from there.
const CONFIG_HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/prometheus");
const RULES: &str = "../../dashboards/prometheus/";

const SERVED: &str = r#"acceptbench_loadgen_verdicts_total{job="loadgen",verdict="served"}"#;
const ACCEPTED: &str = r#"acceptbench_server_accepts_total{job="server",acceptor="0"}"#;

#[test]
fn prometheus_and_both_programs_agree_on_what_was_served() {
    if missing_tools() {
        return;
    }
    let seconds = load_seconds();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [service_admin, load_admin, nobody] = [(); 3].map(|()| free_address().to_string());
    let rules = format!("{CONFIG_HOME}/{RULES}");
    let mut config = CONFIG.to_owned();
    for (shipped, here) in [
        ("127.0.0.1:9710", &service_admin),
        ("127.0.0.1:9711", &load_admin),
        ("127.0.0.1:9712", &nobody),
        (RULES, &rules),
    ] {
        assert!(config.contains(shipped), "host.yml says {shipped} no more");
        config = config.replace(shipped, here);
    }
    let mut service = Running::start(ACCEPTBENCH, ["server", "--listen", "127.0.0.1:0", "--admin", &service_admin]);
    let target = service.find("listening on ").expect("where it listens");
    let service_admin = service.admin();
    let prometheus = Prometheus::start(directory.path(), &config);
    // It looks for its targets every 5 s, so the load begins when it is seen to miss the load generator.
    prometheus.wait_for(r#"up{job="loadgen"} == 0"#);
    prometheus.wait_for(r#"up{job="server"} == 1"#);

    let (rate, duration) = (RATE.to_string(), format!("{seconds}s"));
    let mut load = Running::start(
        ACCEPTBENCH,
        ["loadgen", "--target", &target, "--rate", &rate, "--duration", &duration, "--admin", &load_admin],
    );
    let load_admin = load.admin();
    prometheus.wait_for(r#"up{job="loadgen"} == 1"#);
    page::lint("server", &page::fetch(service_admin, "/metrics").expect("the server's page"));
    page::lint("loadgen", &page::fetch(load_admin, "/metrics").expect("the load generator's page"));

    thread::sleep(Duration::from_secs(seconds / 2));
    let before = now();
    let snapshot = page::fetch(load_admin, "/snapshot").expect("the load generator's snapshot");
    let looked = f64::midpoint(before, now());
    let snapshot: Value = serde_json::from_str(&snapshot).expect("a JSON document");
    let served_then = snapshot["measured"]["verdicts"]["served"].as_f64().expect("a count");
    assert!(served_then > 0.0, "{snapshot}");
    for job in ["server", "loadgen"] {
        assert_eq!(prometheus.value(&format!("up{{job=\"{job}\"}}")), Ok(1.0), "in the middle of the load");
    }

    let (status, printed) = load.finish(Duration::from_secs(seconds + 15));
    assert!(matches!(status.code(), Some(0 | 2)), "{status}: {printed:#?}");
    let planned = count_after(&printed, "planned");
    let served = count_after(&printed, "served");
    assert_eq!(planned, RATE * seconds, "{printed:#?}");
    assert!(served > planned * 99 / 100, "{printed:#?}");

    let ended = now();
    prometheus.wait_for(&format!("timestamp({ACCEPTED}) > {ended}"));
    let accepted = prometheus.value(ACCEPTED).expect("accepts");
    close("accepts after the load and served as printed", accepted, served as f64, 0.0);
    // The rules that the configuration names are there, and record.
    prometheus.wait_for(&format!("max({}{{job=\"server\"}})", recorded::FILL));

    // Two targets are never scraped at the same instant: what one says is compared with the other's line between its
    // two samples around it. A page is made some milliseconds after its sample's time.
    let slack = RATE as f64 * 0.010;
    let (served, mut accepted) = (prometheus.points(SERVED), prometheus.points(ACCEPTED));
    // Where the load begins and ends, the line between two samples is not what happened.
    accepted.retain(|(time, value)| *value > 0.0 && *time < ended - 0.1);
    let mut compared = 0;
    for (time, value) in &served {
        if let Some(accepts) = at(&accepted, *time) {
            close(&format!("accepts and served at {time}"), accepts, *value, slack);
            compared += 1;
        }
    }
    assert!(compared + 4 >= seconds, "only {compared} samples to compare in {seconds} s: {served:?} {accepted:?}");
    let seen = at(&served, looked).unwrap_or_else(|| panic!("no samples around {looked}: {served:?}"));
    close("served as scraped and as in /snapshot", seen, served_then, slack);
    let ((t0, v0), (t1, v1)) = (served[0], served[served.len() - 1]);
    close("served per second", (v1 - v0) / (t1 - t0), RATE as f64, 0.0);

    service.terminate();
    let (status, printed) = service.finish(Duration::from_secs(10));
    assert!(status.success(), "{status}: {printed:#?}");
    let accepted = prometheus.value(ACCEPTED).expect("accepts");
    close("accepts as printed and as scraped", count_after(&printed, "accepted") as f64, accepted, 0.0);
}

#[test]
fn the_pages_of_a_run_only_grow_and_end_at_the_sum_of_its_records() {
    if missing_tools() {
        return;
    }
    run_pages::check();
}

/// Within 1 % and `slack`.
fn close(what: &str, one: f64, other: f64, slack: f64) {
    let apart = (one - other).abs();
    assert!(apart <= one.max(other) * 0.01 + slack, "{what}: {one} and {other}");
}

/// The number after the word that begins a printed line.
fn count_after(printed: &[String], word: &str) -> u64 {
    let line = printed.iter().find_map(|line| line.trim_start().strip_prefix(word));
    let count = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no count of {word} in {printed:#?}"))
}

fn load_seconds() -> u64 {
    let seconds = std::env::var("ACCEPTBENCH_PROMETHEUS_SECONDS").ok();
    let seconds = seconds.map_or(10, |text| text.parse().expect("ACCEPTBENCH_PROMETHEUS_SECONDS is a number"));
    assert!((6..=600).contains(&seconds), "ACCEPTBENCH_PROMETHEUS_SECONDS is between 6 and 600");
    seconds
}

/// May what is named here not be missing?
fn is_required(what: &str) -> bool {
    std::env::var_os(format!("ACCEPTBENCH_REQUIRE_{what}")).is_some_and(|value| value == "1")
}

/// Says so when prometheus or promtool is missing.
fn missing_tools() -> bool {
    let missing =
        |tool: &&str| !Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    let missing: Vec<&str> = ["prometheus", "promtool"].into_iter().filter(missing).collect();
    if missing.is_empty() {
        return false;
    }
    assert!(!is_required("PROMETHEUS"), "{} required and not found", missing.join(" and "));
    eprintln!("skipped: {} not found; install the Debian package prometheus", missing.join(" and "));
    true
}
