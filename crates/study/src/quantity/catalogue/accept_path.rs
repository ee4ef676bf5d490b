//! What the server and its listeners say of the accept path.

use super::whole;
use crate::quantity::{Better, Quantity, Unit, seconds};
use crate::results::Trial;

pub(super) const SERVER: &[Quantity] = &[
    quantity!("accepted", "accepted", Count, Higher, "Connections accepted, whole trial; no value of a target", |t| {
        own(t, |books| Some(books.accepted() as f64))
    }),
    quantity!(
        "accept-rate",
        "accept rate",
        PerSecond,
        Higher,
        "Connections accepted per second from the start of the load to the last verdict; no value of a target",
        |t| own(t, |books| (t.timings.load_ms > 0.0).then(|| books.accepted() as f64 / (t.timings.load_ms / 1000.0)))
    ),
    quantity!(
        "greetings",
        "greetings",
        Count,
        Neither,
        "Greetings handed to the kernel, whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.greetings)
    ),
    quantity!(
        "replies",
        "replies",
        Count,
        Neither,
        "Connections answered after they had sent something (on-accept reply and echo), whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.replies)
    ),
    quantity!(
        "dead-on-accept",
        "dead on accept",
        Count,
        Lower,
        "Connections already reset by the client when they were accepted, whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.dead_on_accept)
    ),
    quantity!(
        "late-handshakes",
        "late handshakes",
        Count,
        Lower,
        "Connections accepted whose SYN-ACK had been sent again: phantoms that got in after all, whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.late_handshakes)
    ),
    quantity!(
        "empty-wakeups",
        "empty wake-ups",
        Count,
        Lower,
        "Wake-ups of an acceptor that found the queue empty because another was faster, whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.wakeups_empty)
    ),
    quantity!(
        "accept-pauses",
        "accept pauses",
        Count,
        Lower,
        "Times a listener was left alone because descriptors or memory had run out, whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.pauses)
    ),
    quantity!(
        "worker-restarts",
        "workers replaced",
        Count,
        Lower,
        "Pre-forked acceptors replaced after they had died, whole trial; no value of a target",
        |t| counted(t, |acceptor| acceptor.restarts)
    ),
];

pub(super) const QUEUE: &[Quantity] = &[
    quantity!(
        "queue-limit",
        "queue limit",
        Count,
        Neither,
        "Queue limit as read back from the kernel, summed over listeners",
        |t| listeners(t, |listener| u64::from(listener.limit)).map(|sum| sum as f64)
    ),
    quantity!(
        "queue-capacity",
        "queue capacity",
        Count,
        Neither,
        "Connections the accept queues hold: limit + 1 each, summed over listeners",
        |t| listeners(t, |listener| u64::from(listener.limit) + 1).map(|sum| sum as f64)
    ),
    quantity!(
        "queue-max",
        "deepest queue",
        Count,
        Neither,
        "Deepest accept queue seen, of any listener; sampled, so a lower bound; no value in a window",
        |t| {
            let deepest = t.server.listeners.iter().map(|listener| listener.deepest).max();
            deepest.filter(|_| whole(t)).map(|depth| depth as f64)
        }
    ),
    quantity!(
        "entered",
        "entered",
        Count,
        Neither,
        "Connections that entered an accept queue, whole trial, from the ledger; no value in a window",
        |t| whole(t).then_some(t.ledger.terms.entered as f64)
    ),
    quantity!(
        "left",
        "left in the queue",
        Count,
        Lower,
        "Connections left in the accept queues when the trial was over, from the ledger; no value in a window",
        |t| whole(t).then_some(t.ledger.terms.left as f64)
    ),
    quantity!(
        "queue-full-seconds",
        "time with a full queue",
        Seconds,
        Lower,
        "Time accept queues spent full, summed over listeners, by the sampling thread's ticks",
        |t| listeners(t, |listener| listener.full_ns).map(seconds)
    ),
];

/// What the server's own books say; nothing of a target, which keeps none.
fn own(trial: &Trial, read: impl Fn(&server::Snapshot) -> Option<f64>) -> Option<f64> {
    trial.own_books().and_then(read)
}

/// A sum over the acceptors of our own server.
fn counted(trial: &Trial, count: impl Fn(&server::AcceptorCounts) -> u64) -> Option<f64> {
    own(trial, |books| Some(books.total(&count) as f64))
}

/// A sum over the listeners; nothing where there is none.
fn listeners(trial: &Trial, field: impl Fn(&server::ListenerCounts) -> u64) -> Option<u64> {
    let listeners = &trial.server.listeners;
    (!listeners.is_empty()).then(|| listeners.iter().map(field).sum())
}
