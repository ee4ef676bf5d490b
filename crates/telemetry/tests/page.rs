//! A whole page, as Prometheus would judge it.

#[path = "../benches/scrape.rs"]
mod scrape;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use scrape::Workers;

#[test]
fn every_series_of_a_page_is_unique_and_documented() {
    let page = scrape::page(&Workers::new(64).sum());
    let mut series = BTreeSet::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(help.ends_with('.'), "{line}");
            name.clone_into(&mut family);
        } else if !line.starts_with('#') {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            assert!(key.starts_with(&family), "{line} is outside its family {family}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(series.insert(key), "{key} is there twice");
        }
    }
    assert!(series.len() > 64 * 11, "{} series", series.len());
}

#[test]
fn a_scrape_sums_all_workers_exactly() {
    let page = scrape::page(&Workers::new(3).sum());
    for line in [
        "acceptbench_server_accepts_total{acceptor=\"2\"} 5000",
        "acceptbench_server_accept_queue_wait_seconds_count{source=\"rx-timestamp\"} 15000",
        "acceptbench_listener_accept_queue_fill_ratio_bucket{le=\"1\"} 15000",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in the page");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: promtool is not on PATH (it comes with Prometheus)");
            return;
        }
        spawned => spawned.expect("promtool starts"),
    };
    let page = scrape::page(&Workers::new(2).sum());
    promtool.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("promtool reads the page");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
