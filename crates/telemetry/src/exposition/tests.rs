//! Pages as text, down to the last digit.

use super::*;
use crate::histogram::Histogram;

const ACCEPTS: Metric =
    Metric { name: "server_accepts_total", kind: Kind::Counter, labels: &["acceptor"], help: "accept4 successes." };
const LIMIT: Metric =
    Metric { name: "listener_limit", kind: Kind::Gauge, labels: &["listener"], help: "A \\ and\na new line." };
const WAIT: Metric =
    Metric { name: "wait_seconds", kind: Kind::Histogram, labels: &["source"], help: "Time in the queue." };
const OPEN_FDS: Metric = Metric { name: "process_open_fds", kind: Kind::Gauge, labels: &[], help: "Open descriptors." };
const CONFIG: Metric = Metric { name: "config_info", kind: Kind::Gauge, labels: &[], help: "Settings." };

#[test]
fn samples_are_grouped_by_metric_and_metrics_sorted_by_name() {
    let mut families = Families::new();
    families.gauge(&OPEN_FDS, &[], 12.0);
    families.counter(&ACCEPTS, &["0"], 7);
    families.gauge(&LIMIT, &["a\"b"], 0.5);
    families.counter(&ACCEPTS, &["1"], 9_007_199_254_740_992);
    families.info(&CONFIG, &[("backlog", "128"), ("on_accept", "greet")]);
    let expected = r#"# HELP acceptbench_config_info Settings.
# TYPE acceptbench_config_info gauge
acceptbench_config_info{backlog="128",on_accept="greet"} 1
# HELP acceptbench_listener_limit A \\ and\na new line.
# TYPE acceptbench_listener_limit gauge
acceptbench_listener_limit{listener="a\"b"} 0.5
# HELP acceptbench_server_accepts_total accept4 successes.
# TYPE acceptbench_server_accepts_total counter
acceptbench_server_accepts_total{acceptor="0"} 7
acceptbench_server_accepts_total{acceptor="1"} 9007199254740992
# HELP process_open_fds Open descriptors.
# TYPE process_open_fds gauge
process_open_fds 12
"#;
    assert_eq!(families.render(), expected);
}

#[test]
fn a_histogram_shows_exact_edges_and_cumulative_counts() {
    let histogram = Histogram::new();
    for ns in [9_000, 1_000_000_000, 1_030_000_000, 3_010_000_000, 500_000_000_000] {
        histogram.record(ns);
    }
    let mut families = Families::new();
    families.histogram(&WAIT, &["rx"], &histogram.snapshot(), Bounds::Latency, Scale::Seconds);
    let expected = r#"# HELP acceptbench_wait_seconds Time in the queue.
# TYPE acceptbench_wait_seconds histogram
acceptbench_wait_seconds_bucket{source="rx",le="0.000009984"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.000019968"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.000050176"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.000100352"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.000200704"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.000499712"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.000999424"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.001998848"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.004980736"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.009961472"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.019922944"} 1
acceptbench_wait_seconds_bucket{source="rx",le="0.04980736"} 1
"#;
    let page = families.render();
    let tail = r#"acceptbench_wait_seconds_bucket{source="rx",le="0.998244352"} 1
acceptbench_wait_seconds_bucket{source="rx",le="1.996488704"} 3
acceptbench_wait_seconds_bucket{source="rx",le="2.986344448"} 3
acceptbench_wait_seconds_bucket{source="rx",le="3.992977408"} 4
"#;
    let end = r#"acceptbench_wait_seconds_bucket{source="rx",le="+Inf"} 5
acceptbench_wait_seconds_sum{source="rx"} 505.040009
acceptbench_wait_seconds_count{source="rx"} 5
"#;
    assert!(page.starts_with(expected), "{page}");
    assert!(page.contains(tail), "{page}");
    assert!(page.ends_with(end), "{page}");
    assert_eq!(page.lines().count(), 2 + 26 + 2);
}

#[test]
fn counts_and_fill_ratios_have_their_own_units() {
    const BATCH: Metric = Metric { name: "batch", kind: Kind::Histogram, labels: &[], help: "b" };
    const FILL: Metric = Metric { name: "fill_ratio", kind: Kind::Histogram, labels: &[], help: "f" };
    let histogram = Histogram::new();
    histogram.record_n(128, 3);
    histogram.record(64);
    let mut families = Families::new();
    families.histogram(&BATCH, &[], &histogram.snapshot(), Bounds::Count, Scale::Plain);
    families.histogram(&FILL, &[], &histogram.snapshot(), Bounds::Fill, Scale::Fill);
    let page = families.render();
    for line in [
        "acceptbench_batch_bucket{le=\"64\"} 1",
        "acceptbench_batch_bucket{le=\"128\"} 4",
        "acceptbench_batch_sum 448",
        "acceptbench_fill_ratio_bucket{le=\"0.5\"} 1",
        "acceptbench_fill_ratio_bucket{le=\"0.9921875\"} 1",
        "acceptbench_fill_ratio_bucket{le=\"1\"} 4",
        "acceptbench_fill_ratio_sum 3.5",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}

#[test]
fn every_bound_prints_without_float_dust() {
    for (bounds, scale) in [(Bounds::Latency, Scale::Seconds), (Bounds::Lag, Scale::Seconds)] {
        for &bucket in le_bounds(bounds) {
            let text = scale.apply(upper_edge(bucket)).to_string();
            let decimals = text.split_once('.').map_or("", |(_, decimals)| decimals);
            assert!(decimals.len() <= 9, "{text}");
            let ns = format!("{}{decimals:0<9}", text.split('.').next().unwrap_or_default());
            assert_eq!(ns.parse(), Ok(upper_edge(bucket)), "{text}");
        }
    }
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "server_accepts_total has the labels"))]
fn a_sample_with_the_wrong_number_of_labels_is_dropped() {
    let mut families = Families::new();
    families.counter(&ACCEPTS, &[], 1);
    assert_eq!(families.render(), "");
}
