//! Kernel parameters: what each one is now, when it changed, and the counters that it moves.

use super::shared::{NONE_WANTED, kernel, queue};
use crate::model::{Dashboard, Panel, Row, Unit};
use crate::netstat;
use crate::query::metric::{listeners, loadgen, server, standard};
use crate::query::{Role, limit_now, rate, sel, somaxconn, sum_rate};

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "kernel-parameters",
        "acceptbench: Kernel parameters",
        "Each kernel parameter of the accept path beside what it moves: its value now, when it changed, \
         and the queue, counter or verdict that answers.",
        vec![health(), accept_queue(), syn_queue(), after(), client(), values()],
    )
}

/// The effective value of one parameter.
fn value(role: Role, name: &str) -> String {
    role.only(&sel(&standard::SYSCTL_VALUE, &format!("name=\"{name}\"")))
}

fn health() -> Row {
    let limit = sel(&listeners::LIMIT, "");
    let stale = format!("sum({limit} != bool on (job, instance, listener) ({}))", limit_now());
    let all = sel(&standard::SYSCTL_VALUE, "");
    let apart = format!("sum((max by (name, index) ({all})) != bool (min by (name, index) ({all})))");
    let changes = format!("sum(max by (name, index) (changes({all}[$__range])))");
    Row::new("Healthy? What binds it?", 5)
        .panel(12, queue::binds())
        .panel(
            4,
            Panel::stat(
                "Listeners with an old limit",
                Unit::Short,
                "Listeners whose queue limit is not what listen(2) would give now: somaxconn was changed after \
                 they called it. Restart the server, or let it listen again (relisten on-change). Bad: above \
                 0: the parameter you see is not the one in force.",
            )
            .target(stale, "listen again")
            .thresholds(&NONE_WANTED)
            .no_value("no server"),
        )
        .panel(
            4,
            Panel::stat(
                "Changes in the time shown",
                Unit::Short,
                "How often kernel parameters changed within the time shown; of programs in several network \
                 namespaces, the one with most. Marks on the time axes say which: somaxconn takes \
                 effect at the next listen(2), the tcp_* ones (tcp_syncookies and so on) at once. Bad: a \
                 change you did not make.",
            )
            .target(changes, "changes")
            .no_value("no program"),
        )
        .panel(
            4,
            Panel::stat(
                "Parameters that differ",
                Unit::Short,
                "Parameters that are not the same for all programs picked. In containers and namespaces each \
                 side has its own: somaxconn counts where the server is, ip_local_port_range where the client \
                 is. Bad: above 0 between programs that you believe to share a network namespace.",
            )
            .target(apart, "differ")
            .no_value("no program"),
        )
}

fn accept_queue() -> Row {
    Row::new("somaxconn and tcp_abort_on_overflow: the accept queue", 8)
        .panel(
            8,
            Panel::time_series(
                "somaxconn, backlog, limit",
                Unit::Short,
                "The three numbers of every listener: what the program asked for (backlog), what the kernel \
                 allows (somaxconn), and the limit in force, the smaller of the two at the last listen(2). \
                 Bad: a limit that is neither: somaxconn was changed and nobody listened again (relisten).",
            )
            .target(Role::Server.only(&somaxconn()), "somaxconn · {{instance}}")
            .target(sel(&server::BACKLOG, ""), "backlog · {{instance}} #{{listener}}")
            .target(Role::Server.gauge(&listeners::LIMIT), "limit · {{instance}} #{{listener}}"),
        )
        .panel(8, queue::against_limit())
        .panel(
            8,
            Panel::time_series(
                "tcp_abort_on_overflow and resets",
                Unit::PerSecond,
                "With tcp_abort_on_overflow 1 the last ACK of a handshake that meets a full accept queue is \
                 answered with a RST, so clients fail at once (verdict reset) instead of waiting as phantoms. \
                 It never answers a SYN. sent: RSTs of the server's namespace; half-open: handshakes that \
                 ended in one. Bad: resets while backlog and somaxconn could be larger.",
            )
            .target(Role::Server.rate(netstat!(resets_sent)), "sent · {{instance}}")
            .target(Role::Server.rate(netstat!(embryonic_resets)), "half-open · {{instance}}")
            .target(value(Role::Server, "net.ipv4.tcp_abort_on_overflow"), "tcp_abort_on_overflow · {{instance}}"),
        )
}

fn syn_queue() -> Row {
    Row::new("tcp_max_syn_backlog and tcp_syncookies: the SYN queue", 8)
        .panel(
            8,
            Panel::time_series(
                "SYN queue against its bounds",
                Unit::Short,
                "Request sockets in SYN_RECV, and what bounds them: the listener's own limit (backlog, \
                 somaxconn) always, three quarters of tcp_max_syn_backlog only while tcp_syncookies is 0. \
                 Bad: the queue at a bound: it drops, or with cookies forgets what the SYN said.",
            )
            .target(sel(&server::SYN_QUEUE_DEPTH, ""), "SYN_RECV · {{instance}}")
            .target(Role::Server.gauge(&listeners::LIMIT), "limit · {{instance}} #{{listener}}")
            .target(
                format!("0.75 * {}", value(Role::Server, "net.ipv4.tcp_max_syn_backlog")),
                "3/4 of tcp_max_syn_backlog · {{instance}}",
            ),
        )
        .panel(
            8,
            Panel::time_series(
                "tcp_syncookies and cookies",
                Unit::PerSecond,
                "sent: SYN-ACKs with a cookie (tcp_syncookies 1: the SYN queue was full; 2: all of them). \
                 received: last ACKs with a valid one, retransmitted data again. failed: invalid or too old. \
                 asked for: SYNs that met a full SYN queue. Bad: cookies sent, while the accept queue is full \
                 too: each becomes a phantom (backlog, somaxconn).",
            )
            .target(value(Role::Server, "net.ipv4.tcp_syncookies"), "tcp_syncookies · {{instance}}")
            .target(Role::Server.rate(netstat!(syncookies_sent)), "sent · {{instance}}")
            .target(Role::Server.rate(netstat!(syncookies_received)), "received · {{instance}}")
            .target(Role::Server.rate(netstat!(syncookies_failed)), "failed · {{instance}}")
            .target(Role::Server.rate(netstat!(request_queue_full_cookies)), "asked for · {{instance}}"),
        )
        .panel(8, queue::losses())
}

fn after() -> Row {
    Row::new("tcp_synack_retries, tcp_migrate_req, tcp_fastopen, TCP_DEFER_ACCEPT", 8)
        .panel(
            8,
            Panel::time_series(
                "Handshakes that were retried and given up",
                Unit::PerSecond,
                "SYNs and SYN-ACKs sent again, retransmission timers that fired, and connections given up after \
                 the last one. tcp_synack_retries says how long a phantom goes on being offered its place, \
                 tcp_syn_retries how long a client goes on asking. Bad: above 0 in a network that loses \
                 nothing.",
            )
            .target(Role::Server.rate(netstat!(syn_retransmits)), "SYNs and SYN-ACKs · {{instance}}")
            .target(Role::Server.rate(netstat!(timeouts)), "timers · {{instance}}")
            .target(Role::Server.rate(netstat!(abort_on_timeout)), "given up · {{instance}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "Requests moved to another listener",
                Unit::PerSecond,
                "With tcp_migrate_req 1 what waits at a reuseport listener that closes moves to another one of \
                 its group, by result. Bad: failure above 0; with tcp_migrate_req 0 nothing moves and what \
                 waited is reset.",
            )
            .target(Role::Server.rate(&standard::MIGRATE_REQUESTS), "{{result}} · {{instance}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "Fast opens and deferred accepts",
                Unit::PerSecond,
                "Incoming fast opens accepted and refused because their own queue was full (fastopen, \
                 tcp_fastopen), and bare ACKs held back until data came (defer-accept). Bad: refused ones; \
                 deferred ones from clients that never speak first, for they are dropped in the end.",
            )
            .target(Role::Server.rate(netstat!(fastopen_passive)), "fast opens · {{instance}}")
            .target(Role::Server.rate(netstat!(fastopen_listen_overflow)), "refused · {{instance}}")
            .target(Role::Server.rate(netstat!(defer_accept_drops)), "deferred · {{instance}}"),
        )
}

fn client() -> Row {
    Row::new("ip_local_port_range, tcp_tw_reuse, tcp_max_tw_buckets: the client", 8)
        .panel(
            12,
            Panel::time_series(
                "Local ports",
                Unit::Short,
                "Ports of ip_local_port_range that no socket of the client's namespace uses, and sockets in \
                 TIME_WAIT, which hold one each until tcp_fin_timeout's minute is over unless tcp_tw_reuse \
                 lets connect(2) take them. Bad: ports near 0.",
            )
            .target(sel(&loadgen::PORTS_AVAILABLE, ""), "free · {{instance}}")
            .target(
                Role::Loadgen.only(&sel(&standard::TCP_SOCKETS, r#"state="time_wait""#)),
                "TIME_WAIT · {{instance}}",
            ),
        )
        .panel(
            12,
            Panel::time_series(
                "Attempts without a port, TIME_WAIT skipped",
                Unit::PerSecond,
                "Attempts that found no free local port: widen ip_local_port_range, or close with a reset. \
                 Skipped: sockets that were closed without TIME_WAIT because tcp_max_tw_buckets were in it \
                 already. Bad: above 0.",
            )
            .target(sum_rate("instance", &loadgen::VERDICTS, r#"verdict="no_ports""#), "no port · {{instance}}")
            .target(rate(netstat!(time_wait_overflows), ""), "skipped · {{job}} {{instance}}"),
        )
}

fn values() -> Row {
    let now = format!("max by (name, index, instance) ({})", sel(&standard::SYSCTL_VALUE, ""));
    let changed = format!("max by (name, index, instance) (changes({}[$__range]))", sel(&standard::SYSCTL_VALUE, ""));
    Row::new("Values", 10).panel(12, kernel::server_sysctls(Role::Server)).panel(12, kernel::client_sysctls()).panel(
        24,
        Panel::table(
            "Every parameter",
            "Every kernel parameter that the programs read, now, for each of them, and how often it changed \
                 in the time shown. Ranges have a line per number. Those that act on the accept path most: \
                 somaxconn, tcp_max_syn_backlog, tcp_syncookies, tcp_abort_on_overflow. Bad: a value other \
                 than the one you set.",
        )
        .column("Value", Unit::Plain, &[], now)
        .column("Changes", Unit::Plain, &[], changed)
        .merged(&[("name", "Parameter"), ("index", "Number"), ("instance", "Instance")], &["Time"], "Changes"),
    )
}
