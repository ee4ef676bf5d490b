//! The rules, in the order in which they are asked. Each answers with its figures, or leaves it to the next.
//!
//! Sources: `__sys_listen` in `net/socket.c` (the queue limit), `tcp_conn_request` in `net/ipv4/tcp_input.c` (which SYN is
//! dropped and what counts it), `tcp_v4_syn_recv_sock` in `net/ipv4/tcp_ipv4.c` (the last ACK at a full accept queue).

use loadgen::judgement::LimitKind;
use loadgen::verdict::Verdict;

use super::facts::SOMAXCONN;
use super::{Facts, Knob};
use crate::format;

/// Of the time, a queue that is full for this share would be full at any length: it does not empty between two arrivals.
const ALWAYS_FULL: f64 = 0.9;
/// And one that has room for this share of the time is emptied by its acceptors.
const OFTEN_ROOM: f64 = 0.5;
/// Acceptors busy for this share of the time have none to spare.
const BUSY: f64 = 0.9;

type Finding = (Knob, String);

/// What bound the trial.
pub(super) fn judge(facts: &Facts<'_>) -> Finding {
    let rules = [nobody, generator, everybody, refused, descriptors, late, dropped_syns, overflow];
    rules.iter().find_map(|rule| rule(facts)).unwrap_or_else(|| unexplained(facts))
}

fn nobody(facts: &Facts<'_>) -> Option<Finding> {
    (facts.planned == 0).then(|| (Knob::Undetermined, "no attempt was planned in the measured phase".to_owned()))
}

/// The generator's own limits, ports apart from the rest.
pub(super) fn generator(facts: &Facts<'_>) -> Option<Finding> {
    if let Some(limit) = facts.limits.first() {
        let knob = if limit.what == LimitKind::Ports { Knob::ClientPorts } else { Knob::Generator };
        return Some((knob, limit.cause()));
    }
    let shed = facts.verdict(Verdict::Shed);
    (shed > 0).then(|| {
        let text = format!("{shed} of {} attempts not made: as many in flight as max-in-flight allows", facts.planned);
        (Knob::Generator, text)
    })
}

/// Everybody was served: at once, after a retry, or as fast as the acceptors can in a closed loop.
fn everybody(facts: &Facts<'_>) -> Option<Finding> {
    if facts.lost() > 0 {
        return None;
    }
    let served = format!("{} of {} served", facts.served, facts.planned);
    let retries = facts.retries();
    if retries > 0 {
        let cause = match (facts.overflows(), facts.syn_queue_drops() + facts.quarter_drops()) {
            (0, 0) => "no drop counted by the server".to_owned(),
            (overflows, 0) => format!("overflows {overflows}; {}", facts.limit_in_words()),
            (overflows, syns) => {
                format!("overflows {overflows}, other SYNs dropped {syns}; {}", facts.limit_in_words())
            }
        };
        return Some((Knob::SynRetry, format!("{served}, {retries} SYNs sent again by their timer; {cause}")));
    }
    if facts.is_closed_loop() {
        return Some(match facts.busy_share() {
            Some(busy) if busy >= BUSY => {
                (Knob::Acceptor, format!("{served}, acceptors busy {} of the time", format::percent(busy)))
            }
            Some(busy) => (Knob::Nothing, format!("{served}, acceptors busy {} of the time", format::percent(busy))),
            None => (
                Knob::Undetermined,
                format!(
                    "{served} in a closed loop; nobody measured how busy acceptors are: no accept delay, or a target"
                ),
            ),
        });
    }
    let room = facts.limit().map_or_else(String::new, |(limit, _)| format!(" of {}", u64::from(limit) + 1));
    Some((Knob::Nothing, format!("{served}, deepest queue {}{room}", facts.deepest())))
}

fn refused(facts: &Facts<'_>) -> Option<Finding> {
    let refused = facts.verdict(Verdict::Refused) + facts.verdict(Verdict::Unreachable);
    (refused * 2 > facts.lost()).then(|| {
        (Knob::Undetermined, format!("{refused} of {} attempts refused: nobody listened there", facts.planned))
    })
}

/// Descriptors or memory of the server.
fn descriptors(facts: &Facts<'_>) -> Option<Finding> {
    let (pauses, names) = facts.pauses()?;
    Some((Knob::Acceptor, format!("acceptors left their listener alone {pauses} times ({names})")))
}

/// Accepted, but after the deadline: the greater part of those who were lost got in.
fn late(facts: &Facts<'_>) -> Option<Finding> {
    let late = facts.unserved.saturating_sub(facts.phantoms()?);
    if late * 2 <= facts.lost() {
        return None;
    }
    let found = format!("{late} of {} got in and no byte within {}", facts.planned, facts.deadline());
    Some(match keeps_up(facts) {
        Some((false, why)) => (Knob::Acceptor, format!("{found}; {why}")),
        Some((true, why)) => (Knob::Deadline, format!("{found}; {why}")),
        None => (Knob::Undetermined, format!("{found}; {UNKNOWN}")),
    })
}

/// The SYN queue, where it dropped more than the accept queue did. Behind a full accept queue requests pile up too, so the
/// greater number is taken for the cause.
fn dropped_syns(facts: &Facts<'_>) -> Option<Finding> {
    let (full, quarter, overflows) = (facts.syn_queue_drops(), facts.quarter_drops(), facts.overflows());
    if full + quarter <= overflows {
        return None;
    }
    let beside = if overflows > 0 { format!(", overflows {overflows}") } else { String::new() };
    if full >= quarter {
        let text =
            format!("SYN queue full {full} times at SYN_RECV {}{beside}; {}", facts.syn_recv(), facts.limit_in_words());
        return Some((Knob::SynQueue, text));
    }
    let Some(most) = facts.sysctl("net.ipv4.tcp_max_syn_backlog") else {
        return Some((
            Knob::Undetermined,
            format!("{quarter} SYNs dropped without a counter of a queue; tcp_max_syn_backlog was not recorded"),
        ));
    };
    if facts.sysctl("net.ipv4.tcp_syncookies") != Some(0) {
        return Some((
            Knob::Undetermined,
            format!("{quarter} drops in ListenDrops that no queue counted, and cookies are not known to be off"),
        ));
    }
    let text = format!(
        "{quarter} SYNs dropped at SYN_RECV {}{beside}; 3/4 of tcp_max_syn_backlog {most} and one is {}",
        facts.syn_recv(),
        most - most / 4 + 1
    );
    Some((Knob::MaxSynBacklog, text))
}

/// The accept queue overflowed. Either it was too short for the moment, or its acceptors cannot keep up and no length would
/// do.
fn overflow(facts: &Facts<'_>) -> Option<Finding> {
    let overflows = facts.overflows();
    if overflows == 0 {
        return None;
    }
    let found = format!("overflows {overflows}; {}", facts.limit_in_words());
    Some(match keeps_up(facts) {
        Some((false, why)) => (Knob::Acceptor, format!("{why}; {found}")),
        Some((true, why)) => limit(facts, format!("{found}; {why}")),
        None => (Knob::Undetermined, format!("{found}; {UNKNOWN}")),
    })
}

/// Which of the two made the queue limit.
fn limit(facts: &Facts<'_>, found: String) -> Finding {
    let Some((limit, backlog)) = facts.limit() else { return (Knob::Undetermined, found) };
    let limit = i64::from(limit);
    let Some(backlog) = backlog.map(i64::from) else {
        let knob = match facts.sysctl(SOMAXCONN) {
            Some(somaxconn) if limit < somaxconn => Knob::Backlog,
            // The backlog may be exactly as much; then it has to be raised as well, as the figures say.
            Some(somaxconn) if limit == somaxconn => Knob::Somaxconn,
            None | Some(_) => Knob::Undetermined,
        };
        return (knob, found);
    };
    let knob = match facts.sysctl(SOMAXCONN) {
        // listen(2) takes what it is given unless somaxconn is less: this is the kernel's own word for it.
        None if limit < backlog => Knob::Somaxconn,
        Some(somaxconn) if limit == backlog && backlog < somaxconn => Knob::Backlog,
        Some(somaxconn) if limit == somaxconn && somaxconn < backlog => Knob::Somaxconn,
        Some(somaxconn) if limit == somaxconn && limit == backlog => Knob::BacklogAndSomaxconn,
        // Not recorded, or changed since listen(2).
        None | Some(_) => Knob::Undetermined,
    };
    (knob, found)
}

const UNKNOWN: &str =
    "whether the acceptors keep up is not known: no service time, and the queue full about half of the time";

/// Can the acceptors serve what arrives, on average? Their service time says so; without one, how long the queue was full.
fn keeps_up(facts: &Facts<'_>) -> Option<(bool, String)> {
    if let (Some(rate), Some(capacity)) = (facts.rate, facts.capacity) {
        let keeps_up = rate < capacity;
        let than = if keeps_up { "below" } else { "at least" };
        return Some((keeps_up, format!("{rate:.0} arrivals/s, {than} the {capacity:.0}/s that acceptors can serve")));
    }
    // A closed loop has no more in flight than it is told: a queue as long as that loses nobody.
    let full = facts.full_share()?;
    let text = format!("queue full {} of the time", format::percent(full));
    if facts.is_closed_loop() || full <= OFTEN_ROOM {
        Some((true, text))
    } else if full >= ALWAYS_FULL {
        Some((false, text))
    } else {
        None
    }
}

fn unexplained(facts: &Facts<'_>) -> Finding {
    let most = Verdict::ALL
        .into_iter()
        .filter(|verdict| !matches!(verdict, Verdict::Served | Verdict::Connected))
        .max_by_key(|verdict| facts.verdict(*verdict));
    let what = most.map_or_else(String::new, |verdict| {
        format!(", {} {}", facts.verdict(verdict), verdict.label().replace('_', " "))
    });
    (
        Knob::Undetermined,
        format!("{} of {} lost{what}, and no counter of the server says why", facts.lost(), facts.planned),
    )
}
