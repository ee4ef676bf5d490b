//! A window of programs that run on: what was counted between two moments, as the difference of their snapshots.
//!
//! A snapshot of a running program is not one instant: its counters are read one after the other while they move. So
//! each moment is read [`Twice`] in a row. Every counter of the first reading had its value at some time before the
//! second began; what moved between the two bounds how far the first can be from any one instant, and is the allowance
//! of the window's [ledger](crate::ledger::window). It refuses to subtract a program from its successor: see
//! [`Between::restarted`].

use std::collections::BTreeMap;

use loadgen::{PhaseCounts, WorkerCpu, judgement};
use server::{AcceptorCounts, ListenerCounts};
use telemetry::histogram::HistogramSnapshot;
use telemetry::namespace::Reading;

/// The same books read twice in a row.
#[derive(Clone, Debug)]
pub struct Twice<T> {
    /// What counts.
    pub first: T,
    /// Read right after it: tells what moved meanwhile.
    pub second: T,
}

/// The two moments of a window of one program.
#[derive(Clone, Debug)]
pub struct Between<T> {
    /// Its beginning.
    pub begin: Twice<T>,
    /// Its end.
    pub end: Twice<T>,
}

/// A process' start is known to the second at worst, and the clock may be set meanwhile.
const SAME_START_SECONDS: f64 = 1.5;

impl<T> Between<T> {
    /// A sum over both moments of what `counter` moved while they were read.
    pub(crate) fn moved(&self, counter: impl Fn(&T) -> u64) -> u64 {
        [&self.begin, &self.end].iter().map(|twice| counter(&twice.second).abs_diff(counter(&twice.first))).sum()
    }

    /// What `counter` counted between the moments.
    pub(crate) fn counted(&self, counter: impl Fn(&T) -> u64) -> u64 {
        counter(&self.end.first).saturating_sub(counter(&self.begin.first))
    }

    /// Does it hold of every reading?
    pub(crate) fn all(&self, holds: impl Fn(&T) -> bool) -> bool {
        self.readings().into_iter().all(holds)
    }

    /// The readings in their order.
    fn readings(&self) -> [&T; 4] {
        [&self.begin.first, &self.begin.second, &self.end.first, &self.end.second]
    }
}

impl Between<server::Snapshot> {
    /// What the window adds: counts are differences; gauges, options and sysctls are those of its end.
    pub fn difference(&self) -> server::Snapshot {
        server_since(&self.end.first, &self.begin.first)
    }

    /// Is it another process than at the beginning, or one that listens otherwise? Then a difference means nothing.
    pub fn restarted(&self) -> bool {
        self.readings().windows(2).any(|pair| {
            let (a, b) = (pair[0], pair[1]);
            let addresses = |books: &server::Snapshot| books.listeners.iter().map(|l| l.address).collect::<Vec<_>>();
            b.opts != a.opts
                || addresses(b) != addresses(a)
                || b.accepted() < a.accepted()
                || b.fill.count < a.fill.count
                || b.monotonic_ns < a.monotonic_ns
                || another_process(&a.kernel, &b.kernel)
        })
    }

    /// The listeners whose queue limit is another at the end than at the beginning: address, then both limits.
    pub fn changed_limits(&self) -> Vec<(std::net::SocketAddr, u32, u32)> {
        let pairs = self.begin.first.listeners.iter().zip(&self.end.second.listeners);
        pairs.filter(|(a, b)| a.limit != b.limit).map(|(a, b)| (a.address, a.limit, b.limit)).collect()
    }
}

impl Between<loadgen::Snapshot> {
    /// What the window adds: counts are differences, the origin is its beginning; gauges and options are those of its
    /// end.
    pub fn difference(&self) -> loadgen::Snapshot {
        loadgen_since(&self.end.first, &self.begin.first)
    }

    /// Is it another process than at the beginning? Then a difference means nothing.
    pub fn restarted(&self) -> bool {
        self.readings().windows(2).any(|pair| {
            let (a, b) = (pair[0], pair[1]);
            b.origin_ns != a.origin_ns
                || b.opts != a.opts
                || b.measured.planned < a.measured.planned
                || b.monotonic_ns < a.monotonic_ns
                || another_process(&a.kernel, &b.kernel)
        })
    }
}

fn another_process(earlier: &Reading, later: &Reading) -> bool {
    let (before, after) = (&earlier.process, &later.process);
    (after.start_time_seconds - before.start_time_seconds).abs() > SAME_START_SECONDS
        || after.cpu_seconds < before.cpu_seconds
        || later.net.in_segments < earlier.net.in_segments
}

/// What a server counted after `earlier` was read: the inverse of `absorb`. Counts that went backwards are 0.
pub fn server_since(later: &server::Snapshot, earlier: &server::Snapshot) -> server::Snapshot {
    let acceptor = |(index, acceptor): (usize, &AcceptorCounts)| match earlier.acceptors.get(index) {
        Some(before) => acceptor_since(acceptor, before),
        None => acceptor.clone(),
    };
    let listener = |(index, listener): (usize, &ListenerCounts)| match earlier.listeners.get(index) {
        Some(before) => listener_since(listener, before),
        None => listener.clone(),
    };
    server::Snapshot {
        listeners: later.listeners.iter().enumerate().map(listener).collect(),
        acceptors: later.acceptors.iter().enumerate().map(acceptor).collect(),
        batch: later.batch.since(&earlier.batch),
        wait: later.wait.since(&earlier.wait),
        wait_stamped: later.wait_stamped.since(&earlier.wait_stamped),
        fill: later.fill.since(&earlier.fill),
        // Its steps are of the whole time the server runs, and too long for a window.
        depths: Vec::new(),
        kernel: reading_since(&later.kernel, &earlier.kernel),
        sampler_cpu_ns: later.sampler_cpu_ns.saturating_sub(earlier.sampler_cpu_ns),
        ..later.clone()
    }
}

fn listener_since(later: &ListenerCounts, earlier: &ListenerCounts) -> ListenerCounts {
    ListenerCounts {
        full_ns: later.full_ns.saturating_sub(earlier.full_ns),
        drops: later.drops.saturating_sub(earlier.drops),
        left: later.left.saturating_sub(earlier.left),
        destroyed: later.destroyed.saturating_sub(earlier.destroyed),
        relistens: later.relistens.saturating_sub(earlier.relistens),
        ..later.clone()
    }
}

/// Every field is named: a new counter must be subtracted, or this does not compile.
fn acceptor_since(later: &AcceptorCounts, earlier: &AcceptorCounts) -> AcceptorCounts {
    AcceptorCounts {
        accepts: later.accepts.saturating_sub(earlier.accepts),
        service_ns: later.service_ns.saturating_sub(earlier.service_ns),
        wakeups_work: later.wakeups_work.saturating_sub(earlier.wakeups_work),
        wakeups_empty: later.wakeups_empty.saturating_sub(earlier.wakeups_empty),
        errors: happened(map_since(&later.errors, &earlier.errors)),
        dead_on_accept: later.dead_on_accept.saturating_sub(earlier.dead_on_accept),
        late_handshakes: later.late_handshakes.saturating_sub(earlier.late_handshakes),
        greetings: later.greetings.saturating_sub(earlier.greetings),
        closed_by_server: later.closed_by_server.saturating_sub(earlier.closed_by_server),
        closed_by_reset: later.closed_by_reset.saturating_sub(earlier.closed_by_reset),
        closed_on_error: later.closed_on_error.saturating_sub(earlier.closed_on_error),
        pid: later.pid,
        deaths: later.deaths.saturating_sub(earlier.deaths),
        restarts: later.restarts.saturating_sub(earlier.restarts),
        lost_at_most: later.lost_at_most.saturating_sub(earlier.lost_at_most),
        pauses: later.pauses.saturating_sub(earlier.pauses),
        replies: later.replies.saturating_sub(earlier.replies),
        closed_by_peer: later.closed_by_peer.saturating_sub(earlier.closed_by_peer),
        closed_by_kill: later.closed_by_kill.saturating_sub(earlier.closed_by_kill),
        forks: later.forks.saturating_sub(earlier.forks),
        unhandled: later.unhandled,
    }
}

/// What a load generator counted after `earlier` was read: the inverse of `absorb`. Counts that went backwards are 0.
pub fn loadgen_since(later: &loadgen::Snapshot, earlier: &loadgen::Snapshot) -> loadgen::Snapshot {
    let worker = |(index, now): (usize, &WorkerCpu)| {
        worker_since(*now, earlier.worker_cpu.get(index).copied().unwrap_or_default())
    };
    let mut books = loadgen::Snapshot {
        target_changes: later.target_changes.saturating_sub(earlier.target_changes),
        origin_ns: earlier.monotonic_ns,
        warm_up: phase_since(&later.warm_up, &earlier.warm_up),
        measured: phase_since(&later.measured, &earlier.measured),
        worker_cpu: later.worker_cpu.iter().enumerate().map(worker).collect(),
        kernel: reading_since(&later.kernel, &earlier.kernel),
        ..later.clone()
    };
    books.limits = judgement::limits(&books);
    books
}

fn worker_since(later: WorkerCpu, earlier: WorkerCpu) -> WorkerCpu {
    WorkerCpu {
        cpu_ns: later.cpu_ns.saturating_sub(earlier.cpu_ns),
        ran_ns: later.ran_ns.saturating_sub(earlier.ran_ns),
    }
}

/// Every field is named: a new counter must be subtracted, or this does not compile.
fn phase_since(later: &PhaseCounts, earlier: &PhaseCounts) -> PhaseCounts {
    let class = |(index, times): (usize, &HistogramSnapshot)| match earlier.connect_service.get(index) {
        Some(before) => times.since(before),
        None => times.clone(),
    };
    PhaseCounts {
        planned: later.planned.saturating_sub(earlier.planned),
        issued: later.issued.saturating_sub(earlier.issued),
        before_syn: later.before_syn.saturating_sub(earlier.before_syn),
        established: later.established.saturating_sub(earlier.established),
        reset_at_connect: later.reset_at_connect.saturating_sub(earlier.reset_at_connect),
        closed_without_byte: later.closed_without_byte.saturating_sub(earlier.closed_without_byte),
        abrupt: later.abrupt.saturating_sub(earlier.abrupt),
        syn_retransmits: later.syn_retransmits.saturating_sub(earlier.syn_retransmits),
        early_syn_retransmits: later.early_syn_retransmits.saturating_sub(earlier.early_syn_retransmits),
        held_lost: later.held_lost.saturating_sub(earlier.held_lost),
        verdicts: map_since(&later.verdicts, &earlier.verdicts),
        other_errnos: happened(map_since(&later.other_errnos, &earlier.other_errnos)),
        lag: later.lag.since(&earlier.lag),
        connect_latency: later.connect_latency.since(&earlier.connect_latency),
        connect_service: later.connect_service.iter().enumerate().map(class).collect(),
        confirm_latency: later.confirm_latency.since(&earlier.confirm_latency),
        confirm_service: later.confirm_service.since(&earlier.confirm_service),
    }
}

fn map_since<K: Clone + Ord>(later: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let since = |(key, count): (&K, &u64)| (key.clone(), count.saturating_sub(earlier.get(key).copied().unwrap_or(0)));
    later.iter().map(since).collect()
}

/// Errors are listed only where they happened.
fn happened(mut counts: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counts.retain(|_, count| *count > 0);
    counts
}

fn reading_since(later: &Reading, earlier: &Reading) -> Reading {
    let mut process = later.process;
    process.cpu_seconds = (later.process.cpu_seconds - earlier.process.cpu_seconds).max(0.0);
    Reading { net: later.net.since(&earlier.net), process, ..later.clone() }
}

/// Several generators as one: counts and what is under way are summed, options and sysctls are those of the first.
/// `None` of none.
pub fn together(generators: impl IntoIterator<Item = loadgen::Snapshot>) -> Option<loadgen::Snapshot> {
    generators.into_iter().reduce(|mut sum, other| {
        sum.absorb(&other);
        sum.worker_cpu.extend(other.worker_cpu);
        sum.limits = judgement::limits(&sum);
        sum.workers += other.workers;
        sum.connecting += other.connecting;
        sum.confirming += other.confirming;
        sum.holding += other.holding;
        sum.ending += other.ending;
        sum.finished &= other.finished;
        sum.target_rate += other.target_rate;
        sum.ports_available += other.ports_available;
        sum.closing += other.closing;
        sum
    })
}

#[cfg(test)]
mod tests;
