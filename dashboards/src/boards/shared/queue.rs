//! Accept queues: what binds them, how deep they are, what they cost.

use super::{ACCEPT_QUEUE, DROPPED, KERNEL_PARAMETERS};
use crate::model::{Panel, Unit};
use crate::netstat;
use crate::query::metric::listeners;
use crate::query::{Binds, Role, limit_now};

/// The answer to "what binds the queue limit, and what does it cost?".
pub(in crate::boards) fn binds() -> Panel {
    let panel = Panel::stat(
        "What binds the accept queue",
        Unit::Ratio,
        "What sets the queue limit, and the part of the packets towards a full accept queue that were \
         dropped: ListenOverflows / (ListenOverflows + PassiveOpens) of the server's network \
         namespace. Every retransmitted SYN counts again, and programs that share a namespace share \
         the number. The queue limit is min(backlog, somaxconn) at listen(2), and capacity is one \
         more. Raise the one that binds; raising the other changes nothing. Changing somaxconn later \
         does nothing until listen(2) is called again. Bad: anything above 0 %.",
    );
    let panel = Binds::ALL.into_iter().fold(panel, |panel, case| panel.target(case.query(), case.legend()));
    panel
        .thresholds(&DROPPED)
        .option("orientation", "horizontal".into())
        .no_value("no server, or somaxconn is hidden")
        .leads_to(ACCEPT_QUEUE)
        .leads_to(KERNEL_PARAMETERS)
}

/// How deep the queues are and could be.
pub(in crate::boards) fn against_limit() -> Panel {
    let per_server = |what: &str| format!("max by (job, instance) ({what})");
    let depth = per_server(&Role::Server.gauge(&listeners::DEPTH));
    let deepest = per_server(&Role::Server.gauge(&listeners::MAX));
    let limit = per_server(&Role::Server.gauge(&listeners::LIMIT));
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
    .target(per_server(&limit_now()), "limit of listen(2) now · {{instance}}")
    .leads_to(ACCEPT_QUEUE)
}

/// What full queues cost, in packets.
pub(in crate::boards) fn losses() -> Panel {
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
    .target(Role::Loadgen.rate(netstat!(syn_retransmits)), "SYN retransmits (client) · {{instance}}")
    .leads_to(KERNEL_PARAMETERS)
}
