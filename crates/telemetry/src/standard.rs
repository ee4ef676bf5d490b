//! The metrics every role shows: what was built, how it is set, what the kernel counted, and this process.
//!
//! Owns their constants and the functions that fill them from what crate `kernel` read. It reads nothing itself. The
//! netstat metrics are generated from [`NetCounters::FIELDS`], so a counter added there is exposed here, and their help
//! quotes the kernel's own name. The `process_*` names are those of every Prometheus client library.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kernel::netstat::{Field, NetCounters};
use kernel::process::ProcessStats;

use crate::exposition::{Families, Kind, Metric};
use crate::namespace::Reading;

crate::metrics! {
    BUILD_INFO = Gauge "build_info" ["role", "version", "revision"] "Always 1; the labels say what was built from which sources.";
    CONFIG_INFO = Gauge "config_info" [] "Always 1; the labels are the main settings of the resolved plan.";
    SOURCE_UP = Gauge "source_up" ["source"] "Whether the source could be read at this scrape: 1 or 0.";
    SOURCE_DURATION_SECONDS = Gauge "source_duration_seconds" ["source"] "Time it took to read the source at this scrape, in seconds.";
    TCP_SOCKETS = Gauge "tcp_sockets" ["state"] "TCP sockets by state, of this network namespace (sock_diag).";
    SYSCTL_VALUE = Gauge "sysctl_value" ["name", "index"] "Effective kernel parameter of this network namespace; index counts the numbers of a range from 0.";
    MIGRATE_REQUESTS = Counter "netstat_migrate_requests_total" ["result"] "TcpExt TCPMigrateReqSuccess and TCPMigrateReqFailure of this network namespace: requests moved, or not, to another SO_REUSEPORT listener.";
    PROCESS_CPU_SECONDS = Counter "process_cpu_seconds_total" [] "Total user and system CPU time spent in seconds.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [] "Number of open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "Maximum number of open file descriptors.";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory size in bytes.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" [] "Start time of the process since unix epoch in seconds.";
}

/// The value of [`MIGRATE_REQUESTS`]' label for a kernel field, if it is one of its two.
fn migration(field: &Field) -> Option<&'static str> {
    match field.kernel_name {
        "TCPMigrateReqSuccess" => Some("success"),
        "TCPMigrateReqFailure" => Some("failure"),
        _ => None,
    }
}

/// The metric of each kernel counter, in the order of [`NetCounters::FIELDS`].
pub fn netstat_metrics() -> &'static [Metric] {
    // Leaked once per process: a few dozen names and sentences that live as long as the constants beside them.
    static METRICS: LazyLock<Vec<Metric>> = LazyLock::new(|| {
        let metric = |field: &Field| Metric {
            name: format!("netstat_{}_total", field.name).leak(),
            kind: Kind::Counter,
            labels: &[],
            help: format!("{} {} of this network namespace: {}.", field.group, field.kernel_name, field.help).leak(),
        };
        let fields = NetCounters::FIELDS.iter();
        fields.map(|field| if migration(field).is_some() { MIGRATE_REQUESTS } else { metric(field) }).collect()
    });
    &METRICS
}

/// Adds the kernel's TCP counters of one network namespace.
pub fn netstat(f: &mut Families, counters: &NetCounters) {
    for ((field, value), metric) in counters.iter().zip(netstat_metrics()) {
        match migration(field) {
            Some(result) => f.counter(metric, &[result], value),
            None => f.counter(metric, &[], value),
        }
    }
}

/// Adds the sockets of this namespace by state. `states` holds every state, so that an empty one is 0 and not absent.
pub fn tcp_sockets<K: AsRef<str>>(f: &mut Families, states: &BTreeMap<K, u64>) {
    for (state, n) in states {
        f.gauge(&TCP_SOCKETS, &[state.as_ref()], *n as f64);
    }
}

/// Adds kernel parameters by name. Only numbers are shown: a range gives one sample per number, a text none.
pub fn sysctls(f: &mut Families, values: &BTreeMap<String, String>) {
    for (name, value) in values {
        let numbers: Result<Vec<i64>, _> = value.split_whitespace().map(str::parse).collect();
        for (index, number) in numbers.unwrap_or_default().into_iter().enumerate() {
            f.gauge(&SYSCTL_VALUE, &[name, &index.to_string()], number as f64);
        }
    }
}

/// Adds the standard metrics of this process.
pub fn process(f: &mut Families, stats: &ProcessStats) {
    f.counter_f64(&PROCESS_CPU_SECONDS, &[], stats.cpu_seconds);
    f.gauge(&PROCESS_OPEN_FDS, &[], stats.open_fds as f64);
    f.gauge(&PROCESS_MAX_FDS, &[], stats.max_fds as f64);
    f.gauge(&PROCESS_RESIDENT_MEMORY, &[], stats.resident_bytes as f64);
    f.gauge(&PROCESS_START_TIME, &[], stats.start_time_seconds);
}

/// Adds who this is: `role` is server, loadgen, watch or run; `revision` the commit it was built from.
pub fn build_info(f: &mut Families, role: &str, version: &str, revision: &str) {
    f.gauge(&BUILD_INFO, &[role, version, revision], 1.0);
}

/// Adds the settings in force, one label each. Option names are kebab-case, label names cannot be.
pub fn config_info(f: &mut Families, settings: &BTreeMap<String, String>) {
    let named: Vec<(String, &str)> =
        settings.iter().map(|(name, value)| (name.replace('-', "_"), value.as_str())).collect();
    let pairs: Vec<(&str, &str)> = named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    f.info(&CONFIG_INFO, &pairs);
}

/// Adds whether a collector could be read, and what the attempt cost in seconds.
pub fn source(f: &mut Families, name: &str, up: bool, seconds: f64) {
    f.gauge(&SOURCE_UP, &[name], f64::from(up));
    f.gauge(&SOURCE_DURATION_SECONDS, &[name], seconds);
}

/// Adds a namespace reading: the kernel's counters, sockets by state, sysctls, the process, and how each source did.
pub fn namespace(f: &mut Families, reading: &Reading) {
    netstat(f, &reading.net);
    tcp_sockets(f, &reading.tcp_sockets);
    sysctls(f, &reading.sysctls);
    // Books about another program hold no process: then there is nothing to show, and not 0.
    if reading.process != ProcessStats::default() {
        process(f, &reading.process);
    }
    for reading in &reading.sources {
        source(f, &reading.name, reading.up, reading.seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn page(fill: impl FnOnce(&mut Families)) -> String {
        let mut families = Families::new();
        fill(&mut families);
        families.render()
    }

    #[track_caller]
    fn has(page: &str, line: &str) {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }

    #[test]
    fn every_kernel_counter_is_a_metric_that_quotes_its_field() {
        let counters = NetCounters {
            listen_overflows: 41,
            migrate_request_success: 2,
            migrate_request_failure: 3,
            ..NetCounters::default()
        };
        let page = page(|f| netstat(f, &counters));
        has(&page, "acceptbench_netstat_listen_overflows_total 41");
        has(&page, "acceptbench_netstat_passive_opens_total 0");
        has(&page, "acceptbench_netstat_migrate_requests_total{result=\"success\"} 2");
        has(&page, "acceptbench_netstat_migrate_requests_total{result=\"failure\"} 3");
        let samples = page.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples, NetCounters::FIELDS.len());
        for field in NetCounters::FIELDS {
            assert!(page.contains(&format!("{} ", field.kernel_name)), "{} is not quoted", field.kernel_name);
        }
        let helps = page.lines().filter(|line| line.starts_with("# HELP"));
        assert!(helps.clone().all(|line| line.contains("of this network namespace")));
        assert_eq!(helps.count(), NetCounters::FIELDS.len() - 1, "two counters share the migration metric");
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let names: BTreeSet<&str> = netstat_metrics().iter().map(|m| m.name).collect();
        assert_eq!(names.len(), netstat_metrics().len() - 1);
        for name in names {
            assert!(name.ends_with("_total"));
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        }
    }

    #[test]
    fn sysctls_show_numbers_and_ranges_but_no_text() {
        let values = [
            ("net.core.somaxconn", "4096"),
            ("net.ipv4.ip_local_port_range", "32768\t60999"),
            ("net.ipv4.tcp_congestion_control", "cubic"),
            ("net.ipv4.ip_local_reserved_ports", ""),
            ("net.ipv4.some_negative", "-1"),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let page = page(|f| sysctls(f, &values));
        has(&page, "acceptbench_sysctl_value{name=\"net.core.somaxconn\",index=\"0\"} 4096");
        has(&page, "acceptbench_sysctl_value{name=\"net.ipv4.ip_local_port_range\",index=\"0\"} 32768");
        has(&page, "acceptbench_sysctl_value{name=\"net.ipv4.ip_local_port_range\",index=\"1\"} 60999");
        has(&page, "acceptbench_sysctl_value{name=\"net.ipv4.some_negative\",index=\"0\"} -1");
        assert_eq!(page.lines().count(), 2 + 4);
    }

    #[test]
    fn sockets_are_shown_by_state() {
        let page = page(|f| tcp_sockets(f, &BTreeMap::from([("listen", 3), ("syn_recv", 0)])));
        has(&page, "acceptbench_tcp_sockets{state=\"listen\"} 3");
        has(&page, "acceptbench_tcp_sockets{state=\"syn_recv\"} 0");
    }

    #[test]
    fn the_process_has_the_names_every_exporter_uses() {
        let stats = ProcessStats {
            cpu_seconds: 1.25,
            resident_bytes: 4096,
            open_fds: 12,
            max_fds: 20_000,
            start_time_seconds: 1_700_000_000.5,
        };
        let page = page(|f| process(f, &stats));
        for line in [
            "process_cpu_seconds_total 1.25",
            "process_open_fds 12",
            "process_max_fds 20000",
            "process_resident_memory_bytes 4096",
            "process_start_time_seconds 1700000000.5",
        ] {
            has(&page, line);
        }
    }

    #[test]
    fn identity_settings_and_sources_are_shown() {
        let settings = [("on-accept", "greet"), ("backlog", "128")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let page = page(|f| {
            build_info(f, "server", "0.1.0", "abc1234");
            config_info(f, &settings);
            source(f, "netstat", true, 0.000_012_6);
            source(f, "sock_diag", false, 0.5);
        });
        for line in [
            "acceptbench_build_info{role=\"server\",version=\"0.1.0\",revision=\"abc1234\"} 1",
            "acceptbench_config_info{backlog=\"128\",on_accept=\"greet\"} 1",
            "acceptbench_source_up{source=\"netstat\"} 1",
            "acceptbench_source_up{source=\"sock_diag\"} 0",
            "acceptbench_source_duration_seconds{source=\"netstat\"} 0.0000126",
            "acceptbench_source_duration_seconds{source=\"sock_diag\"} 0.5",
        ] {
            has(&page, line);
        }
    }
}
