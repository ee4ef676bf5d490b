//! Was the generator itself the bottleneck? A pure function of its books.
//!
//! A generator that ran into a limit of its own measured itself, whatever its latencies say: attempts that it issued
//! late, or could not make at all, tell nothing of the server. What the user asked for is no limit: attempts shed over
//! an explicit `max-in-flight`, and a closed loop that keeps its core busy, are as they should be.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::opts::{ArrivalKind, AutoCount};
use crate::snapshot::{Snapshot, WorkerCpu};
use crate::verdict::Verdict;

/// Share of a core beyond which a worker has no headroom.
const CPU_LIMIT: f64 = 0.95;

/// Lateness (99th percentile) at which a worker without headroom is called the bottleneck: 40 times the wake-up of an idle
/// one.
const LATE_NS: u64 = 1_000_000;

/// Shorter runs say nothing of a worker's share of its core.
const LEAST_RUN_NS: u64 = 500_000_000;

/// What a generator may have too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// Time: attempts are issued after their planned instants.
    Lag,
    /// File descriptors.
    Descriptors,
    /// Local ports towards the target.
    Ports,
    /// A worker's core.
    Cpu,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lag, Self::Descriptors, Self::Ports, Self::Cpu];

    /// As a metric label, and in words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Descriptors => "descriptors",
            Self::Ports => "ports",
            Self::Cpu => "cpu",
        }
    }
}

/// A limit of the generator's own that it passed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limit {
    /// Which.
    pub what: LimitKind,
    /// What was measured: seconds of lag (99th percentile), attempts that were not made, or the busiest worker's share of a
    /// core.
    pub measured: f64,
    /// What it may be, in the same unit.
    pub limit: f64,
}

impl Limit {
    /// What was measured, in words.
    pub fn cause(&self) -> String {
        let Self { what, measured, limit } = *self;
        match what {
            LimitKind::Lag => format!(
                "1 % of the attempts were issued more than {:.0} ms late (limit {:.0} ms)",
                measured * 1e3,
                limit * 1e3
            ),
            LimitKind::Descriptors => format!("{measured:.0} attempts were not made for want of descriptors"),
            LimitKind::Ports => format!("{measured:.0} attempts found no free local port"),
            LimitKind::Cpu => format!(
                "a worker used {:.0} % of a core (limit {:.0} %) and issued attempts late",
                measured * 100.0,
                limit * 100.0
            ),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.what {
            LimitKind::Lag => "lower the rate, split it over machines (shard), or leave this one to the generator",
            LimitKind::Descriptors => "raise RLIMIT_NOFILE, or lower the rate or the deadline",
            LimitKind::Ports => {
                "widen ip_local_port_range or source-ports, add sources, close with reset, or lower the rate"
            }
            LimitKind::Cpu => "add workers where CPUs are idle, split the rate over machines (shard), or lower it",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause(), self.hint())
    }
}

/// The limits of its own that a generator passed in the measured phase.
pub fn limits(books: &Snapshot) -> Vec<Limit> {
    [lag(books), descriptors(books), ports(books), cpu(books)].into_iter().flatten().collect()
}

/// Lateness (99th percentile of issued − planned) beyond which a generator was busy with itself: a twentieth of the
/// deadline, since that is what verdicts are measured against, but not below 20 ms nor above 100 ms.
fn lag_limit_ns(books: &Snapshot) -> u64 {
    (books.opts.deadline.as_ns() / 20).clamp(20_000_000, 100_000_000)
}

fn lag(books: &Snapshot) -> Option<Limit> {
    let limit = lag_limit_ns(books);
    let lag = books.measured.lag.quantile(0.99).filter(|lag| *lag > limit)?;
    Some(Limit { what: LimitKind::Lag, measured: lag as f64 / 1e9, limit: limit as f64 / 1e9 })
}

fn descriptors(books: &Snapshot) -> Option<Limit> {
    let shed = match books.opts.max_in_flight {
        AutoCount::Auto => books.measured.verdict(Verdict::Shed),
        AutoCount::Exactly(_) => 0,
    };
    not_made(LimitKind::Descriptors, shed + books.measured.verdict(Verdict::NoFds))
}

fn ports(books: &Snapshot) -> Option<Limit> {
    not_made(LimitKind::Ports, books.measured.verdict(Verdict::NoPorts))
}

fn not_made(what: LimitKind, attempts: u64) -> Option<Limit> {
    (attempts > 0).then_some(Limit { what, measured: attempts as f64, limit: 0.0 })
}

/// A full core alone is no fault: a closed loop, or a worker that polls for its next instant, takes what there is.
fn cpu(books: &Snapshot) -> Option<Limit> {
    let late = books.measured.lag.quantile(0.99).is_some_and(|lag| lag > LATE_NS);
    if matches!(books.opts.arrivals, ArrivalKind::Closed(_)) || !late {
        return None;
    }
    let workers = books.worker_cpu.iter().filter(|worker| worker.ran_ns >= LEAST_RUN_NS);
    let busiest = workers.map(WorkerCpu::share).fold(0.0, f64::max);
    (busiest > CPU_LIMIT).then_some(Limit { what: LimitKind::Cpu, measured: busiest, limit: CPU_LIMIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Books of a generator that issued 100 attempts `late_ms` late, after `change`.
    fn judged(late_ms: u64, change: impl FnOnce(&mut Snapshot)) -> Vec<String> {
        let mut books = Snapshot::default();
        (0..100).for_each(|_| books.measured.lag.record(late_ms * 1_000_000));
        change(&mut books);
        limits(&books).iter().map(Limit::cause).collect()
    }

    fn deadline(text: &str) -> impl FnOnce(&mut Snapshot) {
        let deadline = text.parse().expect("a time");
        move |books| books.opts.deadline = deadline
    }

    #[test]
    fn a_punctual_generator_passed_no_limit() {
        assert!(judged(0, |_| {}).is_empty());
        assert_eq!(limits(&Snapshot::default()), [], "and neither did one that has not begun");
    }

    #[test]
    fn lag_is_judged_by_the_deadline() {
        assert_eq!(judged(105, |_| {}).len(), 1);
        assert_eq!(
            judged(30, deadline("200ms")),
            ["1 % of the attempts were issued more than 30 ms late (limit 20 ms)"]
        );
        assert!(judged(30, deadline("1s")).is_empty(), "a twentieth of a second is allowed");
        assert!(judged(90, deadline("1h")).is_empty());
    }

    #[test]
    fn what_was_shed_counts_unless_it_was_asked_for() {
        let shed = |books: &mut Snapshot| {
            books.measured.verdicts.insert(Verdict::Shed, 7);
        };
        assert_eq!(judged(0, shed), ["7 attempts were not made for want of descriptors"]);
        let asked = |books: &mut Snapshot| {
            shed(books);
            books.opts.max_in_flight = "64".parse().expect("a count");
        };
        assert!(judged(0, asked).is_empty());
        let without = |books: &mut Snapshot| {
            asked(books);
            books.measured.verdicts.extend([(Verdict::NoFds, 2), (Verdict::NoPorts, 3)]);
        };
        assert_eq!(
            judged(0, without),
            ["2 attempts were not made for want of descriptors", "3 attempts found no free local port"]
        );
    }

    #[test]
    fn a_full_core_is_a_limit_of_a_late_open_loop_only() {
        let busy = |books: &mut Snapshot| {
            let worker = |cpu_ms: u64| WorkerCpu { cpu_ns: cpu_ms * 1_000_000, ran_ns: 1_000_000_000 };
            books.worker_cpu = vec![worker(300), worker(990)];
        };
        assert_eq!(judged(3, busy), ["a worker used 99 % of a core (limit 95 %) and issued attempts late"]);
        assert!(judged(0, busy).is_empty(), "it polls, and is on time");
        let closed = |books: &mut Snapshot| {
            busy(books);
            books.opts.arrivals = "closed:8".parse().expect("an arrival process");
        };
        assert!(judged(3, closed).is_empty());
        let short = |books: &mut Snapshot| {
            busy(books);
            books.worker_cpu.iter_mut().for_each(|worker| worker.ran_ns /= 10);
        };
        assert!(judged(3, short).is_empty());
    }
}
