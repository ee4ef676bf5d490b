//! The server's metrics: their names, labels and help in one place, and how a [`Snapshot`] becomes samples.

use telemetry::exposition::{Bounds, Families, Scale};
use telemetry::{listeners, standard};

use crate::snapshot::Snapshot;
use crate::tally::ERRNOS;

telemetry::metrics! {
    ACCEPTS = Counter "server_accepts_total" ["acceptor"] "Connections accepted (accept4 successes).";
    ACCEPT_ERRORS = Counter "server_accept_errors_total" ["acceptor", "errno"] "accept4 errors by errno.";
    ACCEPT_WAKEUPS = Counter "server_accept_wakeups_total" ["acceptor", "result"] "Wake-ups of an acceptor that found work, or found the queue empty (another acceptor was faster).";
    ACCEPT_BATCH = Histogram "server_accept_batch_connections" [] "Connections taken per wake-up.";
    ACCEPT_PAUSES = Counter "server_accept_pauses_total" [] "Times a listener was left alone for a while because descriptors or memory had run out.";
    UNHANDLED = Gauge "server_unhandled_completions" [] "Connections that a multishot accept has taken off the accept queue and nobody has looked at yet (engine io-uring-multishot).";
    QUEUE_WAIT = Histogram "server_accept_queue_wait_seconds" ["source"] "Time a connection spent in the accept queue; source tcp-info has steps of the kernel's tick, source timestamp is exact where the client sends at once.";
    DEAD_ON_ACCEPT = Counter "server_connections_dead_on_accept_total" [] "Connections already reset by the peer when accepted; each held a slot of the accept queue.";
    LATE_HANDSHAKES = Counter "server_late_handshakes_total" [] "Connections accepted whose SYN-ACK had been retransmitted: phantoms that got in after all.";
    GREETINGS = Counter "server_greetings_total" [] "Greetings handed to the kernel.";
    REPLIES = Counter "server_replies_total" [] "Connections that got an answer after they had sent something (on-accept reply and echo).";
    FORKS = Counter "server_forks_total" [] "Children forked for a connection (handler fork).";
    WORKER_RESTARTS = Counter "server_worker_restarts_total" [] "Pre-forked acceptors replaced after they had died (workers processes).";
    OPEN_CONNECTIONS = Gauge "server_open_connections" [] "Connections accepted and not closed.";
    CLOSED = Counter "server_connections_closed_total" ["reason"] "Connections closed, by reason: peer and server by who was first, reset on purpose, error when sending failed, killed with their acceptor.";
    SAMPLER_CPU = Counter "server_sampler_cpu_seconds_total" [] "CPU time of the thread that samples the queues.";
    BACKLOG = Gauge "listener_backlog_requested" ["listener"] "The backlog argument given to listen(2).";
    FILL = Histogram "listener_accept_queue_fill_ratio" [] "Sampled depth / capacity of the accept queue: time at each fill level. Full is exactly 1.";
    RELISTENS = Counter "listener_relistens_total" ["listener"] "listen(2) calls made again because somaxconn had changed (relisten on-change).";
    DESTROYED = Counter "listener_destroyed_total" ["listener"] "Connections reset in the accept queue because the listener was closed during the run.";
    SYN_QUEUE_DEPTH = Gauge "listener_syn_queue_depth" [] "Request sockets in SYN_RECV towards the server's ports in this network namespace.";
}

/// Adds everything a server exposes. Books of another program (the target of a trial) have no acceptor: of it only what the
/// kernel knows is shown, and nothing is 0 for want of a count.
pub fn expose(snapshot: &Snapshot, families: &mut Families) {
    if !snapshot.acceptors.is_empty() {
        own(snapshot, families);
    }
    families.counter_seconds(&SAMPLER_CPU, &[], snapshot.sampler_cpu_ns);
    for (index, listener) in snapshot.listeners.iter().enumerate() {
        let index = index.to_string();
        listeners::expose(families, &index, &listener.queue());
        if let Some(backlog) = listener.backlog_requested {
            families.gauge(&BACKLOG, &[&index], f64::from(backlog));
            families.counter(&RELISTENS, &[&index], listener.relistens);
            families.counter(&DESTROYED, &[&index], listener.destroyed);
        }
    }
    families.histogram(&FILL, &[], &snapshot.fill, Bounds::Fill, Scale::Fill);
    families.gauge(&SYN_QUEUE_DEPTH, &[], snapshot.syn_recv as f64);
    standard::namespace(families, &snapshot.kernel);
}

/// What acceptors count.
fn own(snapshot: &Snapshot, families: &mut Families) {
    for (index, acceptor) in snapshot.acceptors.iter().enumerate() {
        let index = index.to_string();
        families.counter(&ACCEPTS, &[&index], acceptor.accepts);
        for errno in ERRNOS {
            let count = acceptor.errors.get(errno).copied().unwrap_or(0);
            families.counter(&ACCEPT_ERRORS, &[&index, errno], count);
        }
        families.counter(&ACCEPT_WAKEUPS, &[&index, "work"], acceptor.wakeups_work);
        families.counter(&ACCEPT_WAKEUPS, &[&index, "empty"], acceptor.wakeups_empty);
    }
    families.histogram(&ACCEPT_BATCH, &[], &snapshot.batch, Bounds::Count, Scale::Plain);
    families.counter(&ACCEPT_PAUSES, &[], snapshot.total(|a| a.pauses));
    families.gauge(&UNHANDLED, &[], snapshot.total(|a| a.unhandled) as f64);
    families.histogram(&QUEUE_WAIT, &["tcp-info"], &snapshot.wait, Bounds::Latency, Scale::Seconds);
    families.histogram(&QUEUE_WAIT, &["timestamp"], &snapshot.wait_stamped, Bounds::Latency, Scale::Seconds);
    families.counter(&DEAD_ON_ACCEPT, &[], snapshot.total(|a| a.dead_on_accept));
    families.counter(&LATE_HANDSHAKES, &[], snapshot.total(|a| a.late_handshakes));
    families.counter(&GREETINGS, &[], snapshot.total(|a| a.greetings));
    families.counter(&REPLIES, &[], snapshot.total(|a| a.replies));
    families.counter(&FORKS, &[], snapshot.total(|a| a.forks));
    families.counter(&WORKER_RESTARTS, &[], snapshot.total(|a| a.restarts));
    families.gauge(&OPEN_CONNECTIONS, &[], snapshot.total(super::AcceptorCounts::open) as f64);
    families.counter(&CLOSED, &["peer"], snapshot.total(|a| a.closed_by_peer));
    families.counter(&CLOSED, &["server"], snapshot.total(|a| a.closed_by_server));
    families.counter(&CLOSED, &["reset"], snapshot.total(|a| a.closed_by_reset));
    families.counter(&CLOSED, &["error"], snapshot.total(|a| a.closed_on_error));
    families.counter(&CLOSED, &["killed"], snapshot.total(|a| a.closed_by_kill));
}
