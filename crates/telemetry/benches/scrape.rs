//! A server's scrape as large as it gets: 64 acceptors with a listener each. Used by the bench and by the tests.

use std::collections::BTreeMap;

use kernel::netstat::NetCounters;
use kernel::process::ProcessStats;
use telemetry::counter::{Counter, Padded};
use telemetry::exposition::{Families, Kind, Metric, Scale};
use telemetry::histogram::{Bounds, Histogram, HistogramSnapshot, fill_parts};
use telemetry::standard;

const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str]) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help: "One sentence about as long as those of the real metrics, with its kernel field.",
    }
}

const ACCEPTS: Metric = metric("server_accepts_total", Kind::Counter, &["acceptor"]);
const ERRORS: Metric = metric("server_accept_errors_total", Kind::Counter, &["acceptor", "errno"]);
const WAKEUPS: Metric = metric("server_accept_wakeups_total", Kind::Counter, &["acceptor", "result"]);
const DEPTH: Metric = metric("listener_accept_queue_depth", Kind::Gauge, &["listener"]);
const LIMIT: Metric = metric("listener_accept_queue_limit", Kind::Gauge, &["listener"]);
const BACKLOG: Metric = metric("listener_backlog_requested", Kind::Gauge, &["listener"]);
const FULL: Metric = metric("listener_full_seconds_total", Kind::Counter, &["listener"]);
const DROPS: Metric = metric("listener_drops_total", Kind::Counter, &["listener"]);
const WAIT: Metric = metric("server_accept_queue_wait_seconds", Kind::Histogram, &["source"]);
const BATCH: Metric = metric("server_accept_batch_connections", Kind::Histogram, &[]);
const FILL: Metric = metric("listener_accept_queue_fill_ratio", Kind::Histogram, &[]);

/// An endless stream of latencies in nanoseconds, log-uniform from about 1 µs to 1 s, the same for the same seed.
pub(crate) fn latencies(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed), |x| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)))
        .skip(1)
        .map(|x| (1 << (10 + (x >> 32) % 20)) + (x >> 40) % 1024)
}

/// What one acceptor writes.
#[derive(Debug, Default)]
struct Worker {
    accepts: Counter,
    wait: Histogram,
    batch: Histogram,
    fill: Histogram,
}

/// The acceptors of a server that has been busy for a while.
#[derive(Debug)]
pub(crate) struct Workers(Vec<Padded<Worker>>);

/// What a scrape shows of them.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    accepts: Vec<u64>,
    wait: HistogramSnapshot,
    batch: HistogramSnapshot,
    fill: HistogramSnapshot,
}

impl Workers {
    /// `n` acceptors that have accepted 5 000 connections each.
    pub(crate) fn new(n: u64) -> Self {
        let worker = |seed| {
            let worker = Padded(Worker::default());
            for (i, ns) in (1..=5_000).zip(latencies(seed)) {
                worker.accepts.add(1);
                worker.wait.record(ns);
                worker.batch.record(ns % 64);
                worker.fill.record(fill_parts(i % 129, 129));
            }
            worker
        };
        Self((0..n).map(worker).collect())
    }

    /// The sum over all acceptors, as the scrape of a server makes it.
    pub(crate) fn sum(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.0 {
            totals.accepts.push(worker.accepts.get());
            totals.wait.merge(&worker.wait.snapshot());
            totals.batch.merge(&worker.batch.snapshot());
            totals.fill.merge(&worker.fill.snapshot());
        }
        totals
    }
}

/// The page of a server with these acceptors.
pub(crate) fn page(totals: &Totals) -> String {
    let mut f = Families::new();
    for (i, &accepts) in totals.accepts.iter().enumerate() {
        let id = i.to_string();
        f.counter(&ACCEPTS, &[&id], accepts);
        f.counter(&WAKEUPS, &[&id, "work"], accepts / 2);
        f.counter(&WAKEUPS, &[&id, "empty"], accepts / 9);
        for errno in ["EMFILE", "ENFILE", "ECONNABORTED"] {
            f.counter(&ERRORS, &[&id, errno], 0);
        }
        f.gauge(&DEPTH, &[&id], 17.0);
        f.gauge(&LIMIT, &[&id], 4096.0);
        f.gauge(&BACKLOG, &[&id], 4096.0);
        f.counter_f64(&FULL, &[&id], 0.25);
        f.counter(&DROPS, &[&id], 0);
    }
    for source in ["rx-timestamp", "last-data-sent"] {
        f.histogram(&WAIT, &[source], &totals.wait, Bounds::Latency, Scale::Seconds);
    }
    f.histogram(&BATCH, &[], &totals.batch, Bounds::Count, Scale::Plain);
    f.histogram(&FILL, &[], &totals.fill, Bounds::Fill, Scale::Fill);
    both_roles(&mut f);
    f.render()
}

fn both_roles(f: &mut Families) {
    standard::build_info(f, "server", "0.1.0", "0000000");
    standard::config_info(f, &BTreeMap::from([("on-accept".to_owned(), "greet".to_owned())]));
    standard::source(f, "netstat", true, 0.000_012_6);
    standard::netstat(f, &NetCounters { listen_overflows: 12, ..NetCounters::default() });
    standard::tcp_sockets(f, &BTreeMap::from([("listen", 64), ("established", 1_000)]));
    let sysctls = (0..30).map(|i| (format!("net.ipv4.some_parameter_{i}"), "32768 60999".to_owned())).collect();
    standard::sysctls(f, &sysctls);
    let stats = ProcessStats {
        cpu_seconds: 1.5,
        resident_bytes: 1 << 24,
        open_fds: 200,
        max_fds: 20_000,
        start_time_seconds: 1.7e9,
    };
    standard::process(f, &stats);
}
