//! Listeners: every listening socket of a host or container, whatever program holds it, as `acceptbench watch` sees it.

use super::shared::{FILL, NONE_WANTED, kernel};
use crate::model::{Dashboard, Panel, Row, Threshold, Unit};
use crate::netstat;
use crate::query::metric::{listeners, standard, watch};
use crate::query::{Role, rate, sel};

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "listeners",
        "acceptbench: Listeners",
        "Every TCP listener that acceptbench watch sees: which accept queue is full, whose it is, and \
         what was dropped.",
        vec![health(), table(), worst(), namespace(), own_cost()],
    )
}

/// `expression`, which has the labels of a listener, with the name of the program that holds it.
fn with_command(expression: &str) -> String {
    format!("{expression} * on (job, instance, listener) group_left (command) {}", sel(&watch::LISTENER_INFO, ""))
}

/// The ten largest of what [`with_command`] made.
fn top(expression: &str) -> String {
    format!("topk(10, {})", with_command(expression))
}

fn health() -> Row {
    let fill = Role::Watch.gauge(&listeners::MAX_FILL);
    Row::new("Healthy? Which queue is full?", 5)
        .panel(
            5,
            Panel::stat(
                "Listeners that were full",
                Unit::Short,
                "Listeners whose accept queue was at capacity (limit + 1) since the last scrape. While it is \
                 full every SYN is dropped. Raise the backlog argument of that program and \
                 net.core.somaxconn, whichever is smaller, then restart it so that it calls listen(2) again. \
                 Bad: above 0.",
            )
            .target(format!("sum(({fill}) >= bool 1)"), "full")
            .thresholds(&[(1.0, "red")])
            .no_value("no acceptbench watch"),
        )
        .panel(
            5,
            Panel::stat(
                "Worst fill",
                Unit::Ratio,
                "The deepest accept queue since the last scrape over its capacity, of the worst listener. \
                 Knobs: the program's backlog, somaxconn, and how fast it accepts. Bad: 100 %.",
            )
            .target(format!("max({fill})"), "deepest / capacity")
            .thresholds(&FILL),
        )
        .panel(
            5,
            Panel::stat(
                "Packets dropped by listeners",
                Unit::PerSecond,
                "sk_drops of all listeners shown, for any reason; a last ACK that met a full accept queue \
                 counts twice. The table says which listener. Knobs: backlog, somaxconn, tcp_max_syn_backlog. \
                 Bad: above 0.",
            )
            .target(format!("sum({})", Role::Watch.rate(&listeners::DROPS)), "dropped")
            .thresholds(&NONE_WANTED),
        )
        .panel(
            5,
            Panel::stat(
                "Overflows",
                Unit::PerSecond,
                "ListenOverflows of the network namespace: packets dropped because an accept queue was full, \
                 retransmits counted again. Knobs: backlog, somaxconn. Bad: above 0.",
            )
            .target(format!("sum({})", Role::Watch.rate(netstat!(listen_overflows))), "overflows")
            .thresholds(&NONE_WANTED),
        )
        .panel(
            4,
            Panel::stat(
                "Sources read",
                Unit::Ratio,
                "Whether everything watch reads (sock_diag, netstat, sysctls such as somaxconn) could be read \
                 at the last scrape. Bad: below 100 %: a panel here shows old numbers.",
            )
            .target(format!("avg({})", Role::Watch.gauge(&standard::SOURCE_UP)), "read")
            .thresholds_from("red", &[(1.0, "green")]),
        )
}

fn table() -> Row {
    let now = |gauge| with_command(&sel(gauge, ""));
    let fill = [(None, "green"), (Some(0.5), "orange"), (Some(1.0), "red")];
    let drops = [(None, "green"), (Some(1e-9), "orange")];
    let fill = fill.map(|(value, color)| Threshold { color, value });
    let drops = drops.map(|(value, color)| Threshold { color, value });
    Row::new("Every listener", 10).panel(
        24,
        Panel::table(
            "Listeners",
            "Each listener now: connections waiting, the queue limit as the kernel has it (min(backlog, \
             somaxconn) when the program called listen(2); the queue holds one more), the deepest since \
             the last scrape, that over capacity, the part of the time it was full, and packets dropped. \
             A limit far below somaxconn is the program's own backlog. Bad: a red fill.",
        )
        .column("Depth", Unit::Short, &[], now(&listeners::DEPTH))
        .column("Limit", Unit::Plain, &[], now(&listeners::LIMIT))
        .column("Deepest", Unit::Short, &[], now(&listeners::MAX))
        .column("Worst fill", Unit::Ratio, &fill, now(&listeners::MAX_FILL))
        .column("Time full", Unit::Ratio, &drops, with_command(&rate(&listeners::FULL, "")))
        .column("Drops", Unit::PerSecond, &drops, with_command(&rate(&listeners::DROPS, "")))
        .merged(
            &[("listener", "Listener"), ("command", "Program"), ("instance", "Instance")],
            &["Time", "job"],
            "Worst fill",
        ),
    )
}

fn worst() -> Row {
    Row::new("The worst ten", 8)
        .panel(
            12,
            Panel::time_series(
                "Deepest fill",
                Unit::Ratio,
                "The ten listeners that were fullest since the last scrape, over capacity (limit + 1). Short \
                 spikes are bursts that a larger backlog and somaxconn absorb; a plateau is a program that \
                 accepts too slowly, which no backlog cures. Bad: 100 %.",
            )
            .target(top(&sel(&listeners::MAX_FILL, "")), "{{listener}} {{command}} · {{instance}}")
            .max(1.0),
        )
        .panel(
            12,
            Panel::time_series(
                "Packets dropped",
                Unit::PerSecond,
                "The ten listeners that dropped most. Drops without a full accept queue are the SYN queue's \
                 (tcp_max_syn_backlog with tcp_syncookies 0), TCP_DEFER_ACCEPT's or a socket filter's; with a \
                 full one, raise backlog and somaxconn. Bad: above 0.",
            )
            .target(top(&rate(&listeners::DROPS, "")), "{{listener}} {{command}} · {{instance}}"),
        )
}

fn namespace() -> Row {
    Row::new("The network namespace", 8)
        .panel(12, kernel::server_sysctls(Role::Watch))
        .panel(
            12,
            Panel::time_series(
                "Overflows, drops, cookies",
                Unit::PerSecond,
                "Packets of the whole network namespace. Overflows: an accept queue was full (backlog, \
                 somaxconn). Drops beyond them: a SYN queue (tcp_max_syn_backlog with tcp_syncookies 0). \
                 Cookies sent: a SYN queue was full and tcp_syncookies let clients in all the same. Bad: \
                 overflows above 0.",
            )
            .target(Role::Watch.rate(netstat!(listen_overflows)), "overflows · {{instance}}")
            .target(Role::Watch.rate(netstat!(listen_drops)), "drops · {{instance}}")
            .target(Role::Watch.rate(netstat!(request_queue_full_drops)), "SYN queue full · {{instance}}")
            .target(Role::Watch.rate(netstat!(syncookies_sent)), "cookies sent · {{instance}}")
            .target(Role::Watch.rate(netstat!(passive_opens)), "entered an accept queue · {{instance}}"),
        )
        .panel(24, kernel::tcp_sockets(Role::Watch))
}

fn own_cost() -> Row {
    Row::new("What watching costs", 6)
        .panel(
            8,
            Panel::time_series(
                "Listeners shown and left out",
                Unit::Short,
                "Left out: beyond max-listeners, so the worst one may be missing here; raise max-listeners or \
                 filter. Bad: any left out.",
            )
            .target(sel(&watch::LISTENERS, ""), "shown · {{instance}}")
            .target(sel(&watch::OMITTED, ""), "left out · {{instance}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "Looks at all listeners",
                Unit::PerSecond,
                "How often all queues are sampled. Between two looks a queue may fill and empty again unseen; \
                 its drops count all the same. Knob: rate of acceptbench watch. Bad: far below what was asked \
                 for.",
            )
            .target(rate(&watch::SAMPLES, ""), "looks · {{instance}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "CPU of sampling",
                Unit::Ratio,
                "CPU time of the thread that samples, and of the whole process, as part of one core. It grows \
                 with the number of listeners (max-listeners) and with the rate of acceptbench watch. Bad: \
                 above a few percent.",
            )
            .target(rate(&watch::SAMPLER_CPU, ""), "sampler · {{instance}}")
            .target(Role::Watch.rate(&standard::PROCESS_CPU_SECONDS), "whole process · {{instance}}"),
        )
}
