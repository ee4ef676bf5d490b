//! Two runs written as OpenMetrics and put into one Prometheus: it knows both, as if it had scraped them.

use std::fs;

use serde_json::Value;

use crate::api::Prometheus;
use crate::{is_required, missing_tools, put};

#[test]
fn two_runs_in_one_prometheus_answer_one_query() {
    if missing_tools() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    let mut runs = Vec::new();
    for _ in 0..2 {
        match put::a_run(at) {
            Ok(name) => runs.push(name),
            Err(said) => {
                assert!(!is_required("NETNS"), "{said}");
                eprintln!("skipped: experiments cannot run here: {said}");
                return;
            }
        }
    }
    assert_ne!(runs[0], runs[1]);

    let prometheus = Prometheus::start(at, "scrape_configs: []\n");
    let both = r#"count(count by (run) (last_over_time(acceptbench_experiment_cell_info{job="runner"}[10m])))"#;
    assert!((prometheus.wait_for(both) - 2.0).abs() < f64::EPSILON, "both runs");
    for name in &runs {
        let summary = fs::read_to_string(at.join("results").join(name).join("summary.json")).expect("the summary");
        let summary: Value = serde_json::from_str(&summary).expect("JSON");
        for cell in [0, 1] {
            let query = format!(
                "last_over_time(acceptbench_experiment_result{{run=\"{name}\",instance=\"{name}\",cell=\"{cell}\",\
                 quantity=\"served-ratio\",stat=\"median\"}}[10m])"
            );
            let value = prometheus.value(&query).expect("a median");
            let stored = &summary["cells"][cell]["quantities"]["served-ratio"]["median"];
            assert!((value - stored.as_f64().expect("a median")).abs() < 1e-12, "{name} {cell}: {value}, {stored}");
        }
        let completed =
            prometheus.points(&format!("acceptbench_experiment_trials_completed_total{{instance=\"{name}\"}}"));
        let counts: Vec<f64> = completed.iter().map(|(_, count)| *count).collect();
        assert!(counts.is_sorted() && counts.last() == Some(&4.0), "{name}: {counts:?}");
        // A trial is one from its beginning to its end, and no longer.
        let trial = format!("acceptbench_experiment_trial_info{{run=\"{name}\",trial=\"0\",phase=\"load\"}}");
        let points = prometheus.points(&trial);
        let [(began, 1.0), (ended, 0.0)] = points.as_slice() else { panic!("{points:?}") };
        let records = fs::read_to_string(at.join("results").join(name).join("trials.jsonl")).expect("records");
        let record: Value = serde_json::from_str(records.lines().next().expect("a trial")).expect("JSON");
        let timings = record["timings"].as_object().expect("timings").values();
        let took: f64 = timings.map(|ms| ms.as_f64().expect("ms") / 1e3).sum();
        assert!((ended - began - took).abs() < 0.003, "{began} to {ended}, {took} s");
    }
}
