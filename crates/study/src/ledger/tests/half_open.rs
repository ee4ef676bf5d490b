//! The books of trials that keep sockets half open.

use super::*;

/// Keeps `kept` sockets half open, of which `answered` dropped something, and leaves the books of all others alone.
fn half_open(trial: &mut Trial, kept: u64, answered: u64) {
    trial.loadgen.half_open = HalfOpenCounts { kept, answered, dropped: 2 * answered };
    trial.loadgen.warm_up.planned += kept;
    trial.loadgen.warm_up.issued += kept;
    trial.loadgen.warm_up.verdicts.insert(Verdict::HalfOpen, kept);
    trial.loadgen.kernel.net.active_opens += kept;
}

#[test]
fn half_open_sockets_are_attempts_and_those_answered_have_requests() {
    let ledger = settled(|trial| {
        half_open(trial, 200, 129);
        trial.server.syn_recv = 129;
    });
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.half_open, ledger.terms.pending, ledger.terms.phantoms), (129, 129, 10));
    assert_eq!(ledger.lines[0].equation, "planned 1200 = verdicts 1200");
    assert_eq!(
        ledger.lines[4].equation,
        "phantoms 10 + abandoned 0 + half open 129 = EmbryonicRsts(server) 10 + SYN_RECV 129 + expired 0"
    );
    assert!(!settled(|_| ()).lines[4].equation.contains("half open"), "there are none");
}

#[test]
fn a_half_open_socket_without_a_request_is_a_residual_until_requests_expire() {
    let missing = |seconds: u64| {
        move |trial: &mut Trial| {
            half_open(trial, 200, 129);
            trial.server.syn_recv = 64;
            trial.loadgen.monotonic_ns = trial.loadgen.origin_ns + seconds * 1_000_000_000;
        }
    };
    assert_eq!(residuals(&settled(missing(2))), [(5, 65)]);
    let pruned = settled(missing(8));
    assert_eq!((residuals(&pruned), pruned.terms.expired), (vec![], 65));
    let closed = settled(|trial| {
        missing(2)(trial);
        trial.server.listeners[0].retired = true;
    });
    assert_eq!((residuals(&closed), closed.terms.expired), (vec![], 65), "its requests go at their next timer");
}

#[test]
fn a_request_that_nobody_can_explain_stays_a_residual_beside_half_open_sockets() {
    let ledger = settled(|trial| {
        half_open(trial, 200, 100);
        trial.server.syn_recv = 101;
        trial.loadgen.measured.verdicts.insert(Verdict::TimedOut, 0);
        trial.loadgen.measured.verdicts.insert(Verdict::Refused, 200);
    });
    assert_eq!(residuals(&ledger), [(5, -1)], "nobody timed out, so nothing was abandoned");
}

#[test]
fn cookies_dropped_by_half_open_sockets_do_not_hide_stray_ones() {
    let ledger = settled(|trial| {
        half_open(trial, 30, 30);
        with_cookies(trial, 100, 60);
        established(trial, 782);
    });
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.ghosts, ledger.terms.stray_cookies), (8, 20));
    assert!(ledger.lines[4].derived);
}
