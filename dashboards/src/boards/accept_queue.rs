//! Accept queue: how full each queue of the server is, what it drops, how long connections wait, who takes them out.

use super::shared::{FILL, NONE_WANTED, kernel, queue};
use crate::model::{Dashboard, Panel, Row, Unit};
use crate::query::metric::{listeners, server};
use crate::query::{Role, buckets, buckets_of, limit_now, quantile, rate, sel, sum_rate};

/// The board.
pub(super) fn board() -> Dashboard {
    Dashboard::new(
        "accept-queue",
        "acceptbench: Accept queue",
        "The queues of acceptbench server from inside: depth against limit, time full, drops, waiting \
         time, and the acceptors that empty them.",
        vec![health(), depth(), losses(), wait(), acceptors(), connections(), handshakes()],
    )
}

fn health() -> Row {
    let wait = format!("max({} >= 0)", quantile(0.99, "job, instance, source", &server::QUEUE_WAIT));
    Row::new("Healthy? What binds it?", 5)
        .panel(12, queue::binds())
        .panel(
            3,
            Panel::stat(
                "Worst fill",
                Unit::Ratio,
                "The deepest accept queue since the last scrape over its capacity (limit + 1), of the worst \
                 listener. It is full at 100 %, and a hair above when two CPUs overfilled it. Raise backlog \
                 and somaxconn for bursts, acceptors for sustained load. Bad: 100 %.",
            )
            .target(format!("max({})", Role::Server.gauge(&listeners::MAX_FILL)), "deepest / capacity")
            .thresholds(&FILL),
        )
        .panel(
            3,
            Panel::stat(
                "Time full",
                Unit::Ratio,
                "The part of the time during which the accept queue of the worst listener was at capacity and \
                 every SYN was dropped. Knobs: backlog and somaxconn while bursts fill it, acceptors and \
                 accept-delay when it stays full. Bad: above 0.",
            )
            .target(format!("max({})", Role::Server.rate(&listeners::FULL)), "full")
            .thresholds(&[(1e-9, "orange"), (0.5, "red")]),
        )
        .panel(
            3,
            Panel::stat(
                "Packets dropped",
                Unit::PerSecond,
                "Dropped by the server's listeners (sk_drops), for any reason. The last ACK of a handshake \
                 that meets a full accept queue counts twice. Knobs: backlog, somaxconn, tcp_max_syn_backlog. \
                 Bad: above 0.",
            )
            .target(format!("sum({})", Role::Server.rate(&listeners::DROPS)), "dropped")
            .thresholds(&NONE_WANTED),
        )
        .panel(
            3,
            Panel::stat(
                "Wait, p99",
                Unit::Seconds,
                "Time in the accept queue before an acceptor took the connection, of the worst server. It is \
                 at most (capacity) × (service time): a longer backlog makes it longer. Knobs: acceptors, \
                 accept-delay, backlog. Bad: near the clients' deadline.",
            )
            .target(wait, "waited")
            .thresholds(&[(0.1, "orange"), (1.0, "red")])
            .no_value("no accepts"),
        )
}

fn depth() -> Row {
    let of = |gauge| Role::Server.gauge(gauge);
    Row::new("Depth and limit", 9)
        .panel(
            12,
            Panel::time_series(
                "Depth and limit of each listener",
                Unit::Short,
                "Connections waiting, the deepest since the last scrape, the queue limit read back from the \
                 kernel, and the limit that listen(2) would give now: min(backlog, somaxconn). Without \
                 relisten the limit stays where listen(2) put it when somaxconn changes; with relisten \
                 on-change it follows. The queue holds limit + 1. Bad: the deepest one above the limit line.",
            )
            .target(of(&listeners::DEPTH), "depth · {{instance}} #{{listener}}")
            .target(of(&listeners::MAX), "deepest · {{instance}} #{{listener}}")
            .target(of(&listeners::LIMIT), "limit · {{instance}} #{{listener}}")
            .target(limit_now(), "limit of listen(2) now · {{instance}} #{{listener}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Deepest fill of each listener",
                Unit::Ratio,
                "The deepest since the last scrape over capacity (limit + 1). With reuseport each listener \
                 has a queue of its own, and a full one drops while its siblings have room. Knobs: backlog, \
                 somaxconn, reuseport. Bad: 100 %.",
            )
            .target(of(&listeners::MAX_FILL), "{{instance}} #{{listener}}")
            .max(1.0),
        )
        .panel(
            6,
            Panel::heat_map(
                "Samples by fill level",
                Unit::Ratio,
                "How often the queues were found this full: depth over capacity at each sample. The last \
                 bucket is a full queue. A band at the top is a queue that is too short for its bursts \
                 (backlog, somaxconn) or an acceptor that is too slow (acceptors). Bad: samples in the last \
                 bucket.",
            )
            .target(buckets("", &server::FILL), "{{le}}"),
        )
}

fn losses() -> Row {
    Row::new("What it costs", 8)
        .panel(
            8,
            Panel::time_series(
                "Time full of each listener",
                Unit::Ratio,
                "Seconds per second at capacity. While it is full every SYN is dropped without an answer, and \
                 the last ACK of a handshake leaves a phantom. Knobs: backlog and somaxconn against bursts, \
                 acceptors against overload. Bad: above 0.",
            )
            .target(Role::Server.rate(&listeners::FULL), "{{instance}} #{{listener}}")
            .max(1.0),
        )
        .panel(
            8,
            Panel::time_series(
                "Packets dropped by each listener",
                Unit::PerSecond,
                "sk_drops of the listening socket: overflows of the accept queue, drops of the SYN queue, a \
                 last ACK twice. Dropped clients come back in lockstep after 1 s, so a drop makes the next \
                 burst. Knobs: backlog, somaxconn, tcp_max_syn_backlog. Bad: above 0.",
            )
            .target(Role::Server.rate(&listeners::DROPS), "{{instance}} #{{listener}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "listen(2) again, connections lost with a listener",
                Unit::PerSecond,
                "listen(2) calls because somaxconn had changed (relisten on-change), and connections that \
                 were reset in the accept queue because their listener was closed (retire; tcp_migrate_req \
                 saves them with reuseport). Bad: any connection lost.",
            )
            .target(rate(&server::RELISTENS, ""), "listen(2) again · {{instance}} #{{listener}}")
            .target(rate(&server::DESTROYED, ""), "connections lost · {{instance}} #{{listener}}"),
        )
}

fn wait() -> Row {
    let p = |q| quantile(q, "instance, source", &server::QUEUE_WAIT);
    Row::new("Waiting for an acceptor", 8)
        .panel(
            12,
            Panel::time_series(
                "Wait in the accept queue",
                Unit::Seconds,
                "From entering the accept queue to accept(2). Source tcp-info knows every connection, in steps \
                 of the kernel's tick (4 ms at 250 Hz); source timestamp only those whose client speaks first \
                 (on-accept reply or echo), to the microsecond, without the time the client took to send. \
                 Little's law: wait = depth / accepts per second, so a longer backlog under overload only \
                 makes everybody wait longer. Knobs: acceptors, accept-delay, backlog. Bad: a p50 that is a \
                 good part of the clients' deadline.",
            )
            .target(p(0.5), "p50 · {{instance}} ({{source}})")
            .target(p(0.99), "p99 · {{instance}} ({{source}})"),
        )
        .panel(
            12,
            Panel::heat_map(
                "Accepts by how long they waited",
                Unit::Seconds,
                "Accepts per second by how long the connection had waited (source tcp-info). A band that rises with backlog is \
                 sustained overload: the queue is always full and backlog only sets the waiting time. Bad: \
                 the band is near the clients' deadline.",
            )
            .target(buckets_of("", &server::QUEUE_WAIT, r#"source="tcp-info""#), "{{le}}"),
        )
}

fn acceptors() -> Row {
    let batch = |q| quantile(q, "instance", &server::ACCEPT_BATCH);
    Row::new("Acceptors", 8)
        .panel(
            6,
            Panel::time_series(
                "Accepts of each acceptor",
                Unit::PerSecond,
                "How the work is spread. On one shared listener the kernel wakes whom it likes; with \
                 reuseport each acceptor has a queue of its own, filled by a hash of the 4-tuple. Knobs: \
                 acceptors, reuseport, engine. Bad: one line high and the rest near 0 while the queue is \
                 full.",
            )
            .target(rate(&server::ACCEPTS, ""), "{{instance}} acceptor {{acceptor}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Wake-ups that found work or nothing",
                Unit::PerSecond,
                "empty: an acceptor was woken and another had been faster. Many empty ones are the thundering \
                 herd of several acceptors with an epoll of their own on one listener. Knobs: acceptors, \
                 reuseport, engine (blocking and epoll-exclusive wake one). Bad: more empty than work.",
            )
            .target(sum_rate("instance, result", &server::ACCEPT_WAKEUPS, ""), "{{result}} · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Connections taken per wake-up",
                Unit::Short,
                "Large batches are cheap per connection and mean that the acceptor comes late: bursts, or too \
                 few acceptors. With engine blocking it is always 1. Bad: batches near the capacity of the \
                 queue, for then it was full.",
            )
            .target(batch(0.5), "p50 · {{instance}}")
            .target(batch(0.99), "p99 · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Accept errors and pauses",
                Unit::PerSecond,
                "accept(2) errors by errno. EMFILE and ENFILE: no descriptor left (nofile): the connection \
                 stays in the accept queue, and the acceptor leaves that listener alone for 10 ms, which is a \
                 pause. The kernel never gives ECONNABORTED: a connection that was reset in the queue is \
                 accepted dead. Knobs: nofile, hold, close. Bad: above 0; pauses near 100 per second and \
                 listener mean that descriptors are out all the time.",
            )
            .target(sum_rate("instance, errno", &server::ACCEPT_ERRORS, ""), "{{errno}} · {{instance}}")
            .target(rate(&server::ACCEPT_PAUSES, ""), "pauses · {{instance}}"),
        )
}

fn connections() -> Row {
    Row::new("Connections and processes", 8)
        .panel(
            6,
            Panel::time_series(
                "Open connections",
                Unit::Short,
                "Accepted and not closed. on-accept, hold and close say how long a connection stays, and \
                 nofile bounds how many there can be. unhandled: taken off the accept queue by engine \
                 io-uring-multishot and not looked at yet, a queue that no backlog bounds. Bad: open climbs \
                 to nofile; unhandled grows, for the server is then too slow and the accept queue does not \
                 show it.",
            )
            .target(sel(&server::OPEN_CONNECTIONS, ""), "open · {{instance}}")
            .target(sel(&server::UNHANDLED, ""), "unhandled · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Connections closed",
                Unit::PerSecond,
                "By reason. server and peer: with a FIN or by the client, whoever was first (close: \
                 half-close and wait leave it to the client). reset: with a RST, as on-accept reset asks. \
                 error: the answer could not be sent, for the client had gone while it waited in the accept \
                 queue (backlog, deadline). killed: its acceptor died (workers processes). Who closes first \
                 keeps the TIME_WAIT. Bad: errors close to the rate of accepts; any killed.",
            )
            .target(rate(&server::CLOSED, ""), "{{reason}} · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Processes forked and replaced",
                Unit::PerSecond,
                "forked: a child for each connection (handler fork), at most max-children at once for each \
                 acceptor. replaced: pre-forked acceptors (workers processes) that had died; the connections \
                 they held are closed as killed, those in the queue are safe. Bad: anything replaced.",
            )
            .target(rate(&server::FORKS, ""), "forked · {{instance}}")
            .target(rate(&server::WORKER_RESTARTS, ""), "replaced · {{instance}}"),
        )
        .panel(
            6,
            Panel::time_series(
                "Cost of sampling the queues",
                Unit::Ratio,
                "CPU time of the thread that samples depth and limit, as part of one core: the price of this \
                 board. It does not depend on the load; with reuseport there is a listener per acceptor to \
                 look at. Bad: above a few percent.",
            )
            .target(rate(&server::SAMPLER_CPU, ""), "sampler · {{instance}}"),
        )
}

fn handshakes() -> Row {
    Row::new("Before and beside the accept queue", 8)
        .panel(
            8,
            Panel::time_series(
                "SYN queue",
                Unit::Short,
                "Request sockets in SYN_RECV towards the server's ports: handshakes without their last ACK, \
                 phantoms that wait for their SYN-ACK to be sent again among them. Room is backlog + 1 here \
                 too, or 3/4 of tcp_max_syn_backlog with tcp_syncookies 0; with cookies the SYN queue never \
                 turns a client away. Bad: at that room.",
            )
            .target(sel(&server::SYN_QUEUE_DEPTH, ""), "SYN_RECV · {{instance}}"),
        )
        .panel(
            8,
            Panel::time_series(
                "Accepted dead, accepted late",
                Unit::PerSecond,
                "Dead: the client had reset it (deadline passed) while it held a place in the queue, and it \
                 cost an accept all the same. Late: its SYN-ACK had been sent again: a phantom that got in \
                 after all. Greeted and replied: got its byte, at once or after it had sent one (on-accept). \
                 Knobs: backlog (shorter: less dead weight), deadline, acceptors, tcp_synack_retries. Bad: \
                 dead ones close to the rate of accepts.",
            )
            .target(rate(&server::DEAD_ON_ACCEPT, ""), "dead · {{instance}}")
            .target(rate(&server::LATE_HANDSHAKES, ""), "late · {{instance}}")
            .target(rate(&server::GREETINGS, ""), "greeted · {{instance}}")
            .target(rate(&server::REPLIES, ""), "replied · {{instance}}"),
        )
        .panel(8, kernel::tcp_sockets(Role::Server))
        .panel(24, kernel::server_sysctls(Role::Server))
}
