//! docs/metrics.md is made from the metric constants; this test keeps it true.

use std::fmt::Write;
use std::path::Path;

use telemetry::exposition::{Kind, Metric};
use telemetry::{listeners, standard};

const HEAD: &str = "# Metrics\n\n\
    Made from the metric constants of the code: `ACCEPTBENCH_BLESS=1 cargo test -p acceptbench metrics_page` writes this\n\
    page anew, and the same test fails when it is out of date. Exposition is text format 0.0.4; every metric but the\n\
    standard `process_*` carries the prefix `acceptbench_`.\n\n\
    - `acceptbench server` serves its page on 127.0.0.1:9710, `acceptbench loadgen` on 127.0.0.1:9711,\n  `acceptbench watch` \
    on 127.0.0.1:9713.\n\
    - During `acceptbench run` only the runner is scraped, on 127.0.0.1:9712: `/metrics` (the run), `/server/metrics` and\n  \
    `/loadgen/metrics` (the finished trials and the current one summed up, so nothing ever goes down). An attached run has\n  \
    `/metrics` alone: its programs have pages of their own.\n";

/// The page.
fn page() -> String {
    let mut text = HEAD.to_owned();
    let netstat: Vec<&Metric> =
        standard::netstat_metrics().iter().filter(|metric| **metric != standard::MIGRATE_REQUESTS).collect();
    let sections = [
        ("Server and watch: each listener", listeners::ALL.to_vec()),
        ("Server", server::metrics::ALL.to_vec()),
        ("Watch", watch::metrics::ALL.to_vec()),
        ("Load generator", loadgen::metrics::ALL.to_vec()),
        ("Runner", lab::metrics::ALL.to_vec()),
        ("Server, load generator and watch: the kernel's counters of their network namespace", netstat),
        ("Server, load generator and watch: the rest", standard::ALL.to_vec()),
    ];
    for (title, metrics) in sections {
        let _ = write!(text, "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for metric in metrics {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let help = metric.help.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {kind} | {} | {help} |", metric.full_name(), metric.labels.join(", "));
        }
    }
    text
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("ACCEPTBENCH_BLESS").is_some() {
        std::fs::write(&path, page()).expect("docs/metrics.md written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page(),
        "docs/metrics.md is out of date: ACCEPTBENCH_BLESS=1 cargo test -p acceptbench metrics_page"
    );
}

#[test]
fn counters_end_in_total_and_nothing_else_does() {
    let all = [
        listeners::ALL,
        server::metrics::ALL,
        watch::metrics::ALL,
        loadgen::metrics::ALL,
        lab::metrics::ALL,
        standard::ALL,
    ]
    .concat();
    for metric in all {
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
    }
}
