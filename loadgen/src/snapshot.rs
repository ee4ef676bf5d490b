//! The generator's books at one instant. Snapshots are data: exposition, ledger and reports are functions of
//! them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use telemetry::Warning;
use telemetry::histogram::HistogramSnapshot;
use telemetry::namespace::Reading;

use crate::budget::Budget;
use crate::judgement::Limit;
use crate::opts::{Engine, Opts};
use crate::verdict::Verdict;

/// Everything known of a load generator. Times are nanoseconds, counts cumulative since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// The options it runs with.
    pub opts: Opts,
    /// The address attempts go to.
    pub target: SocketAddr,
    /// How often the target's name came to mean another address since the start.
    #[serde(default)]
    pub target_changes: u64,
    /// Threads that open connections.
    pub workers: usize,
    /// What drives their sockets: never `auto`.
    #[serde(default = "epoll")]
    pub engine: Engine,
    /// What deserves attention.
    pub warnings: Vec<Warning>,
    /// What was reckoned before the start; none in records older than it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// `CLOCK_MONOTONIC` at the reading, ns.
    pub monotonic_ns: u64,
    /// `CLOCK_MONOTONIC` of the start, ns; 0 before it.
    pub origin_ns: u64,
    /// Attempts planned in the warm-up, and those kept half open from before it.
    pub warm_up: PhaseCounts,
    /// Attempts planned in the measured phase: the cohort.
    pub measured: PhaseCounts,
    /// Attempts whose SYN is out and unanswered.
    pub connecting: u64,
    /// Attempts connected that wait for the server's first byte.
    pub confirming: u64,
    /// Connections that have their verdict and are held open.
    #[serde(default)]
    pub holding: u64,
    /// Connections that have sent their FIN by shutdown(2) and wait for the server's.
    #[serde(default)]
    pub ending: u64,
    /// Has every planned attempt its verdict and every socket been closed?
    pub finished: bool,
    /// Attempts per second planned now.
    pub target_rate: f64,
    /// Local ports the kernel may pick from that no socket of this namespace uses.
    pub ports_available: u64,
    /// Sockets of this namespace towards the target that still owe or are owed a FIN (`FIN_WAIT1`, `CLOSING`,
    /// `LAST_ACK`).
    pub closing: u64,
    /// What each worker took of its core.
    #[serde(default)]
    pub worker_cpu: Vec<WorkerCpu>,
    /// The limits of its own that the generator passed so far; none while it measures the server and not itself.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Sockets kept half open on purpose, which only a trial in namespaces of its own can ask for.
    #[serde(default)]
    pub half_open: HalfOpenCounts,
    /// What the kernel knows of the generator's network namespace and process.
    pub kernel: Reading,
}

/// What drove sockets when records did not say it.
fn epoll() -> Engine {
    Engine::Epoll
}

/// What a worker's thread took of its core, up to the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct WorkerCpu {
    /// CPU time of the thread, ns.
    pub cpu_ns: u64,
    /// Time since the start of the load, ns.
    pub ran_ns: u64,
}

impl WorkerCpu {
    /// The share of a core: 0 to 1.
    pub fn share(&self) -> f64 {
        if self.ran_ns == 0 { 0.0 } else { self.cpu_ns as f64 / self.ran_ns as f64 }
    }
}

/// Sockets kept half open on purpose, to fill the SYN queue. Each is an attempt of the warm-up with the verdict
/// [`HalfOpen`](Verdict::HalfOpen).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HalfOpenCounts {
    /// Sockets there are now.
    pub kept: u64,
    /// Sockets that dropped an answer: their SYN became a request at the server, or was answered with a cookie. Looked at
    /// when every other attempt has its verdict, and at scrapes.
    pub answered: u64,
    /// Answers they dropped (segments).
    pub dropped: u64,
}

/// What became of the attempts planned in one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PhaseCounts {
    /// Arrivals that came due.
    pub planned: u64,
    /// Attempts for which connect(2) was called.
    pub issued: u64,
    /// Issued attempts that failed before a SYN left (no port, no route, local policy).
    pub before_syn: u64,
    /// Attempts the client saw established.
    pub established: u64,
    /// Attempts for which connect(2) itself gave ECONNRESET: established in the kernel, then reset.
    pub reset_at_connect: u64,
    /// Attempts counted unserved because the server closed without a byte.
    pub closed_without_byte: u64,
    /// Attempts that sent something within 10 ms of being established, which may have met a last ACK still being
    /// handled: a RST or FIN because they were closed unserved, or with confirm reply their data, served or not.
    pub abrupt: u64,
    /// SYNs retransmitted by established attempts.
    pub syn_retransmits: u64,
    /// Those of them that no timer sent: sent again and answered before the first timeout (1 s) could fire. The SYN met what an
    /// earlier connection of the same four addresses had left behind, and was sent again once that was gone.
    pub early_syn_retransmits: u64,
    /// Held connections that the other side ended.
    pub held_lost: u64,
    /// How attempts ended; every verdict is present.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// The verdict `other` by errno number.
    pub other_errnos: BTreeMap<String, u64>,
    /// issued − planned.
    pub lag: HistogramSnapshot,
    /// established − planned.
    pub connect_latency: HistogramSnapshot,
    /// established − issued, by SYN retransmits 0, 1, 2, 3 and more, and not known.
    pub connect_service: Vec<HistogramSnapshot>,
    /// first byte − planned.
    pub confirm_latency: HistogramSnapshot,
    /// first byte − issued: what a generator that forgives a stall would report.
    pub confirm_service: HistogramSnapshot,
}

impl PhaseCounts {
    /// Attempts that ended with `verdict`.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    /// Attempts that have a verdict.
    pub fn concluded(&self) -> u64 {
        self.verdicts.values().sum()
    }

    /// Adds another phase or another run.
    pub fn absorb(&mut self, other: &Self) {
        self.planned += other.planned;
        self.issued += other.issued;
        self.before_syn += other.before_syn;
        self.established += other.established;
        self.reset_at_connect += other.reset_at_connect;
        self.closed_without_byte += other.closed_without_byte;
        self.abrupt += other.abrupt;
        self.syn_retransmits += other.syn_retransmits;
        self.early_syn_retransmits += other.early_syn_retransmits;
        self.held_lost += other.held_lost;
        for (verdict, count) in &other.verdicts {
            *self.verdicts.entry(*verdict).or_default() += count;
        }
        for (errno, count) in &other.other_errnos {
            *self.other_errnos.entry(errno.clone()).or_default() += count;
        }
        self.lag.merge(&other.lag);
        self.connect_latency.merge(&other.connect_latency);
        let classes = self.connect_service.len().max(other.connect_service.len());
        self.connect_service.resize_with(classes, HistogramSnapshot::default);
        for (mine, theirs) in self.connect_service.iter_mut().zip(&other.connect_service) {
            mine.merge(theirs);
        }
        self.confirm_latency.merge(&other.confirm_latency);
        self.confirm_service.merge(&other.confirm_service);
    }
}

/// The books of a generator with default options before its start.
impl Default for Snapshot {
    fn default() -> Self {
        Self {
            opts: Opts::default(),
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 9700)),
            target_changes: 0,
            workers: 1,
            engine: Engine::Epoll,
            warnings: Vec::new(),
            budget: None,
            monotonic_ns: 0,
            origin_ns: 0,
            warm_up: PhaseCounts::default(),
            measured: PhaseCounts::default(),
            connecting: 0,
            holding: 0,
            ending: 0,
            confirming: 0,
            finished: false,
            target_rate: 0.0,
            ports_available: 0,
            closing: 0,
            worker_cpu: Vec::new(),
            limits: Vec::new(),
            half_open: HalfOpenCounts::default(),
            kernel: Reading::default(),
        }
    }
}

impl Snapshot {
    /// Warm-up and measured phase together.
    pub fn whole(&self) -> PhaseCounts {
        let mut whole = self.warm_up.clone();
        whole.absorb(&self.measured);
        whole
    }

    /// Adds the cumulative counts of a finished generator and keeps this one's gauges: what a scrape shows
    /// over many trials never goes down.
    pub fn absorb(&mut self, finished: &Self) {
        self.warm_up.absorb(&finished.warm_up);
        self.measured.absorb(&finished.measured);
        self.target_changes += finished.target_changes;
        self.kernel.absorb(&finished.kernel);
    }
}
