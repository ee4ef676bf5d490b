//! Every metric a board may show: those of the constants, and `up`, which Prometheus makes itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use telemetry::exposition::{Kind, Metric};

use crate::query::metric::{listeners, loadgen, runner, server, standard, watch};

/// What Prometheus says of each target.
pub const UP: &str = "up";

/// Labels every series gets from Prometheus.
pub const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Something that can be selected by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series {
    /// A counter, or a part of a histogram: it only grows, and means something only as a rate.
    pub cumulative: bool,
    /// The buckets of a histogram.
    pub buckets: bool,
    /// A run's own count: it begins at 0 with the run, so its value means something too.
    pub of_a_run: bool,
    /// Its own labels, without those of the target.
    pub labels: &'static [&'static str],
}

/// Everything that can be selected, by its name as scraped.
static SERIES: LazyLock<BTreeMap<String, Series>> = LazyLock::new(|| {
    let mut all =
        BTreeMap::from([(UP.to_owned(), Series { cumulative: false, buckets: false, of_a_run: false, labels: &[] })]);
    for metric in metrics() {
        let plain = Series {
            cumulative: metric.kind != Kind::Gauge,
            buckets: false,
            of_a_run: runner::ALL.iter().any(|known| known.name == metric.name),
            labels: metric.labels,
        };
        let name = metric.full_name();
        if metric.kind == Kind::Histogram {
            all.insert(format!("{name}_bucket"), Series { buckets: true, ..plain });
            all.insert(format!("{name}_sum"), plain);
            all.insert(format!("{name}_count"), plain);
        } else {
            all.insert(name, plain);
        }
    }
    all
});

/// The metrics of every program.
fn metrics() -> impl Iterator<Item = &'static Metric> {
    let lists = [listeners::ALL, server::ALL, watch::ALL, loadgen::ALL, runner::ALL, standard::ALL];
    lists.into_iter().flatten().copied().chain(standard::netstat_metrics())
}

/// What a name as scraped stands for.
pub fn find(name: &str) -> Option<Series> {
    SERIES.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_known_by_its_parts_only() {
        let name = server::QUEUE_WAIT.full_name();
        assert_eq!(find(&name), None);
        assert!(find(&format!("{name}_bucket")).is_some_and(|series| series.buckets && series.cumulative));
        assert!(find(&format!("{name}_count")).is_some_and(|series| !series.buckets && series.cumulative));
    }

    #[test]
    fn standard_metrics_have_no_prefix() {
        assert!(find("process_cpu_seconds_total").is_some_and(|series| series.cumulative));
        assert!(find("acceptbench_process_open_fds").is_none());
    }
}
