//! The index of what `probe` must cover: the notes this project began with, and what was measured since.
//!
//! A claim names the notes it takes its sentence from and the facts it measures. Every note and every fact is covered by a
//! claim or has a reason in [`NOT_HERE`]; a test holds the three together, so that nothing is forgotten silently.

mod measured;

pub use measured::{FACTS, NOT_HERE};

/// The notes' claims, in our words: number and sentence.
pub const NOTES: &[(&str, &str)] = &[
    ("1.1", "connect starts the three-way handshake and returns only when the connection stands or has failed."),
    ("1.2", "An unanswered SYN is sent again after 6 s, then 24 s; after 75 s in all connect gives ETIMEDOUT."),
    ("1.3", "A peer that listens but never answers the SYN is probably out of resources."),
    ("1.4", "A RST in answer to the SYN means nobody listens there; connect gives ECONNREFUSED."),
    (
        "1.5",
        "A RST has three causes: no listener on the port; TCP wants to abort a connection; a segment for a connection that \
         does not exist.",
    ),
    ("2.1", "bind's usual error is EADDRINUSE; what SO_REUSEADDR and SO_REUSEPORT change about it."),
    ("3.1", "listen turns the socket passive; its second argument is the longest queue."),
    ("3.2", "The kernel keeps two queues for each socket: one of unfinished handshakes, one of finished ones."),
    ("3.3", "A SYN makes an entry in the first; when the handshake ends it moves to the tail of the second."),
    ("3.4", "accept takes from the head of the second."),
    ("3.5", "On an empty queue accept sleeps (blocking) or returns an error (non-blocking); a new entry wakes it."),
    ("3.6", "The backlog is the largest number of finished connections waiting."),
    ("3.7", "Taking from the head is serial, so several threads in accept raise throughput."),
    (
        "3.8",
        "Several processes may listen on one IP and port and accept different connections: another way to concurrency.",
    ),
    ("3.9", "The kernel bounds the backlog, so busy services must tune kernel parameters."),
    (
        "3.10",
        "When the queue of unfinished handshakes is full, TCP does nothing and lets the client's SYN retransmission try \
         again.",
    ),
    ("3.11", "A SYN flood denies service by filling that queue from forged addresses."),
    (
        "4.1",
        "accept is called by the server and returns the next finished connection from the head; on an empty queue it \
         blocks or returns an error.",
    ),
    ("4.2", "NULL for the address arguments means the server does not care who the client is."),
    ("5", "fork and exec: an empty heading, filled here with what was measured."),
    (
        "6.1",
        "A socket is like a file, a descriptor like a file descriptor: each open descriptor counts; the socket is freed \
         when the count reaches 0.",
    ),
    ("6.2", "After fork, either side may close the listening or the connected descriptor without affecting the other."),
    ("7.1", "close lowers the reference count and sends no FIN by itself, so it starts no four-way close."),
    (
        "7.2",
        "Two processes listening on one IP and port: closing one does not affect the other; the same for parent and child \
         after fork.",
    ),
    ("7.3", "To really start the four-way close, use shutdown."),
];

/// The sentence of a note or a fact.
pub fn says(id: &str) -> Option<&'static str> {
    NOTES.iter().chain(FACTS).find(|(other, _)| *other == id).map(|(_, says)| *says)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::claim::{Claim, Verdict};
    use crate::claims;

    /// Ids without a claim and without a reason, and ids with both.
    fn gaps(ids: &[(&str, &str)], covers: impl Fn(&Claim, &str) -> bool) -> Vec<String> {
        let not_here: BTreeSet<&str> = NOT_HERE.iter().map(|(id, _)| *id).collect();
        let gap = |id: &str| match (claims().any(|claim| covers(claim, id)), not_here.contains(id)) {
            (false, false) => Some(format!("{id}: neither a claim nor a reason")),
            (true, true) => Some(format!("{id}: a claim and a reason against one")),
            _ => None,
        };
        ids.iter().filter_map(|(id, _)| gap(id)).collect()
    }

    #[test]
    fn every_note_has_a_claim_or_a_reason() {
        let gaps = gaps(NOTES, |claim, id| claim.notes.contains(&id));
        assert!(gaps.is_empty(), "{gaps:#?}");
    }

    #[test]
    fn every_fact_has_a_claim_that_holds_or_a_reason() {
        let gaps = gaps(FACTS, |claim, id| claim.facts.contains(&id) && claim.known == Verdict::Holds);
        assert!(gaps.is_empty(), "{gaps:#?}");
    }

    #[test]
    fn every_id_that_a_claim_or_a_reason_names_exists_once() {
        let mut known = BTreeSet::new();
        for (id, says) in NOTES.iter().chain(FACTS) {
            assert!(known.insert(*id), "{id} stands twice");
            assert!(says.ends_with('.') && !says.contains("  "), "{id}: {says}");
        }
        let named = claims().flat_map(|claim| claim.notes.iter().chain(claim.facts).map(|id| (claim.name, *id)));
        let unknown: Vec<_> = named
            .chain(NOT_HERE.iter().map(|(id, _)| ("NOT_HERE", *id)))
            .filter(|(_, id)| !known.contains(id))
            .collect();
        assert!(unknown.is_empty(), "{unknown:#?}");
    }

    #[test]
    fn every_claim_is_well_formed() {
        let mut names = BTreeSet::new();
        for claim in claims() {
            let Claim { name, says, why, expects, .. } = claim;
            assert!(names.insert(name), "{name} stands twice");
            let (group, rest) = name.split_once('.').expect("group.name");
            assert_eq!(group, claim.group.name(), "{name}");
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(!rest.is_empty() && rest.chars().all(kebab), "{name}");
            assert!(says.ends_with('.') && says.len() > 20 && !says.contains("  "), "{name}: {says}");
            assert!(!why.is_empty() && !why.ends_with('.') && !why.contains("  "), "{name}: {why}");
            assert!(!expects.is_empty(), "{name} expects nothing: it cannot be wrong");
            assert_ne!(claim.known, Verdict::NotObserved, "{name}");
            if claim.known == Verdict::Differs {
                assert!(!claim.notes.is_empty(), "{name}: only the notes may be wrong");
            }
        }
    }

    #[test]
    fn claims_stand_in_the_order_of_the_headings() {
        assert!(claims().map(|claim| claim.group).is_sorted());
    }
}
