//! `PromQL` written from metric constants.
//!
//! Every selector carries the job and instance a user picked. What server, load generator and `watch` all show (the
//! kernel's counters, listeners, sysctls) is kept to one of them by [`Role::only`]: on one host they read the same
//! network namespace, and each event would count once per program.

use kernel::netstat::NetCounters;
use telemetry::exposition::Metric;

/// The metric constants, by who shows them.
pub mod metric {
    pub use lab::metrics as runner;
    pub use loadgen::metrics as loadgen;
    pub use server::metrics as server;
    pub use telemetry::{listeners, standard};
    pub use watch::metrics as watch;
}

use metric::{listeners, server, standard};

/// The window of every rate: Grafana makes it at least four scrape intervals.
pub const WINDOW: &str = "$__rate_interval";

/// What every selector carries.
pub const PICKED: &str = r#"job=~"$job", instance=~"$instance""#;

/// Kept by every selector that has a label `run`, on a board that lets a user pick runs.
pub const RUN: &str = r#"run=~"$run""#;

fn select(name: &str, matchers: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { ", " };
    format!("{name}{{{matchers}{comma}{PICKED}}}")
}

/// The series of a metric with these matchers besides job and instance, e.g. `name="net.core.somaxconn"`.
pub fn sel(metric: &Metric, matchers: &str) -> String {
    select(&metric.full_name(), matchers)
}

/// What Prometheus says of a target itself: 1 when it could be scraped.
pub fn up() -> String {
    select(crate::catalogue::UP, "")
}

/// Events per second of a counter.
pub fn rate(counter: &Metric, matchers: &str) -> String {
    format!("rate({}[{WINDOW}])", sel(counter, matchers))
}

/// Events per second of a counter, added up over everything but the labels `by`.
pub fn sum_rate(by: &str, counter: &Metric, matchers: &str) -> String {
    let by = if by.is_empty() { String::new() } else { format!(" by ({by}) ") };
    format!("sum{by}({})", rate(counter, matchers))
}

/// Values per second in each bucket of a histogram, by upper bound and `by`.
pub fn buckets(by: &str, histogram: &Metric) -> String {
    buckets_of(by, histogram, "")
}

/// The same, of the series with these matchers.
pub fn buckets_of(by: &str, histogram: &Metric, matchers: &str) -> String {
    let comma = if by.is_empty() { "" } else { ", " };
    let bucket = select(&format!("{}_bucket", histogram.full_name()), matchers);
    format!("sum by (le{comma}{by}) (rate({bucket}[{WINDOW}]))")
}

/// A quantile of a histogram, by `by`.
pub fn quantile(q: f64, by: &str, histogram: &Metric) -> String {
    format!("histogram_quantile({q}, {})", buckets(by, histogram))
}

/// A kernel counter of [`NetCounters`]; use [`netstat!`](crate::netstat), which checks that the field exists.
pub fn netstat_metric(field: &str) -> &'static Metric {
    let counters = NetCounters::FIELDS.iter().zip(standard::netstat_metrics());
    let mut found = counters.filter(|(known, _)| known.name == field).map(|(_, metric)| metric);
    found.next().unwrap_or(&standard::MIGRATE_REQUESTS)
}

/// The metric of a field of [`NetCounters`]: `netstat!(listen_overflows)`. A field that is renamed does not compile.
#[macro_export]
macro_rules! netstat {
    ($field:ident) => {{
        const _: fn(&::kernel::netstat::NetCounters) -> u64 = |counters| counters.$field;
        $crate::query::netstat_metric(stringify!($field))
    }};
}

/// Matchers of the label `verdict`: each says the kind of an attempt's end by a pattern that is written once.
pub mod verdict {
    macro_rules! good {
        () => {
            "served|connected"
        };
    }
    macro_rules! own {
        () => {
            "shed|no_ports|no_fds|self_connect"
        };
    }

    /// Attempts that reached what they asked for.
    pub const GOOD: &str = concat!("verdict=~\"", good!(), "\"");

    /// Attempts that did not.
    pub const BAD: &str = concat!("verdict!~\"", good!(), "\"");

    /// Attempts that the generator itself could not make.
    pub const OWN: &str = concat!("verdict=~\"", own!(), "\"");

    /// Attempts that were made, and not half open on purpose: all that say something about the server.
    pub const MADE: &str = concat!("verdict!~\"", own!(), "|half_open\"");

    /// Those of [`MADE`] that did not reach what they asked for.
    pub const UNSERVED: &str = concat!("verdict!~\"", good!(), "|", own!(), "|half_open\"");
}

/// Which program's view of the kernel is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `acceptbench server`, or a run's sum over its trials.
    Server,
    /// `acceptbench loadgen`, likewise.
    Loadgen,
    /// `acceptbench watch`.
    Watch,
}

impl Role {
    /// The label of [`BUILD_INFO`](standard::BUILD_INFO).
    fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Loadgen => "loadgen",
            Self::Watch => "watch",
        }
    }

    /// `expression` of this role's programs only.
    pub fn only(self, expression: &str) -> String {
        let program = sel(&standard::BUILD_INFO, &format!("role=\"{}\"", self.label()));
        format!("{expression} and on (job, instance) {program}")
    }

    /// Events per second of a counter that other roles show too.
    pub fn rate(self, counter: &Metric) -> String {
        self.only(&rate(counter, ""))
    }

    /// A gauge that other roles show too.
    pub fn gauge(self, gauge: &Metric) -> String {
        self.only(&sel(gauge, ""))
    }
}

/// The programs that listen, or watch who does.
pub fn listening_programs() -> String {
    sel(&standard::BUILD_INFO, r#"role=~"server|watch""#)
}

/// net.core.somaxconn of each program's network namespace.
pub fn somaxconn() -> String {
    sel(&standard::SYSCTL_VALUE, r#"name="net.core.somaxconn""#)
}

/// The queue limit that listen(2) would give each of the server's listeners now: min(backlog, somaxconn).
pub fn limit_now() -> String {
    let (backlog, somaxconn) = (sel(&server::BACKLOG, ""), somaxconn());
    format!(
        "({backlog} < on (job, instance) group_left () {somaxconn}) \
         or ({backlog} * 0 + on (job, instance) group_left () {somaxconn})"
    )
}

/// What sets the queue limit of a server's listener. Exactly one holds for each, where the kernel shows somaxconn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binds {
    /// somaxconn is smaller than the listen backlog.
    Somaxconn,
    /// The listen backlog is not larger than somaxconn.
    Backlog,
    /// Neither as it is now: somaxconn was changed after listen(2).
    Earlier,
}

impl Binds {
    /// Every case.
    pub const ALL: [Self; 3] = [Self::Somaxconn, Self::Backlog, Self::Earlier];

    /// The fraction of packets dropped at each server whose limit is set like this. The labels `backlog`, `somaxconn`
    /// and `limit` carry the numbers, so that a legend can say them. Listeners with equal numbers are one series.
    pub fn query(self) -> String {
        let somaxconn = format!("count_values without (name, index) (\"somaxconn\", {})", somaxconn());
        let limit = sel(&listeners::LIMIT, "");
        let backlog = sel(&server::BACKLOG, "");
        let now = limit_now();
        let (label, carrier, holds) = match self {
            Self::Somaxconn => {
                let holds = format!(
                    "({limit} == on (job, instance, listener) ({now})) < on (job, instance, listener) {backlog}"
                );
                ("backlog", &backlog, holds)
            }
            Self::Backlog => {
                let holds = format!(
                    "({limit} == on (job, instance, listener) ({now})) == on (job, instance, listener) {backlog}"
                );
                ("backlog", &backlog, holds)
            }
            Self::Earlier => ("limit", &limit, format!("{limit} != on (job, instance, listener) ({now})")),
        };
        let numbers = format!("count_values without () (\"{label}\", {carrier})");
        format!(
            "max by (job, instance, somaxconn, {label}) (({numbers} and on (job, instance, listener) ({holds})) \
             * on (job, instance) group_left (somaxconn) {somaxconn}) * on (job, instance) group_left () ({})",
            dropped_fraction()
        )
    }

    /// Says it, with the labels of [`query`](Self::query).
    pub fn legend(self) -> &'static str {
        match self {
            Self::Somaxconn => "somaxconn {{somaxconn}} binds (backlog {{backlog}}): of SYNs dropped · {{instance}}",
            Self::Backlog => "backlog {{backlog}} binds (somaxconn {{somaxconn}}): of SYNs dropped · {{instance}}",
            Self::Earlier => {
                "limit {{limit}} of an earlier listen(2): somaxconn is {{somaxconn}} now; \
                 listen again (relisten on-change) · {{instance}}"
            }
        }
    }
}

/// Packets dropped because an accept queue was full, of those and the connections that entered one, by program. 0 when
/// nothing comes.
pub fn overflow_fraction() -> String {
    let (overflows, entered) = (rate(netstat!(listen_overflows), ""), rate(netstat!(passive_opens), ""));
    format!("{overflows} / clamp_min({overflows} + {entered}, 1e-9)")
}

/// [`overflow_fraction`], and 0 before there is a rate.
fn dropped_fraction() -> String {
    format!("{} or on (job, instance) 0 * {}", overflow_fraction(), somaxconn())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_carries_job_and_instance() {
        assert_eq!(
            sel(&server::ACCEPTS, ""),
            r#"acceptbench_server_accepts_total{job=~"$job", instance=~"$instance"}"#
        );
        assert_eq!(
            rate(netstat!(listen_drops), ""),
            r#"rate(acceptbench_netstat_listen_drops_total{job=~"$job", instance=~"$instance"}[$__rate_interval])"#
        );
    }

    #[test]
    fn every_kernel_counter_is_found_by_its_field() {
        for (field, metric) in NetCounters::FIELDS.iter().zip(standard::netstat_metrics()) {
            assert_eq!(netstat_metric(field.name).name, metric.name);
        }
    }

    #[test]
    fn a_quantile_is_of_summed_rates_of_buckets() {
        assert_eq!(
            quantile(0.99, "instance", &server::QUEUE_WAIT),
            "histogram_quantile(0.99, sum by (le, instance) (rate(acceptbench_server_accept_queue_wait_seconds_bucket\
             {job=~\"$job\", instance=~\"$instance\"}[$__rate_interval])))"
        );
    }
}
