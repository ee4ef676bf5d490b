//! What `acceptbench loadgen --json` prints: one JSON document a line, told apart by `event`. `start` and `end` come once,
//! `progress` every second between them. Keys are kebab-case, times seconds, rates per second. Pure: books in, data out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use loadgen::opts::RunTime;
use loadgen::{Limit, LimitKind, Opts, PhaseCounts, Snapshot, Verdict};
use serde::Serialize;
use telemetry::Warning;
use telemetry::histogram::HistogramSnapshot;

use super::live;
use super::summary;
use crate::exit::End as Exit;
use crate::pages::Signed;

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event<'a> {
    /// The load is about to begin.
    Start(Start<'a>),
    /// It runs.
    Progress(Progress),
    /// It is over, and every attempt has its verdict.
    End(Box<End<'a>>),
}

impl Event<'_> {
    /// The line. Serialising plain data cannot fail; if it did, the line would be missing.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is going to happen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Start<'a> {
    command: Vec<String>,
    options: &'a Opts,
    target: SocketAddr,
    /// Where the metrics are, if anywhere.
    metrics: Option<String>,
    warnings: &'a [Warning],
}

impl<'a> Start<'a> {
    pub(super) fn new(books: &'a Snapshot, metrics: Option<SocketAddr>) -> Self {
        Self {
            command: command(&books.opts),
            options: &books.opts,
            target: books.target,
            metrics: metrics.map(|address| format!("http://{address}/metrics")),
            warnings: &books.warnings,
        }
    }
}

/// How it goes: counts since the start, warm-up included; rates and latency of the last second.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Progress {
    seconds: f64,
    target_rate: f64,
    issued_per_second: f64,
    served_per_second: f64,
    planned: u64,
    issued: u64,
    verdicts: BTreeMap<Verdict, u64>,
    connecting: u64,
    confirming: u64,
    /// To the first byte, or to ESTABLISHED where nothing confirms.
    latency: Option<Quantiles>,
    /// The limits of its own that the generator passed so far.
    limits: Vec<LimitKind>,
}

impl Progress {
    pub(super) fn new(before: &Snapshot, now: &Snapshot) -> Self {
        let whole = now.whole();
        let latency = live::latency(&whole).since(live::latency(&before.whole()));
        Self {
            seconds: summary::seconds(now),
            target_rate: now.target_rate,
            issued_per_second: live::per_second(before, now, |counts| counts.issued),
            served_per_second: live::per_second(before, now, live::good),
            planned: whole.planned,
            issued: whole.issued,
            connecting: now.connecting,
            confirming: now.confirming,
            latency: quantiles(&latency),
            limits: now.limits.iter().map(|limit| limit.what).collect(),
            verdicts: whole.verdicts,
        }
    }
}

/// What came of it: the measured phase, but for the count of the warm-up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct End<'a> {
    command: Vec<String>,
    options: &'a Opts,
    target: SocketAddr,
    target_changes: u64,
    /// From the start to the last verdict.
    seconds: f64,
    warm_up_planned: u64,
    planned: u64,
    issued: u64,
    established: u64,
    rates: Rates,
    verdicts: &'a BTreeMap<Verdict, u64>,
    other_errnos: &'a BTreeMap<String, u64>,
    syn_retransmits: SynRetransmits,
    lag: Option<Quantiles>,
    connected: FromBoth,
    first_byte: FromBoth,
    limits: Vec<Passed>,
    warnings: &'a [Warning],
    exit: Meaning,
    /// Everything, whole histograms included: what `acceptbench merge` reads.
    snapshot: Signed<'a, Snapshot>,
}

/// Attempts per second of the measured phase, by the time in which they were planned.
#[derive(Debug, Serialize)]
struct Rates {
    planned: f64,
    issued: f64,
    served: f64,
}

/// SYNs that were sent again, by what sent them.
#[derive(Debug, Serialize)]
struct SynRetransmits {
    timeout: u64,
    leftover: u64,
}

/// The same time, counted from two instants.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct FromBoth {
    from_planned: Option<Quantiles>,
    from_issued: Option<Quantiles>,
}

/// A limit, in figures and in words.
#[derive(Debug, Serialize)]
struct Passed {
    #[serde(flatten)]
    limit: Limit,
    cause: String,
    hint: &'static str,
}

/// The exit code in words.
#[derive(Debug, Serialize)]
struct Meaning {
    code: u8,
    meaning: &'static str,
}

/// Times, s.
#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

impl<'a> End<'a> {
    pub(super) fn new(books: &'a Snapshot, exit: Exit) -> Self {
        let measured = &books.measured;
        let span = planned_seconds(books, exit);
        let rate = |count: u64| if span > 0.0 { count as f64 / span } else { 0.0 };
        let passed = |limit: &Limit| Passed { limit: *limit, cause: limit.cause(), hint: limit.hint() };
        Self {
            command: command(&books.opts),
            options: &books.opts,
            target: books.target,
            target_changes: books.target_changes,
            seconds: summary::seconds(books),
            warm_up_planned: books.warm_up.planned,
            planned: measured.planned,
            issued: measured.issued,
            established: measured.established,
            rates: Rates {
                planned: rate(measured.planned),
                issued: rate(measured.issued),
                served: rate(live::good(measured)),
            },
            verdicts: &measured.verdicts,
            other_errnos: &measured.other_errnos,
            syn_retransmits: SynRetransmits {
                timeout: measured.syn_retransmits.saturating_sub(measured.early_syn_retransmits),
                leftover: measured.early_syn_retransmits,
            },
            lag: quantiles(&measured.lag),
            connected: FromBoth {
                from_planned: quantiles(&measured.connect_latency),
                from_issued: quantiles(&connect_service(measured)),
            },
            first_byte: FromBoth {
                from_planned: quantiles(&measured.confirm_latency),
                from_issued: quantiles(&measured.confirm_service),
            },
            limits: books.limits.iter().map(passed).collect(),
            warnings: &books.warnings,
            exit: Meaning { code: exit.code(), meaning: meaning(exit) },
            snapshot: Signed::new(books),
        }
    }
}

/// The command line that repeats it, word by word.
fn command(opts: &Opts) -> Vec<String> {
    ["acceptbench", "loadgen"].map(str::to_owned).into_iter().chain(opts.to_args()).collect()
}

fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Success => "all well",
        Exit::Unexpected => "an expectation failed",
        Exit::Invalid => "the generator was the bottleneck",
        Exit::Interrupted => "interrupted",
    }
}

/// How long attempts of the measured phase were planned, s.
fn planned_seconds(books: &Snapshot, exit: Exit) -> f64 {
    match books.opts.duration {
        // Its last verdict may come before its end.
        RunTime::For(span) if exit != Exit::Interrupted => span.as_ns() as f64 / 1e9,
        _ => (summary::seconds(books) - books.opts.warm_up.as_ns() as f64 / 1e9).max(0.0),
    }
}

/// From issued to ESTABLISHED, whatever the SYN retransmits.
fn connect_service(counts: &PhaseCounts) -> HistogramSnapshot {
    let mut all = HistogramSnapshot::default();
    counts.connect_service.iter().for_each(|class| all.merge(class));
    all
}

/// `None` when nothing was recorded.
fn quantiles(times: &HistogramSnapshot) -> Option<Quantiles> {
    let at = |q| times.quantile(q).map(|ns| ns as f64 / 1e9);
    Some(Quantiles { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, p999: at(0.999)?, max: at(1.0)? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(event: &Event<'_>) -> Value {
        serde_json::from_str(&event.line()).expect("one JSON document")
    }

    fn books() -> Snapshot {
        let mut books = Snapshot { origin_ns: 1_000_000_000, monotonic_ns: 6_000_000_000, ..Snapshot::default() };
        books.opts.rate = "500".parse().expect("a rate");
        books.opts.duration = "4s".parse().expect("a time");
        let measured = &mut books.measured;
        (measured.planned, measured.issued, measured.established) = (2000, 1990, 1980);
        (measured.syn_retransmits, measured.early_syn_retransmits) = (10, 4);
        measured.verdicts = Verdict::ALL.map(|verdict| (verdict, 0)).into();
        measured.verdicts.extend([(Verdict::Served, 1980), (Verdict::Shed, 10), (Verdict::NoPorts, 10)]);
        measured.confirm_latency.record(128_000_000);
        books.limits = loadgen::judgement::limits(&books);
        books
    }

    #[test]
    fn the_end_says_everything_once_more() {
        let end = parsed(&Event::End(Box::new(End::new(&books(), Exit::Invalid))));
        assert_eq!(end["event"], "end");
        assert_eq!(end["command"], json!(["acceptbench", "loadgen", "--duration=4s", "--rate=500.0"]));
        assert_eq!(end["options"]["deadline"], "5s");
        assert_eq!(end["target"], "127.0.0.1:9700");
        assert_eq!(end["seconds"], 5.0);
        assert_eq!(end["rates"], json!({ "planned": 500.0, "issued": 497.5, "served": 495.0 }));
        assert_eq!((&end["verdicts"]["served"], &end["verdicts"]["timed-out"]), (&json!(1980), &json!(0)));
        assert_eq!(end["syn-retransmits"], json!({ "timeout": 6, "leftover": 4 }));
        assert_eq!(end["first-byte"]["from-planned"]["p99.9"], 0.128);
        assert_eq!(end["first-byte"]["from-issued"], Value::Null, "nothing was recorded");
        let limits: Vec<&Value> =
            end["limits"].as_array().expect("limits").iter().map(|limit| &limit["what"]).collect();
        assert_eq!(limits, ["descriptors", "ports"]);
        assert_eq!(end["limits"][1]["cause"], "10 attempts found no free local port");
        assert_eq!((&end["limits"][1]["measured"], &end["limits"][1]["limit"]), (&json!(10.0), &json!(0.0)));
        assert_eq!(end["exit"], json!({ "code": 2, "meaning": "the generator was the bottleneck" }));
        assert_eq!(end["snapshot"]["version"], crate::pages::VERSION);
        let whole: Snapshot = serde_json::from_value(end["snapshot"].clone()).expect("a snapshot");
        assert_eq!(whole, books(), "with every bucket");
    }

    #[test]
    fn every_key_of_every_event_and_every_limit_stands_on_its_page() {
        let page = include_str!("../../../../docs/loadgen.md");
        let books = books();
        let end = Box::new(End::new(&books, Exit::Success));
        for event in
            [Event::Start(Start::new(&books, None)), Event::Progress(Progress::new(&books, &books)), Event::End(end)]
        {
            let event = parsed(&event);
            let name = event["event"].as_str().expect("a name");
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
            let row = row.unwrap_or_else(|| panic!("{name} has no row"));
            for key in event.as_object().expect("an object").keys().filter(|key| *key != "event") {
                assert!(row.contains(&format!("`{key}`")), "{name} has {key}: {row}");
            }
        }
        for limit in LimitKind::ALL {
            assert!(page.contains(&format!("\n| `{}` | ", limit.label())), "{limit:?}");
        }
    }

    #[test]
    fn the_start_says_where_metrics_are() {
        let books = books();
        let start = parsed(&Event::Start(Start::new(&books, Some(([127, 0, 0, 1], 9711).into()))));
        assert_eq!((&start["event"], &start["metrics"]), (&json!("start"), &json!("http://127.0.0.1:9711/metrics")));
        assert_eq!(parsed(&Event::Start(Start::new(&books, None)))["metrics"], Value::Null);
    }

    #[test]
    fn progress_has_the_last_second_and_the_whole() {
        let before = books();
        let mut now = before.clone();
        now.monotonic_ns += 1_000_000_000;
        now.measured.issued += 300;
        now.measured.verdicts.insert(Verdict::Served, 2180);
        now.measured.confirm_latency.record(67_108_864);
        now.connecting = 3;
        let progress = parsed(&Event::Progress(Progress::new(&before, &now)));
        assert_eq!((&progress["seconds"], &progress["issued"]), (&json!(6.0), &json!(2290)));
        assert_eq!((&progress["issued-per-second"], &progress["served-per-second"]), (&json!(300.0), &json!(200.0)));
        assert_eq!(progress["latency"]["max"], 0.067_108_864);
        assert_eq!((&progress["connecting"], &progress["limits"]), (&json!(3), &json!(["descriptors", "ports"])));
    }
}
