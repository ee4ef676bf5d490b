//! What a load needs of ports, `TIME_WAIT` and descriptors, reckoned before the first SYN: what will run out, when, and
//! how many attempts will then get the verdict `no-ports`, so that the verdict can be compared with it afterwards.
//!
//! A connection takes a 4-tuple: the target, a source address, and one of the source's ports. After it was closed the
//! end that closed first keeps it in `TIME_WAIT` for 60 s (`TCP_TIMEWAIT_LEN`, `include/net/tcp.h`). The generator cannot
//! know whether the server closes first, so what is said of `TIME_WAIT` holds *if the client closes first*; if the server
//! does, the client pays nothing. The rules are those measured in `docs/ports.md`.
//!
//! Pure but for [`Facts::read`]: a [`Budget`] is a function of options and facts.

mod course;
mod facts;
mod warnings;

use serde::{Deserialize, Serialize};
use telemetry::units::Span;

use crate::arrivals::{peak_rate, planned_before, simultaneous};
use crate::opts::{ArrivalKind, AutoCount, Close, Opts, RunTime, Shard, Sockets};

use course::{Life, Load, Pool};
pub use facts::{Facts, Reuse};

/// Descriptors the process needs beside its attempts: epoll, eventfds, /proc files, admin connections, logs.
pub(crate) const RESERVED_FDS: u64 = 128;

/// `TCP_TIMEWAIT_LEN`. The kernel's timers are coarse at this distance: measured 60.1 to 62.0 s with HZ=250.
const TIME_WAIT: Span = Span::from_secs(60);

/// What becomes of the port of a connection that the client closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// A RST ends the connection: the port is free at once.
    None,
    /// The port is taken until `TIME_WAIT` ends.
    TimeWait,
    /// connect(2) takes a port out of `TIME_WAIT` again after a while (`net.ipv4.tcp_tw_reuse`).
    Reused,
}

/// What a load needs, and what there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Budget {
    /// Source addresses this generator takes in turn; 1 when the kernel chooses.
    pub sources: u64,
    /// Pairs of source address and port towards the target; `None` when the range of ports cannot be read.
    pub ports: Option<u64>,
    /// Sockets towards the target's port in `TIME_WAIT` before the start.
    pub leftover: u64,
    /// Why a port is taken on after its connection, if the client closes first.
    pub rest: Rest,
    /// How long it is.
    pub rests: Span,
    /// How long an attempt holds its port when the server answers at once: open, and at rest.
    pub port_taken: Span,
    /// Attempts per second, without end, for which the ports suffice then; `None`: any number.
    pub sustained_rate: Option<f64>,
    /// Attempts planned in all, warm-up included; `None` when nobody knows: a closed loop, or a run without an end.
    pub planned: Option<u64>,
    /// After this time from the start an attempt finds no port, if the server answers at once and the client closes first.
    pub ports_run_out_after: Option<Span>,
    /// Attempts that end with `no-ports`, on the same condition; `None` when [`planned`](Self::planned) is.
    pub no_ports_expected: Option<u64>,
    /// The same if every attempt takes its whole deadline: never more.
    pub no_ports_at_most: Option<u64>,
    /// Pairs of source and port that would be enough.
    pub ports_needed: u64,
    /// Most sockets in `TIME_WAIT` at once, if the client closes first and nothing limits them.
    pub time_waits: u64,
    /// `net.ipv4.tcp_max_tw_buckets`: from this many on, `TIME_WAIT` is skipped.
    pub time_wait_limit: u64,
    /// After this time from the start that happens.
    pub time_wait_overflows_after: Option<Span>,
    /// Attempts in flight at most, if nobody answers within the deadline.
    pub in_flight: u64,
    /// Connections held open beyond their confirmation at most (`hold`, `keep`).
    pub held: u64,
    /// Descriptors there are for them.
    pub descriptors: u64,
}

impl Budget {
    /// The budget of these options under these facts.
    pub fn of(opts: &Opts, facts: &Facts) -> Self {
        let (rest, rests) = rest(opts, facts);
        let descriptors = facts.nofile.saturating_sub(RESERVED_FDS).max(1);
        let in_flight = in_flight(opts);
        let keep = opts.keep.map_or(0, |keep| u64::from(keep.get()));
        let bound = bound(opts, descriptors, keep);
        let open = seconds(opts.hold);
        let held = keep.saturating_add(whole((peak_rate(&opts.arrivals, opts.rate) * open / shards(opts)).ceil()));
        let life = Life {
            flight: 0.0,
            hold: open,
            keep: keep as f64,
            rests: seconds(rests),
            time_waits: if rest == Rest::None { 0.0 } else { facts.time_wait_limit as f64 },
            reused: rest == Rest::Reused,
        };
        let load = Load {
            planned: &|ns| planned_before(&opts.arrivals, opts.rate, ns) / shards(opts),
            ends: match opts.duration {
                RunTime::For(span) => Some(seconds(opts.warm_up) + seconds(span)),
                RunTime::Forever => None,
            },
        };
        let ports = facts.ports_per_source.map(|ports| ports.saturating_mul(facts.sources));
        let pool = Pool {
            ports: ports.map_or(f64::INFINITY, |ports| ports as f64),
            leftover: facts.leftover as f64,
            leftover_rests: if rest == Rest::Reused { seconds(rests) } else { seconds(TIME_WAIT) },
            in_flight: bound as f64,
        };
        let expected = course::follow(&load, &life, &pool);
        let slow = Life { flight: seconds(opts.deadline), ..life };
        let at_most = course::follow(&load, &slow, &pool);
        let endless = Pool { ports: f64::INFINITY, leftover: 0.0, ..pool };
        let unlimited = course::follow(&load, &Life { time_waits: f64::INFINITY, ..life }, &endless);
        let planned = match opts.arrivals {
            ArrivalKind::Closed(_) => None,
            _ => load.ends.map(|end| whole((load.planned)(whole(end * 1e9)).round())),
        };
        let taken = open + seconds(rests);
        Self {
            sources: facts.sources,
            ports,
            leftover: facts.leftover,
            rest,
            rests,
            port_taken: span(taken),
            sustained_rate: ports
                // With fewer buckets than ports some sockets skip `TIME_WAIT` before the ports run out.
                .filter(|ports| taken > 0.0 && (rest == Rest::None || facts.time_wait_limit >= *ports))
                .map(|ports| ports.saturating_sub(keep) as f64 / taken),
            planned,
            ports_run_out_after: expected.runs_out_after.map(span),
            no_ports_expected: planned.map(|_| whole(expected.no_ports.round())),
            no_ports_at_most: planned.map(|_| whole(at_most.no_ports.max(expected.no_ports).round())),
            ports_needed: whole(unlimited.most_taken.ceil()),
            time_waits: match (rest, ports) {
                // A port is in `TIME_WAIT` once: the next connection through it takes it out.
                (Rest::Reused, Some(ports)) => whole(unlimited.most_time_waits.ceil()).min(ports),
                _ => whole(unlimited.most_time_waits.ceil()),
            },
            time_wait_limit: facts.time_wait_limit,
            time_wait_overflows_after: expected.overflows_after.map(span),
            in_flight,
            held,
            descriptors,
        }
    }

    /// The bound on attempts in flight that `max-in-flight` comes to.
    pub fn max_in_flight(&self, opts: &Opts) -> u64 {
        bound(opts, self.descriptors, opts.keep.map_or(0, |keep| u64::from(keep.get())))
    }
}

/// `auto` is what descriptors are left for; a closed loop brings its own.
fn bound(opts: &Opts, descriptors: u64, keep: u64) -> u64 {
    match (&opts.arrivals, opts.max_in_flight) {
        (ArrivalKind::Closed(n), _) => u64::from(n.get()),
        (_, AutoCount::Exactly(n)) => u64::from(n.get()),
        (_, AutoCount::Auto) => descriptors.saturating_sub(keep).max(1),
    }
}

/// What is in flight if nobody answers before the deadline.
fn in_flight(opts: &Opts) -> u64 {
    if let ArrivalKind::Trace(trace) = &opts.arrivals {
        return whole((trace.most_within(opts.deadline) as f64 / shards(opts)).ceil());
    }
    let per_deadline = peak_rate(&opts.arrivals, opts.rate) / shards(opts) * seconds(opts.deadline);
    whole(per_deadline.ceil()).saturating_add(u64::from(simultaneous(&opts.arrivals)))
}

/// How many generators share the load.
fn shards(opts: &Opts) -> f64 {
    opts.shard.map_or(1, |shard| Shard::place(shard).1) as f64
}

/// The kernel's rule for a port whose connection the client closed first (`net/ipv4/tcp_ipv4.c`, `tcp_twsk_unique`):
/// without time stamps it is never taken again before `TIME_WAIT` ends.
fn rest(opts: &Opts, facts: &Facts) -> (Rest, Span) {
    if opts.close == Close::Reset || opts.sockets == Sockets::Reused {
        return (Rest::None, Span::ZERO);
    }
    let reused = match facts.reuse {
        Reuse::Never => false,
        Reuse::Everywhere => facts.timestamps,
        Reuse::Loopback => facts.timestamps && facts.loopback,
    };
    if reused { (Rest::Reused, facts.reuse_delay) } else { (Rest::TimeWait, TIME_WAIT) }
}

fn seconds(span: Span) -> f64 {
    span.duration().as_secs_f64()
}

/// Rounded to ms: nobody knows it better.
fn span(seconds: f64) -> Span {
    Span::from_millis(whole((seconds * 1e3).round()))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests;
