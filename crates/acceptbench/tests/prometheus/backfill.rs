//! Two runs written as OpenMetrics and put into one Prometheus: it knows both, as if it had scraped them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::api::Prometheus;
use crate::children::ACCEPTBENCH;
use crate::{REQUIREMENT, is_required, missing_tools};

/// Two cells, two trials each.
const EXPERIMENT: &str = r#"
[experiment]
name = "backfilled"
question = "is it all there?"
replicates = 2
retries = 0
warm-up = "0s"
measure = "200ms"
topology = "loopback"
[server]
accept-delay = "2ms"
[loadgen]
rate = 400
deadline = "200ms"
[[factor]]
set = "server.backlog"
to = [4, 512]
"#;

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[test]
fn two_runs_in_one_prometheus_answer_one_query() {
    if missing_tools() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    fs::write(at.join("backfilled.toml"), EXPERIMENT).expect("write an experiment");
    let mut runs = Vec::new();
    for _ in 0..2 {
        let output = run(at, ACCEPTBENCH, &["run", "backfilled.toml", "--admin", "off"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(REQUIREMENT) {
            assert!(!is_required("NETNS"), "{said}");
            eprintln!("skipped: experiments cannot run here: {said}");
            return;
        }
        assert!(matches!(output.status.code(), Some(0 | 2)), "{said}");
        let latest = at.join("results/latest").canonicalize().expect("a results directory");
        runs.push(latest.file_name().and_then(|name| name.to_str()).expect("a name").to_owned());
        let name = &runs[runs.len() - 1];
        let report = run(at, ACCEPTBENCH, &["report", "--openmetrics"]);
        assert!(matches!(report.status.code(), Some(0 | 2)), "{}", String::from_utf8_lossy(&report.stderr));
        let file = format!("results/{name}/openmetrics.txt");
        assert!(fs::read_to_string(at.join(&file)).expect("the file").ends_with("\n# EOF\n"));
        let blocks = run(at, "promtool", &["tsdb", "create-blocks-from", "openmetrics", &file, "data"]);
        assert!(blocks.status.success(), "{}", String::from_utf8_lossy(&blocks.stderr));
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
