//! The three pages of `acceptbench run`, read every few milliseconds while it runs, against the records it leaves.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::children::{ACCEPTBENCH, Running};
use crate::is_required;
use crate::page::{Samples, fetch, lint};
use crate::put::REQUIREMENT;

/// Two cells, one of which overflows; two replicates.
const EXPERIMENT: &str = r#"
[experiment]
name = "pages"
question = "do the pages agree with the records?"
replicates = 2
retries = 0
seed = 7
warm-up = "50ms"
measure = "300ms"
topology = "veth"
[server]
accept-delay = "2ms"
[loadgen]
rate = 800
deadline = "400ms"
[half-open]
count = 3
[sysctl]
"net.ipv4.tcp_syncookies" = 0
[[factor]]
set = "server.backlog"
to = [4, 512]
[compare]
metrics = ["served-ratio"]
baseline = "server.backlog = 512"
smallest-effect = 0.05
by = "ranges"
"#;

/// Trials of the experiment, and sockets that each keeps half open.
const TRIALS: usize = 4;
const HALF_OPEN: u64 = 3;

/// A gauge goes with its trial.
const GAUGE: &str = "acceptbench_loadgen_half_open";

/// How often each page is read.
const INTERVAL: Duration = Duration::from_millis(20);

/// A page, and what was seen of it.
#[derive(Debug)]
struct Watched {
    path: &'static str,
    text: String,
    samples: Samples,
    reads: u32,
    /// How often it was another than before.
    steps: u32,
    shrunk: Vec<String>,
    /// The most half-open sockets it showed.
    half_open: u64,
}

impl Watched {
    fn new(path: &'static str) -> Self {
        Self {
            path,
            text: String::new(),
            samples: Samples::default(),
            reads: 0,
            steps: 0,
            shrunk: Vec::new(),
            half_open: 0,
        }
    }

    /// One look at it, if it can still be had.
    fn look(&mut self, admin: SocketAddr) {
        let Ok(text) = fetch(admin, self.path) else { return };
        let samples = Samples::read(&text);
        self.shrunk.extend(samples.shrunk(&self.samples));
        if text.contains(GAUGE) {
            self.half_open = self.half_open.max(samples.count(GAUGE));
        }
        self.steps += u32::from(text != self.text);
        self.reads += 1;
        (self.text, self.samples) = (text, samples);
    }
}

/// Runs the experiment and holds the pages against its records.
pub(crate) fn check() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("pages.toml");
    let results = directory.path().join("results");
    fs::write(&file, EXPERIMENT).expect("write an experiment");
    let arguments = [
        "run".as_ref(),
        file.as_os_str(),
        "--results".as_ref(),
        results.as_os_str(),
        "--admin".as_ref(),
        "127.0.0.1:0".as_ref(),
    ];
    let mut run = Running::start(ACCEPTBENCH, arguments);
    let mut pages = [Watched::new("/metrics"), Watched::new("/server/metrics"), Watched::new("/loadgen/metrics")];
    if let Some(admin) = run.find_admin() {
        while run.ended().is_none() {
            for page in &mut pages {
                page.look(admin);
                // As Prometheus does: not all at the same instant.
                thread::sleep(INTERVAL / 3);
            }
        }
    }
    let (status, printed) = run.finish(Duration::from_secs(5));
    if status.code() == Some(REQUIREMENT) {
        assert!(!is_required("NETNS"), "{printed:#?}");
        eprintln!("skipped: experiments cannot run here: {printed:#?}");
        return;
    }
    assert!(matches!(status.code(), Some(0 | 2)), "{status}: {printed:#?}");
    let records = fs::read_to_string(results.join("latest/trials.jsonl")).expect("the run's records");
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert_eq!(records.len(), TRIALS);

    for page in &pages {
        assert!(page.reads > 30 && page.steps > 10, "{}: {} reads, {} steps", page.path, page.reads, page.steps);
        assert_eq!(page.shrunk, Vec::<String>::new(), "{} went down", page.path);
        lint(page.path, &page.text);
    }
    let [runner, server, loadgen] = pages;
    assert_eq!((loadgen.half_open, loadgen.samples.count(GAUGE)), (HALF_OPEN, 0), "half-open sockets");
    assert!(server.samples.cumulative() > 100 && loadgen.samples.cumulative() > 100);
    check_runner(&runner.samples, &records);
    check_server(&server.samples, &records);
    check_loadgen(&loadgen.samples, &records);
}

/// The sum over the records of the number at a JSON pointer; it is in each of them.
fn sum(records: &[Value], pointer: &str) -> u64 {
    let number = |record: &Value| record.pointer(pointer).and_then(Value::as_u64);
    records.iter().map(|record| number(record).unwrap_or_else(|| panic!("no number at {pointer}"))).sum()
}

/// The keys of the object at a JSON pointer.
fn keys(records: &[Value], pointer: &str) -> Vec<String> {
    let object = records[0].pointer(pointer).and_then(Value::as_object);
    object.unwrap_or_else(|| panic!("no object at {pointer}")).keys().cloned().collect()
}

fn check_runner(page: &Samples, records: &[Value]) {
    assert_eq!(page.count("acceptbench_experiment_trials_completed_total"), TRIALS as u64);
    assert_eq!(page.count("acceptbench_experiment_trials"), TRIALS as u64);
    let invalid = records.iter().filter(|record| record["invalid"] != Value::Array(Vec::new())).count();
    assert_eq!(page.count("acceptbench_experiment_trials_invalid_total"), invalid as u64);
    for term in ["phantoms", "raced", "lost", "ghosts"] {
        assert_eq!(
            page.count(&format!("acceptbench_ledger_{term}_total")),
            sum(records, &format!("/ledger/terms/{term}")),
            "{term}"
        );
    }
    for line in records[TRIALS - 1]["ledger"]["lines"].as_array().expect("the ledger's lines") {
        let series = format!("acceptbench_ledger_residual{{line=\"{}\"}}", line["number"]);
        assert_eq!(Some(page.count(&series)), line["residual"].as_u64(), "{series}");
    }
}

fn check_server(page: &Samples, records: &[Value]) {
    let accepts = sum(records, "/server/acceptors/0/accepts");
    assert!(accepts > 100, "{accepts}");
    assert_eq!(page.count(r#"acceptbench_server_accepts_total{acceptor="0"}"#), accepts);
    assert_eq!(page.count("acceptbench_server_greetings_total"), sum(records, "/server/acceptors/0/greetings"));
    assert_eq!(
        page.count(r#"acceptbench_listener_drops_total{listener="0"}"#),
        sum(records, "/server/listeners/0/drops")
    );
    for (metric, field) in [
        ("server_accept_batch_connections_count", "batch/count"),
        ("server_accept_batch_connections_sum", "batch/sum"),
        (r#"server_accept_queue_wait_seconds_count{source="tcp-info"}"#, "wait/count"),
        ("listener_accept_queue_fill_ratio_count", "fill/count"),
    ] {
        assert_eq!(page.count(&format!("acceptbench_{metric}")), sum(records, &format!("/server/{field}")), "{metric}");
    }
    check_kernel("server", page, records);
    assert!(page.count("acceptbench_netstat_listen_overflows_total") > 0, "a queue of 5 must overflow");
}

fn check_loadgen(page: &Samples, records: &[Value]) {
    let both = |field: &str| {
        ["warm-up", "measured"].iter().map(|phase| sum(records, &format!("/loadgen/{phase}/{field}"))).sum::<u64>()
    };
    let planned = both("planned");
    assert_eq!(planned, TRIALS as u64 * (280 + HALF_OPEN), "800/s for 350 ms, and what is kept half open");
    assert_eq!(page.count("acceptbench_loadgen_planned_total"), planned);
    assert_eq!(page.count("acceptbench_loadgen_attempts_total"), both("issued"));
    for verdict in keys(records, "/loadgen/measured/verdicts") {
        let series = format!("acceptbench_loadgen_verdicts_total{{verdict=\"{}\"}}", verdict.replace('-', "_"));
        assert_eq!(page.count(&series), both(&format!("verdicts/{verdict}")), "{series}");
    }
    assert_eq!(page.sum("acceptbench_loadgen_verdicts_total"), planned, "every arrival has a verdict");
    for (metric, field) in [
        ("connect_latency", "connect-latency"),
        ("confirm_latency", "confirm-latency"),
        ("confirm_service", "confirm-service"),
        ("schedule_lag", "lag"),
    ] {
        let series = format!("acceptbench_loadgen_{metric}_seconds_count");
        assert_eq!(page.count(&series), both(&format!("{field}/count")), "{series}");
    }
    check_kernel("loadgen", page, records);
    assert!(page.count("acceptbench_netstat_active_opens_total") > 0);
}

/// Every kernel counter of an end's network namespace.
fn check_kernel(end: &str, page: &Samples, records: &[Value]) {
    for field in keys(records, &format!("/{end}/kernel/net")) {
        let series = match field.strip_prefix("migrate-request-") {
            Some(result) => format!("acceptbench_netstat_migrate_requests_total{{result=\"{result}\"}}"),
            None => format!("acceptbench_netstat_{}_total", field.replace('-', "_")),
        };
        assert_eq!(page.count(&series), sum(records, &format!("/{end}/kernel/net/{field}")), "{end}: {series}");
    }
}
