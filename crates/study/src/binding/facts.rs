//! What the rules look at: the figures of one trial, taken from its books.

use loadgen::judgement::Limit;
use loadgen::opts::{ArrivalKind, Confirm};
use loadgen::verdict::Verdict;
use server::opts::Stall;

use crate::quantity;
use crate::results::{Topology, Trial};

/// The figures of a trial. Attempts are those of the measured phase; what the kernel counts is of the whole trial.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    /// The trial itself.
    pub(crate) trial: &'a Trial,
    /// Attempts planned, of a window those that ended in it.
    pub(crate) planned: u64,
    /// Attempts that came to what was asked for: the first byte, or without confirmation the connection.
    pub(crate) served: u64,
    /// Connected, no byte by the deadline.
    pub(crate) unserved: u64,
    /// Limits of its own that the generator passed.
    pub(crate) limits: Vec<Limit>,
    /// Planned per second, where that is one number: a profile and a trace have no one rate, and a closed loop follows the server.
    pub(crate) rate: Option<f64>,
    /// What the acceptors can serve per second, stalls taken off; unknown where [`quantity::service_rate`] is.
    pub(crate) capacity: Option<f64>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of(trial: &'a Trial) -> Self {
        let cohort = &trial.loadgen.measured;
        let one_rate = !matches!(trial.loadgen.opts.arrivals, ArrivalKind::Profile(_) | ArrivalKind::Trace(_));
        let served = match trial.loadgen.opts.confirm {
            Confirm::None => cohort.verdict(Verdict::Connected),
            Confirm::Greeting | Confirm::Reply => cohort.verdict(Verdict::Served),
        };
        Self {
            trial,
            planned: quantity::cohort(trial),
            served,
            unserved: cohort.verdict(Verdict::Unserved),
            limits: loadgen::judgement::limits(&trial.loadgen),
            rate: one_rate.then(|| quantity::arrival_rate(trial)).flatten(),
            capacity: quantity::service_rate(trial)
                .map(|rate| rate * awake(trial.server.opts.stall, trial.timings.load_ms)),
        }
    }

    /// Attempts that did not come to what was asked for.
    pub(crate) fn lost(&self) -> u64 {
        self.planned.saturating_sub(self.served)
    }

    /// Attempts that ended so.
    pub(crate) fn verdict(&self, verdict: Verdict) -> u64 {
        self.trial.loadgen.measured.verdict(verdict)
    }

    /// `ListenOverflows`: segments that met a full accept queue.
    pub(crate) fn overflows(&self) -> u64 {
        self.trial.server.kernel.net.listen_overflows
    }

    /// `TCPReqQFullDrop`: SYNs that met a full SYN queue while cookies were off.
    pub(crate) fn syn_queue_drops(&self) -> u64 {
        self.trial.server.kernel.net.request_queue_full_drops
    }

    /// SYNs refused by the quarter of `tcp_max_syn_backlog` kept for known peers: what is left of `ListenDrops`.
    pub(crate) fn quarter_drops(&self) -> u64 {
        let net = &self.trial.server.kernel.net;
        net.listen_drops.saturating_sub(net.listen_overflows + net.request_queue_full_drops)
    }

    /// SYNs that a full SYN queue answered with a cookie.
    pub(crate) fn cookies(&self) -> u64 {
        self.trial.server.kernel.net.request_queue_full_cookies
    }

    /// Connected, and never in the accept queue; `None` in a window.
    pub(crate) fn phantoms(&self) -> Option<u64> {
        (self.trial.topology != Topology::Attached).then_some(self.trial.ledger.terms.phantoms)
    }

    /// SYNs of attempts that got through in the end, sent again by a timer.
    pub(crate) fn retries(&self) -> u64 {
        let cohort = &self.trial.loadgen.measured;
        cohort.syn_retransmits.saturating_sub(cohort.early_syn_retransmits)
    }

    /// A sysctl that was in force at the server, if it is recorded and a number.
    pub(crate) fn sysctl(&self, name: &str) -> Option<i64> {
        let recorded = self.trial.sysctls.get(name).or_else(|| self.trial.server.kernel.sysctls.get(name));
        recorded?.trim().parse().ok()
    }

    /// The smallest queue limit of the listeners as read back, and the backlog that listen(2) was given there, if that is
    /// known: a target's is not.
    pub(crate) fn limit(&self) -> Option<(u32, Option<u32>)> {
        let listeners = self.trial.server.listeners.iter();
        listeners.map(|listener| (listener.limit, listener.backlog_requested)).min()
    }

    /// `limit 16 = min(backlog 16, somaxconn 128)`.
    pub(crate) fn limit_in_words(&self) -> String {
        match (self.limit(), self.sysctl(SOMAXCONN)) {
            (Some((limit, None)), somaxconn) => limit_alone(limit, somaxconn),
            (Some((limit, Some(backlog))), Some(somaxconn))
                if i64::from(limit) == i64::from(backlog).min(somaxconn) =>
            {
                format!("limit {limit} = min(backlog {backlog}, somaxconn {somaxconn})")
            }
            (Some((limit, Some(backlog))), Some(somaxconn)) => {
                format!("limit {limit}, though the backlog is {backlog} and somaxconn {somaxconn}")
            }
            (Some((limit, Some(backlog))), None) => format!("limit {limit}, backlog {backlog}, somaxconn not recorded"),
            (None, _) => "no listener".to_owned(),
        }
    }

    /// The share of the load's time that the accept queues were full.
    pub(crate) fn full_share(&self) -> Option<f64> {
        let listeners = &self.trial.server.listeners;
        let ns = self.trial.timings.load_ms * 1e6 * listeners.len() as f64;
        let full: u64 = listeners.iter().map(|listener| listener.full_ns).sum();
        (ns > 0.0).then(|| (full as f64 / ns).min(1.0))
    }

    /// The share of the load's time that the acceptors spent on connections; `None` without a service time.
    pub(crate) fn busy_share(&self) -> Option<f64> {
        let spent = self.trial.server.total(|acceptor| acceptor.service_ns);
        let ns = self.trial.timings.load_ms * 1e6 * self.trial.server.acceptors.len() as f64;
        (spent > 0 && ns > 0.0).then(|| spent as f64 / ns)
    }

    /// Accept errors that made an acceptor leave its listener alone: how often, and which.
    pub(crate) fn pauses(&self) -> Option<(u64, String)> {
        let pauses = self.trial.server.total(|acceptor| acceptor.pauses);
        let mut names: Vec<&str> = self
            .trial
            .server
            .acceptors
            .iter()
            .flat_map(|acceptor| acceptor.errors.keys())
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        (pauses > 0).then(|| (pauses, names.join(", ")))
    }

    /// Request sockets in `SYN_RECV` at the end.
    pub(crate) fn syn_recv(&self) -> u64 {
        self.trial.server.syn_recv
    }

    /// The deepest queue seen.
    pub(crate) fn deepest(&self) -> u64 {
        self.trial.server.listeners.iter().map(|listener| listener.deepest).max().unwrap_or(0)
    }

    /// Does a new attempt wait for an old one to end?
    pub(crate) fn is_closed_loop(&self) -> bool {
        matches!(self.trial.loadgen.opts.arrivals, ArrivalKind::Closed(_))
    }

    /// Its deadline in words, e.g. `200ms`.
    pub(crate) fn deadline(&self) -> String {
        self.trial.loadgen.opts.deadline.to_string()
    }
}

/// What a limit says of a backlog that nobody told: the kernel keeps the smaller of the two only (`__sys_listen`).
fn limit_alone(limit: u32, somaxconn: Option<i64>) -> String {
    match somaxconn {
        Some(somaxconn) if i64::from(limit) < somaxconn => {
            format!("limit {limit} = backlog, below somaxconn {somaxconn}")
        }
        Some(somaxconn) if i64::from(limit) == somaxconn => {
            format!("limit {limit} = somaxconn {somaxconn}, the backlog is that or more")
        }
        Some(somaxconn) => format!("limit {limit}, though somaxconn is {somaxconn}"),
        None => format!("limit {limit}, somaxconn not recorded"),
    }
}

/// `net.core.somaxconn`.
pub(crate) const SOMAXCONN: &str = "net.core.somaxconn";

/// The share of the load's time in which nobody kept the acceptors from accepting.
fn awake(stall: Option<Stall>, load_ms: f64) -> f64 {
    let Some(Stall { at, lasts }) = stall else { return 1.0 };
    let ms = |ns: u64| ns as f64 / 1e6;
    let from = ms(at.as_ns()).min(load_ms);
    let to = lasts.map_or(load_ms, |lasts| (ms(at.as_ns()) + ms(lasts.as_ns())).min(load_ms));
    if load_ms > 0.0 { 1.0 - (to - from) / load_ms } else { 1.0 }
}
