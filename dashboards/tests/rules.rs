//! The rules are what Prometheus takes, every alert has series under which it fires and some that are well, and names its
//! knob.

use std::path::Path;
use std::process::Command;

use dashboards::rules::{alerts, recorded};

const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/prometheus");

/// Runs promtool in the directory of the rules; `false` when it is not there and may be missing.
fn promtool(arguments: &[&str]) -> bool {
    match Command::new("promtool").args(arguments).current_dir(HOME).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
            true
        }
        Err(error) => {
            let required = std::env::var_os("ACCEPTBENCH_REQUIRE_PROMETHEUS").is_some_and(|value| value == "1");
            assert!(!required, "promtool: {error}, and ACCEPTBENCH_REQUIRE_PROMETHEUS=1 requires it");
            eprintln!("skipped: promtool: {error}; install the Debian package prometheus");
            false
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong_and_every_alert_fires_and_does_not() {
    if promtool(&["check", "rules", "--lint=all", "--lint-fatal", "recording.rules.yml", "alerts.rules.yml"]) {
        promtool(&["test", "rules", "alerts.test.yml"]);
    }
}

#[test]
fn every_alert_fires_in_a_test_and_the_first_test_has_what_each_judges() {
    let tests = std::fs::read_to_string(Path::new(HOME).join("alerts.test.yml")).expect("the tests of the rules");
    for alert in alerts::all() {
        let name = alert.name;
        let fires = tests.contains(&format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\",job="))
            || tests.contains(&format!("alertname: {name}\n"));
        assert!(fires, "no test in which {name} fires");
    }
    // In the first test everything is well, and there each recorded series has something to judge.
    let healthy = tests.split("- name:").nth(1).expect("a first test");
    assert_eq!(healthy.matches("expr: 'ALERTS', eval_time:").count(), 2, "{healthy}");
    for metric in ["fill_ratio", "overflows_total", "full_drops_total", "cookies_sent", "verdicts", "lag", "up{"] {
        assert!(healthy.contains(metric), "nothing about {metric} is well");
    }
}

#[test]
fn every_alert_has_a_summary_a_knob_and_a_board() {
    let boards = dashboards::boards::all();
    for alert in alerts::all() {
        let name = alert.name;
        assert!(name.starts_with("Acceptbench"), "{name}");
        assert!(alert.summary.contains("{{ $labels.instance }}") && alert.summary.ends_with('.'), "{name}");
        let knobs = alert.description.contains(" --") || alert.description.contains("(--");
        assert!(knobs || alert.description.contains("sysctl"), "{name} names no flag and no sysctl");
        assert!(alert.description.ends_with('.'), "{name}");
        assert!(boards.iter().any(|board| board.name() == alert.board), "{name}: no board {}", alert.board);
    }
}

#[test]
fn every_recorded_series_is_used_and_every_one_used_is_recorded() {
    let recorded: Vec<String> = recorded::all().into_iter().map(|rule| rule.name).collect();
    let used: String = alerts::all().into_iter().map(|alert| alert.expr + "\n").collect();
    for name in &recorded {
        assert!(used.contains(name.as_str()), "{name} is recorded for nothing");
    }
    for word in used.split(|c: char| c.is_whitespace() || c == '(' || c == ')').filter(|word| word.contains(':')) {
        assert!(recorded.iter().any(|name| name == word), "{word} is not recorded");
    }
}
