//! The server's books at one instant: what was asked, what the kernel made of it, and every count since the
//! start. Snapshots are data: exposition, ledger and reports are functions of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use telemetry::Warning;
use telemetry::histogram::HistogramSnapshot;
use telemetry::listeners::Queue;
use telemetry::namespace::Reading;

use crate::depths::Depths;
use crate::opts::Opts;

/// Everything known of a server. Times are monotonic nanoseconds, counts cumulative since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// The options it runs with.
    pub opts: Opts,
    /// What deserves attention, e.g. a capped backlog.
    pub warnings: Vec<Warning>,
    /// `CLOCK_MONOTONIC` at the reading, ns.
    pub monotonic_ns: u64,
    /// One entry per listening socket, in the order of their listen(2) calls.
    pub listeners: Vec<ListenerCounts>,
    /// One entry per acceptor.
    pub acceptors: Vec<AcceptorCounts>,
    /// Connections taken per wake-up.
    pub batch: HistogramSnapshot,
    /// Time in the accept queue, ns, in steps of the kernel's tick (source: `tcpi_last_data_sent` at accept).
    pub wait: HistogramSnapshot,
    /// Time in the accept queue, ns, by the time stamp of the client's first bytes: to the µs where the client sends at
    /// once, and less than the truth by what it takes to do so. Empty unless the client speaks first, and with
    /// handler fork, whose children keep it to themselves.
    #[serde(default)]
    pub wait_stamped: HistogramSnapshot,
    /// Sampled depth / capacity in [`FILL_PARTS`](telemetry::histogram::FILL_PARTS).
    pub fill: HistogramSnapshot,
    /// Depth of each listener's accept queue since the start, in the order of `listeners`, by the sampling thread; none of a
    /// window, and none in records older than it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depths: Vec<Depths>,
    /// Request sockets in `SYN_RECV` towards the server's ports.
    pub syn_recv: u64,
    /// What the kernel knows of the server's network namespace and process. Its CPU time is with that of acceptors that
    /// are processes, but without children forked for connections and the nursery; memory and descriptors are its own.
    pub kernel: Reading,
    /// CPU time spent by the sampling thread, ns.
    pub sampler_cpu_ns: u64,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListenerCounts {
    /// Where it listens.
    pub address: SocketAddr,
    /// The argument given to listen(2); `None` of a socket that is not ours, for the kernel keeps only the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_requested: Option<u32>,
    /// The queue limit as read back from the kernel; the queue holds one more.
    pub limit: u32,
    /// Connections in the accept queue now.
    pub depth: u64,
    /// Deepest seen since the start.
    pub deepest: u64,
    /// Deepest seen since the last scrape.
    pub deepest_since_scrape: u64,
    /// Time spent full, ns, by the sampling thread's ticks.
    pub full_ns: u64,
    /// `sk_drops`, widened over u32 wraps.
    pub drops: u64,
    /// Connections in the queue when accepting stopped for good.
    pub left: u64,
    /// Connections in the queue when the listener was closed during the run: reset by the kernel.
    pub destroyed: u64,
    /// Was it closed during the run?
    pub retired: bool,
    /// listen(2) calls made again because somaxconn had changed.
    #[serde(default)]
    pub relistens: u64,
    /// Its options as read back from the kernel.
    #[serde(default)]
    pub options: ListenerOptions,
}

/// Options of a listening socket as the kernel has them. socket(7), tcp(7), ipv6(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ListenerOptions {
    /// `SO_REUSEADDR`.
    pub reuseaddr: bool,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// `IPV6_V6ONLY`; false for IPv4.
    pub v6only: bool,
    /// `TCP_DEFER_ACCEPT`, s, rounded by the kernel to 1, 3, 7, 15, 31; 0 is off.
    pub defer_accept_seconds: u32,
    /// `TCP_FASTOPEN`: pending requests at most; 0 is off.
    pub fastopen: u32,
    /// `SO_INCOMING_CPU`, where it was set.
    pub incoming_cpu: Option<u32>,
}

impl ListenerCounts {
    /// What is shown of its accept queue.
    pub fn queue(&self) -> Queue {
        Queue {
            depth: self.depth,
            limit: self.limit,
            deepest_since_scrape: self.deepest_since_scrape,
            full_ns: self.full_ns,
            drops: Some(self.drops),
        }
    }
}

/// What one acceptor did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AcceptorCounts {
    /// Its process id; 0 for a thread.
    pub pid: u32,
    /// Processes that died in this place without being asked to.
    pub deaths: u64,
    /// Processes that took the place of one that had died.
    pub restarts: u64,
    /// Connections that may have gone uncounted with those that died, at most.
    pub lost_at_most: u64,
    /// accept4 successes.
    pub accepts: u64,
    /// Time spent on connections, ns, where there is an accept delay and else 0: from the accept, or from the end of the
    /// connection before where this one was waiting, until all is done for it that is done at once.
    #[serde(default)]
    pub service_ns: u64,
    /// Wake-ups that found a connection.
    pub wakeups_work: u64,
    /// Wake-ups that found none: another acceptor was faster.
    pub wakeups_empty: u64,
    /// accept4 errors by errno name; only those that happened.
    pub errors: BTreeMap<String, u64>,
    /// Times the listener was left alone because descriptors or memory had run out.
    pub pauses: u64,
    /// Connections already reset by the peer when accepted.
    pub dead_on_accept: u64,
    /// Connections accepted whose SYN-ACK had been retransmitted: phantoms that got in after all.
    pub late_handshakes: u64,
    /// Greetings handed to the kernel.
    pub greetings: u64,
    /// Connections that got an answer after they had sent something (on-accept reply and echo).
    pub replies: u64,
    /// Connections that the client closed or reset first.
    pub closed_by_peer: u64,
    /// Connections closed with a FIN by the server first.
    pub closed_by_server: u64,
    /// Connections closed with a RST on purpose.
    pub closed_by_reset: u64,
    /// Connections closed because sending to them failed.
    pub closed_on_error: u64,
    /// Connections closed by the kernel because their acceptor died.
    pub closed_by_kill: u64,
    /// Children forked for a connection (handler fork).
    pub forks: u64,
    /// Connections that a multishot accept has taken off the queue and nobody has looked at yet.
    pub unhandled: u64,
}

impl AcceptorCounts {
    /// Connections accepted and not closed yet.
    pub fn open(&self) -> u64 {
        let closed = self.closed_by_peer
            + self.closed_by_server
            + self.closed_by_reset
            + self.closed_on_error
            + self.closed_by_kill;
        self.accepts.saturating_sub(closed)
    }

    /// Connections that got a first byte.
    pub fn answered(&self) -> u64 {
        self.greetings + self.replies
    }

    fn absorb(&mut self, other: &Self) {
        self.deaths += other.deaths;
        self.restarts += other.restarts;
        self.lost_at_most += other.lost_at_most;
        self.accepts += other.accepts;
        self.service_ns += other.service_ns;
        self.wakeups_work += other.wakeups_work;
        self.wakeups_empty += other.wakeups_empty;
        for (errno, count) in &other.errors {
            *self.errors.entry(errno.clone()).or_default() += count;
        }
        self.pauses += other.pauses;
        self.dead_on_accept += other.dead_on_accept;
        self.late_handshakes += other.late_handshakes;
        self.greetings += other.greetings;
        self.replies += other.replies;
        self.closed_by_peer += other.closed_by_peer;
        self.closed_by_server += other.closed_by_server;
        self.closed_by_reset += other.closed_by_reset;
        self.closed_on_error += other.closed_on_error;
        self.closed_by_kill += other.closed_by_kill;
        self.forks += other.forks;
    }
}

impl Snapshot {
    /// A sum over the acceptors.
    pub fn total(&self, count: impl Fn(&AcceptorCounts) -> u64) -> u64 {
        self.acceptors.iter().map(count).sum()
    }

    /// Connections accepted by all acceptors.
    pub fn accepted(&self) -> u64 {
        self.total(|acceptor| acceptor.accepts)
    }

    /// Connections left in the accept queues when accepting stopped.
    pub fn left(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.left).sum()
    }

    /// Connections destroyed with a listener closed during the run.
    pub fn destroyed(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.destroyed).sum()
    }

    /// Connections in the accept queues now.
    pub fn depth(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.depth).sum()
    }

    /// Adds the cumulative counts of a finished server, acceptor by acceptor and listener by listener, and
    /// keeps this one's gauges: what a scrape shows over many trials never goes down.
    pub fn absorb(&mut self, finished: &Self) {
        let acceptors = self.acceptors.len().max(finished.acceptors.len());
        self.acceptors.resize_with(acceptors, AcceptorCounts::default);
        for (mine, theirs) in self.acceptors.iter_mut().zip(&finished.acceptors) {
            mine.absorb(theirs);
        }
        for (index, theirs) in finished.listeners.iter().enumerate() {
            match self.listeners.get_mut(index) {
                Some(mine) => {
                    mine.full_ns += theirs.full_ns;
                    mine.drops += theirs.drops;
                    mine.left += theirs.left;
                    mine.destroyed += theirs.destroyed;
                    mine.relistens += theirs.relistens;
                    mine.deepest = mine.deepest.max(theirs.deepest);
                }
                None => self.listeners.push(ListenerCounts { depth: 0, ..theirs.clone() }),
            }
        }
        self.batch.merge(&finished.batch);
        self.wait.merge(&finished.wait);
        self.wait_stamped.merge(&finished.wait_stamped);
        self.fill.merge(&finished.fill);
        self.kernel.absorb(&finished.kernel);
        self.sampler_cpu_ns += finished.sampler_cpu_ns;
    }
}
