//! What load generators notice, and what they lack.

use super::{LOAD_GENERATOR, NONE_WANTED};
use crate::model::{Panel, Unit};
use crate::netstat;
use crate::query::metric::loadgen;
use crate::query::{Role, buckets, quantile, rate, sel, sum_rate, verdict};

/// Attempts that got what they asked for, of those that ended.
pub(in crate::boards) fn served() -> Panel {
    let served =
        format!("sum({}) / (sum({}) > 0)", rate(&loadgen::VERDICTS, verdict::GOOD), rate(&loadgen::VERDICTS, ""));
    Panel::stat(
        "Attempts served",
        Unit::Ratio,
        "Attempts that got the server's first byte (or connected, where no confirmation is asked \
         for), of all that ended. A longer listen backlog helps against bursts; more acceptors or a \
         shorter accept-delay help against sustained overload. Bad: below 100 % while the generator \
         is healthy.",
    )
    .target(served, "served")
    .thresholds_from("red", &[(0.95, "orange"), (0.999, "green")])
    .no_value("no attempts")
    .leads_to(LOAD_GENERATOR)
}

/// Attempts that ended badly.
pub(in crate::boards) fn connect_errors() -> Panel {
    Panel::stat(
        "Connect errors",
        Unit::PerSecond,
        "Attempts per second that ended in anything but served or connected. The row below says how \
         they ended, which tells whether backlog, somaxconn, deadline or the target is at fault. Bad: \
         anything above 0.",
    )
    .target(sum_rate("", &loadgen::VERDICTS, verdict::BAD), "connect errors")
    .thresholds(&NONE_WANTED)
    .no_value("no load generator")
    .leads_to(LOAD_GENERATOR)
}

/// Whether the generator keeps its plan.
pub(in crate::boards) fn lag() -> Panel {
    // An idle generator has no quantile: NaN compares as false.
    let lag = format!("max({} >= 0)", quantile(0.99, "job, instance", &loadgen::SCHEDULE_LAG));
    Panel::stat(
        "Generator healthy: schedule lag, p99",
        Unit::Seconds,
        "How late attempts are issued after their planned instant; the worst load generator. Lower \
         the rate, or spread it over more loadgen instances, before you believe the latencies. Bad: \
         above a millisecond: the generator is the bottleneck, not the accept queue.",
    )
    .target(lag, "late by")
    .thresholds(&[(0.001, "orange"), (0.01, "red")])
    .no_value("no attempts")
    .leads_to(LOAD_GENERATOR)
}

/// Attempts the generator itself could not make.
pub(in crate::boards) fn not_made() -> Panel {
    Panel::stat(
        "Attempts the generator could not make",
        Unit::PerSecond,
        "Attempts per second without a free descriptor, local port or place in flight, or that met \
         themselves: the client's limits, not the server's. Knobs: ip_local_port_range, \
         max-in-flight, nofile, rate. Bad: anything above 0.",
    )
    .target(sum_rate("", &loadgen::VERDICTS, verdict::OWN), "shed, no ports, no fds, self-connect")
    .thresholds(&NONE_WANTED)
    .no_value("no load generator")
    .leads_to(LOAD_GENERATOR)
}

/// Limits of its own that a generator passed.
pub(in crate::boards) fn limits() -> Panel {
    Panel::stat(
        "Limits the generator passed",
        Unit::Short,
        "Load generators that passed a limit of their own since they started: they measured themselves, \
         and exit with 2. lag: issued late. cpu: late, with a worker that has no headroom. descriptors, \
         ports: attempts not made. Knobs: rate, workers, shard, nofile, ip_local_port_range. Bad: \
         anything above 0.",
    )
    .target(format!("sum by (limit) ({})", sel(&loadgen::LIMITED, "")), "{{limit}}")
    .thresholds(&NONE_WANTED)
    .no_value("no load generator")
    .leads_to(LOAD_GENERATOR)
}

/// How attempts failed.
pub(in crate::boards) fn errors_by_verdict() -> Panel {
    Panel::time_series(
        "Connect errors by verdict",
        Unit::PerSecond,
        "How attempts failed. timed_out: SYNs met a full accept queue or SYN queue and were dropped \
         (backlog, somaxconn, tcp_max_syn_backlog). unserved: connected and never answered: phantoms, \
         or a queue too long for the deadline. reset: tcp_abort_on_overflow, or a listener closed \
         with connections queued. refused: nobody listens. Bad: any line above 0.",
    )
    .target(sum_rate("verdict", &loadgen::VERDICTS, verdict::BAD), "{{verdict}}")
    .leads_to(LOAD_GENERATOR)
}

/// When the first byte came, as a heat map.
pub(in crate::boards) fn first_byte() -> Panel {
    Panel::heat_map(
        "Latency to the first byte",
        Unit::Seconds,
        "Attempts per second in each bucket, from the planned instant to the first byte. Bands at \
         whole seconds are dropped SYNs that came again (backlog, somaxconn, \
         tcp_syn_linear_timeouts); one wide band is the accept queue. Bad: a second band.",
    )
    .target(buckets("", &loadgen::CONFIRM_LATENCY), "{{le}}")
}

/// What the client's kernel counted.
pub(in crate::boards) fn kernel_counters() -> Panel {
    Panel::time_series(
        "Kernel counters of the client's side",
        Unit::PerSecond,
        "Of the load generator's network namespace; on loopback it is the server's too, and both ends \
         count. Opens: connections begun. SYNs (and SYN-ACKs) sent again, and timers that fired: the \
         server drops (backlog, somaxconn). Failed handshakes: refused, or tcp_syn_retries used up. \
         Resets: tcp_abort_on_overflow, a closed listener, or close = reset here. Bad: retransmits \
         above 0.",
    )
    .target(Role::Loadgen.rate(netstat!(active_opens)), "opens · {{instance}}")
    .target(Role::Loadgen.rate(netstat!(syn_retransmits)), "SYNs sent again · {{instance}}")
    .target(Role::Loadgen.rate(netstat!(timeouts)), "timers fired · {{instance}}")
    .target(Role::Loadgen.rate(netstat!(attempt_fails)), "failed handshakes · {{instance}}")
    .target(Role::Loadgen.rate(netstat!(established_resets)), "resets of established · {{instance}}")
    .leads_to(LOAD_GENERATOR)
}

/// Attempts that are not over.
pub(in crate::boards) fn in_flight() -> Panel {
    Panel::time_series(
        "Attempts in flight",
        Unit::Short,
        "Attempts without a verdict. connecting: no answer to the SYN yet, which is what drops look \
         like (backlog, somaxconn). confirming: connected and waiting for the first byte: in the \
         accept queue, or phantoms. Bounded by rate times deadline, and by max-in-flight. Bad: a \
         level that climbs to the deadline.",
    )
    .target(sel(&loadgen::IN_FLIGHT, ""), "{{state}} · {{instance}}")
    .leads_to(LOAD_GENERATOR)
}

/// What the generator has left.
pub(in crate::boards) fn room() -> Panel {
    Panel::time_series(
        "Ports and descriptors left",
        Unit::Short,
        "Headroom of each load generator: local ports of ip_local_port_range that no socket uses, \
         descriptors below nofile. Bad: near 0: attempts end as no_ports or no_fds, and connect(2) \
         gets slow when less than half of the ports are left.",
    )
    .target(sel(&loadgen::PORTS_AVAILABLE, ""), "ports · {{instance}}")
    .target(sel(&loadgen::FDS_AVAILABLE, ""), "descriptors · {{instance}}")
    .leads_to(LOAD_GENERATOR)
}

/// Latency as clients see it.
pub(in crate::boards) fn latency() -> Panel {
    let quantiles = [(0.5, "p50 to the first byte"), (0.9, "p90 to the first byte"), (0.99, "p99 to the first byte")];
    let panel = Panel::time_series(
        "Latency from the planned instant",
        Unit::Seconds,
        "Of attempts that got there: from the planned instant, so a stalled server or a late \
         generator cannot hide. A dropped SYN is sent again after 1, 2, 3, 4, 5, 7 s, so steps of \
         whole seconds are retransmits (backlog, somaxconn); a smooth rise is waiting in the accept \
         queue (acceptors, accept-delay). Failed attempts are not in here: see the deadline. Bad: p99 \
         near a step of the retransmit grid.",
    );
    let panel = quantiles
        .into_iter()
        .fold(panel, |panel, (q, legend)| panel.target(quantile(q, "", &loadgen::CONFIRM_LATENCY), legend));
    panel.target(quantile(0.99, "", &loadgen::CONNECT_LATENCY), "p99 to ESTABLISHED").leads_to(LOAD_GENERATOR)
}
