//! Overview: is it healthy, what binds it, and what do clients notice?

use super::{NONE_WANTED, binds, server_sysctls, sysctls};
use crate::model::{Dashboard, Panel, Row, Unit};
use crate::netstat;
use crate::query::metric::{listeners, loadgen, runner, server, standard};
use crate::query::{Role, buckets, limit_now, quantile, rate, sel, sum_rate, up};

/// Verdicts of attempts that reached what they asked for.
const GOOD: &str = r#"verdict=~"served|connected""#;

/// Verdicts of attempts that did not.
const BAD: &str = r#"verdict!~"served|connected""#;

/// Verdicts of attempts that the generator itself could not make.
const OWN: &str = r#"verdict=~"shed|no_ports|no_fds|self_connect""#;

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "overview",
        "acceptbench: Overview",
        "What happens to connections at the accept path, and which knob changes it: server, load \
         generator and the kernel's counters side by side.",
        vec![health(), throughput(), queue(), latency(), parameters(), client(), ledger()],
    )
}

fn health() -> Row {
    let served = format!("sum({}) / (sum({}) > 0)", rate(&loadgen::VERDICTS, GOOD), rate(&loadgen::VERDICTS, ""));
    // Only targets that were acceptbench within the time shown: others in the same Prometheus are not ours to judge.
    let known = format!("last_over_time({}[$__range])", sel(&standard::BUILD_INFO, ""));
    let programs = format!("sum by (job) ({} and on (job, instance) {known})", up());
    // An idle generator has no quantile: NaN compares as false.
    let lag = format!("max({} >= 0)", quantile(0.99, "job, instance", &loadgen::SCHEDULE_LAG));
    Row::new("Healthy? What binds it?", 5)
        .panel(12, binds())
        .panel(
            4,
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
            .no_value("no attempts"),
        )
        .panel(
            4,
            Panel::stat(
                "Connect errors",
                Unit::PerSecond,
                "Attempts per second that ended in anything but served or connected. The row below says how \
                 they ended, which tells whether backlog, somaxconn, deadline or the target is at fault. Bad: \
                 anything above 0.",
            )
            .target(sum_rate("", &loadgen::VERDICTS, BAD), "connect errors")
            .thresholds(&NONE_WANTED)
            .no_value("no load generator"),
        )
        .panel(
            4,
            Panel::stat(
                "Accepts",
                Unit::PerSecond,
                "Connections taken from accept queues per second, by all acceptors. acceptors, reuseport and \
                 accept-delay set how fast it can get. Bad: below the planned rate while the accept queue is \
                 full.",
            )
            .target(sum_rate("", &server::ACCEPTS, ""), "accepted")
            .no_value("no server"),
        )
        .panel(
            6,
            Panel::stat(
                "Programs up",
                Unit::Short,
                "Targets Prometheus can scrape now, of those that were acceptbench within the time shown. A \
                 load generator whose duration is over is down, which is fine. Bad: a server at 0.",
            )
            .target(programs, "{{job}}")
            .thresholds_from("orange", &[(1.0, "green")]),
        )
        .panel(
            6,
            Panel::stat(
                "Generator healthy: schedule lag, p99",
                Unit::Seconds,
                "How late attempts are issued after their planned instant; the worst load generator. Lower \
                 the rate, or spread it over more loadgen instances, before you believe the latencies. Bad: \
                 above a millisecond: the generator is the bottleneck, not the accept queue.",
            )
            .target(lag, "late by")
            .thresholds(&[(0.001, "orange"), (0.01, "red")])
            .no_value("no attempts"),
        )
        .panel(
            6,
            Panel::stat(
                "Attempts the generator could not make",
                Unit::PerSecond,
                "Attempts per second without a free descriptor, local port or place in flight, or that met \
                 themselves: the client's limits, not the server's. Knobs: ip_local_port_range, \
                 max-in-flight, nofile, rate. Bad: anything above 0.",
            )
            .target(sum_rate("", &loadgen::VERDICTS, OWN), "shed, no ports, no fds, self-connect")
            .thresholds(&NONE_WANTED)
            .no_value("no load generator"),
        )
        .panel(
            6,
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
            .no_value("no load generator"),
        )
}

fn throughput() -> Row {
    Row::new("Throughput and errors", 8)
        .panel(
            12,
            Panel::time_series(
                "Planned, attempted, served, accepted",
                Unit::PerSecond,
                "All load generators and all servers added up. planned follows rate and arrivals; attempted \
                 falls behind it when the generator is the bottleneck; accepted falls behind when acceptors \
                 are; served stays below accepted when clients gave up (deadline) before their turn. Bad: \
                 lines that part.",
            )
            .target(sum_rate("", &loadgen::PLANNED, ""), "planned")
            .target(sum_rate("", &loadgen::ATTEMPTS, ""), "attempted")
            .target(sum_rate("", &loadgen::VERDICTS, GOOD), "served or connected")
            .target(sum_rate("", &server::ACCEPTS, ""), "accepted"),
        )
        .panel(
            12,
            Panel::time_series(
                "Connect errors by verdict",
                Unit::PerSecond,
                "How attempts failed. timed_out: SYNs met a full accept queue or SYN queue and were dropped \
                 (backlog, somaxconn, tcp_max_syn_backlog). unserved: connected and never answered: phantoms, \
                 or a queue too long for the deadline. reset: tcp_abort_on_overflow, or a listener closed \
                 with connections queued. refused: nobody listens. Bad: any line above 0.",
            )
            .target(sum_rate("verdict", &loadgen::VERDICTS, BAD), "{{verdict}}"),
        )
}

fn queue() -> Row {
    let per_server = |what: &str| format!("max by (job, instance) ({what})");
    let depth = per_server(&Role::Server.gauge(&listeners::DEPTH));
    let deepest = per_server(&Role::Server.gauge(&listeners::MAX));
    let limit = per_server(&Role::Server.gauge(&listeners::LIMIT));
    Row::new("Accept queue", 8)
        .panel(
            12,
            Panel::time_series(
                "Accept queue against its limit",
                Unit::Short,
                "The deepest listener of each server. The queue holds limit + 1. 'Limit of listen(2) now' is \
                 min(backlog, somaxconn) as they are now: where it differs from the limit, somaxconn was \
                 changed after listen(2) and relisten on-change (or a restart) would apply it. Bad: 'deepest' \
                 above the limit: the queue was full and dropped.",
            )
            .target(depth, "depth · {{instance}}")
            .target(deepest, "deepest since the last scrape · {{instance}}")
            .target(limit, "limit · {{instance}}")
            .target(per_server(&limit_now()), "limit of listen(2) now · {{instance}}"),
        )
        .panel(
            12,
            Panel::time_series(
                "Overflows, drops, retransmits, cookies",
                Unit::PerSecond,
                "Packets, not connections: a client that retries four times counts four times. Overflows: the \
                 accept queue was full (backlog, somaxconn). Drops beyond overflows: the SYN queue \
                 (tcp_max_syn_backlog with tcp_syncookies 0). Cookies sent: the SYN queue was full and \
                 tcp_syncookies let clients in without a place in it; on a full accept queue they become \
                 phantoms. Bad: overflows above 0.",
            )
            .target(Role::Server.rate(netstat!(listen_overflows)), "overflows · {{instance}}")
            .target(Role::Server.rate(netstat!(listen_drops)), "drops · {{instance}}")
            .target(Role::Server.rate(netstat!(request_queue_full_drops)), "SYN queue full · {{instance}}")
            .target(Role::Server.rate(netstat!(syncookies_sent)), "cookies sent · {{instance}}")
            .target(Role::Loadgen.rate(netstat!(syn_retransmits)), "SYN retransmits (client) · {{instance}}"),
        )
}

fn latency() -> Row {
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
    Row::new("Latency", 8)
        .panel(12, panel.target(quantile(0.99, "", &loadgen::CONNECT_LATENCY), "p99 to ESTABLISHED"))
        .panel(
            12,
            Panel::heat_map(
                "Latency to the first byte",
                Unit::Seconds,
                "Attempts per second in each bucket, from the planned instant to the first byte. Bands at \
                 whole seconds are dropped SYNs that came again (backlog, somaxconn, \
                 tcp_syn_linear_timeouts); one wide band is the accept queue. Bad: a second band.",
            )
            .target(buckets("", &loadgen::CONFIRM_LATENCY), "{{le}}"),
        )
}

fn parameters() -> Row {
    let client =
        "net.ipv4.(ip_local_port_range|tcp_(syn_retries|syn_linear_timeouts|tw_reuse|fin_timeout|max_tw_buckets))";
    Row::new("Kernel parameters", 8).panel(12, server_sysctls(Role::Server)).panel(
        12,
        sysctls(
            "Kernel parameters of the client's side",
            Role::Loadgen,
            client,
            "Effective values in the load generator's network namespace. tcp_syn_retries and \
             tcp_syn_linear_timeouts make the grid on which dropped SYNs come again; ip_local_port_range \
             and tcp_tw_reuse bound how many connections to one target there can be per second when the \
             client closes first. Bad: a value other than the one you set.",
        ),
    )
}

fn client() -> Row {
    Row::new("The client's side", 8)
        .panel(
            12,
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
            .target(Role::Loadgen.rate(netstat!(established_resets)), "resets of established · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Attempts in flight",
                Unit::Short,
                "Attempts without a verdict. connecting: no answer to the SYN yet, which is what drops look \
                 like (backlog, somaxconn). confirming: connected and waiting for the first byte: in the \
                 accept queue, or phantoms. Bounded by rate times deadline, and by max-in-flight. Bad: a \
                 level that climbs to the deadline.",
            )
            .target(sel(&loadgen::IN_FLIGHT, ""), "{{state}} · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Ports and descriptors left",
                Unit::Short,
                "Headroom of each load generator: local ports of ip_local_port_range that no socket uses, \
                 descriptors below nofile. Bad: near 0: attempts end as no_ports or no_fds, and connect(2) \
                 gets slow when less than half of the ports are left.",
            )
            .target(sel(&loadgen::PORTS_AVAILABLE, ""), "ports · {{instance}}")
            .target(sel(&loadgen::FDS_AVAILABLE, ""), "descriptors · {{instance}}"),
        )
}

fn ledger() -> Row {
    Row::new("Runs: do the books balance?", 8)
        .panel(
            12,
            Panel::time_series(
                "Residual of each line",
                Unit::Short,
                "While acceptbench run is scraped: what does not balance in each line of the last trial's \
                 ledger; such a trial does not count. Somebody miscounted, or another program was in the \
                 namespace. With tcp_syncookies 0 line 5 counts phantoms a second time; once a cookie was \
                 sent it cannot. Bad: anything but 0.",
            )
            .target(sel(&runner::RESIDUAL, ""), "line {{line}} · {{instance}}"),
        )
        .panel(
            12,
            Panel::time_series(
                "Named terms of the ledger",
                Unit::PerSecond,
                "Connections of finished trials that only the ledger knows. phantoms: connected for the \
                 client, never in the accept queue (backlog, somaxconn, tcp_syncookies). raced: counted by \
                 the kernel and discarded (confirm none or reply). lost: accepted by a process that was \
                 killed before it counted them (workers processes), at most one per kill but for io-uring. \
                 ghosts: accepted again from stray data with a valid cookie (tcp_syncookies). Bad: phantoms \
                 where you expected none; any lost without a kill.",
            )
            .target(rate(&runner::PHANTOMS, ""), "phantoms · {{instance}}")
            .target(rate(&runner::RACED, ""), "raced · {{instance}}")
            .target(rate(&runner::LOST, ""), "lost · {{instance}}")
            .target(rate(&runner::GHOSTS, ""), "ghosts · {{instance}}"),
        )
}
