//! What is alerted about, worst first.
//!
//! A twentieth of packets dropped is red on the boards, too. A queue is said to fill between the boards' orange (half) and
//! red (full); what goes unserved has no threshold there. Lag must also be what the program itself calls too late: its
//! limit goes with the deadline, which no rule knows.

use super::{Alert, Severity, everywhere, recorded};
use crate::query::metric::{loadgen, runner, standard};
use crate::query::{listening_programs, sel, up};

/// What the server and `watch` are asked for: gone within the last hour, and no trial of a run.
fn target_down() -> String {
    let (was, run) = (listening_programs(), sel(&runner::INFO, ""));
    format!(
        "{} == 0 and on (job, instance) last_over_time({was}[1h]) unless on (instance) last_over_time({run}[1h])",
        up()
    )
}

/// Two windows of [`recorded::OVERFLOWS`] above `limit`: the long one says that it matters, the short one that it goes
/// on.
fn overflowing(long: &str, short: &str, limit: &str) -> String {
    let (long, short) = (recorded::overflows(long), recorded::overflows(short));
    format!("{long} > {limit} and on (job, instance) {short} > {limit}")
}

/// Cookies of a server that was not told to answer with nothing else.
fn cookies() -> String {
    let always = sel(&standard::SYSCTL_VALUE, r#"name="net.ipv4.tcp_syncookies""#);
    format!("{} > 0 unless on (job, instance) {always} == 2", recorded::COOKIES)
}

/// Late now, and so late in all that the generator calls itself the bottleneck (20 ms is the least of its limits).
fn generator_limited() -> String {
    let judged = sel(&loadgen::LIMITED, r#"limit="lag""#);
    format!("{} > 0.02 and on (job, instance) {judged} > 0", recorded::LAG)
}

/// Every alert.
pub fn all() -> Vec<Alert> {
    let mut all = urgent();
    all.extend(watchful());
    for alert in &mut all {
        alert.expr = everywhere(&alert.expr);
    }
    all
}

fn urgent() -> Vec<Alert> {
    vec![
        Alert {
            name: "AcceptbenchTargetDown",
            severity: Severity::Critical,
            expr: target_down(),
            lasting: "30s",
            summary: "{{ $labels.job }} {{ $labels.instance }} cannot be scraped.",
            description: "It was an acceptbench server or watch within the last hour. It ended, or listens elsewhere \
                          (--admin), or does not answer in time. A load generator or a run that is over is not meant. \
                          A target that DNS or Kubernetes discovery forgot is not seen: compare \
                          count(up{job=\"server\"}).",
            board: "overview",
        },
        Alert {
            name: "AcceptbenchOverflowing",
            severity: Severity::Critical,
            expr: overflowing("5m", "1m", "0.05"),
            lasting: "1m",
            summary: "{{ $value | humanizePercentage }} of the packets towards full accept queues of \
                      {{ $labels.instance }} are dropped.",
            description: "ListenOverflows / (ListenOverflows + PassiveOpens) over 5 minutes, and still over the last \
                          one. Raise what binds the queue limit, --backlog or the sysctl net.core.somaxconn, then \
                          listen again (--relisten on-change, or a restart); when the queue stays full, add \
                          --acceptors.",
            board: "accept-queue",
        },
        Alert {
            name: "AcceptbenchUnserved",
            severity: Severity::Critical,
            expr: format!("{} > 0.01", recorded::UNSERVED),
            lasting: "1m",
            summary: "{{ $value | humanizePercentage }} of the attempts of {{ $labels.instance }} get no answer.",
            description: "Timed out, connected and unserved, reset, refused or unreachable, of all that were made. The \
                          board says which: time-outs are full queues (--backlog, the sysctls net.core.somaxconn and \
                          net.ipv4.tcp_max_syn_backlog), unserved ones a queue too long for the --deadline or too few \
                          --acceptors, refused ones a server that is not there.",
            board: "load-generator",
        },
    ]
}

fn watchful() -> Vec<Alert> {
    vec![
        Alert {
            name: "AcceptbenchOverflowingSlowly",
            severity: Severity::Warning,
            expr: overflowing("1h", "5m", "0.001"),
            lasting: "5m",
            summary: "{{ $value | humanizePercentage }} of the packets towards accept queues of \
                      {{ $labels.instance }} were dropped within an hour.",
            description: "ListenOverflows / (ListenOverflows + PassiveOpens) over an hour, and still over the last 5 \
                          minutes: bursts that the queue does not hold. Each costs clients a second. Raise what binds \
                          the queue limit, --backlog or the sysctl net.core.somaxconn, then listen again (--relisten \
                          on-change, or a restart).",
            board: "accept-queue",
        },
        Alert {
            name: "AcceptbenchAcceptQueueFilling",
            severity: Severity::Warning,
            expr: format!("{} > 0.8", recorded::FILL),
            lasting: "30s",
            summary: "The accept queue of {{ $labels.listener }} on {{ $labels.instance }} was \
                      {{ $value | humanizePercentage }} full.",
            description: "The deepest within a minute, over its capacity (limit + 1), and a full queue drops. Raise \
                          the program's backlog (--backlog) and the sysctl net.core.somaxconn against bursts, and \
                          listen again; add --acceptors against sustained load, which no backlog cures.",
            board: "accept-queue",
        },
        Alert {
            name: "AcceptbenchSynQueueDrops",
            severity: Severity::Warning,
            expr: format!("{} > 0", recorded::SYN_DROPS),
            lasting: "30s",
            summary: "{{ $labels.instance }} drops {{ printf \"%.1f\" $value }} SYNs per second because its SYN queue \
                      is full.",
            description: "Handshakes without their last ACK fill the SYN queue, and cookies are off. Set the sysctl \
                          net.ipv4.tcp_syncookies to 1, or raise net.ipv4.tcp_max_syn_backlog and, where it binds, \
                          --backlog and net.core.somaxconn.",
            board: "kernel-parameters",
        },
        Alert {
            name: "AcceptbenchSynCookies",
            severity: Severity::Warning,
            expr: cookies(),
            lasting: "30s",
            summary: "{{ $labels.instance }} answers {{ printf \"%.1f\" $value }} SYNs per second with a cookie.",
            description: "Its SYN queue is full, and the sysctl net.ipv4.tcp_syncookies is 1: clients get in without a \
                          place there; on a full accept queue they become phantoms. Many half-open connections, or \
                          --backlog and net.core.somaxconn too small for the arrivals, which bound the SYN queue, too.",
            board: "kernel-parameters",
        },
        Alert {
            name: "AcceptbenchGeneratorLimited",
            severity: Severity::Warning,
            expr: generator_limited(),
            lasting: "30s",
            summary: "{{ $labels.instance }} issues one attempt in a hundred more than {{ $value | humanizeDuration }} \
                      late.",
            description: "The load generator is the bottleneck, and its latencies \
                          are its own. Lower --rate, add --workers where CPUs are idle, or split the load over \
                          machines (--shard).",
            board: "load-generator",
        },
    ]
}
