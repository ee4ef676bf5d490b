use loadgen::opts::Confirm;
use telemetry::histogram::HistogramSnapshot;

use super::*;
use crate::testing;

/// The books of [`testing::trial`] as a target leaves them: nobody accepted anything that we know of.
fn books() -> (server::Snapshot, loadgen::Snapshot) {
    let trial = testing::trial(0);
    let mut server = trial.server;
    server.acceptors.clear();
    server.batch = HistogramSnapshot::default();
    server.listeners[0].backlog_requested = None;
    (server, trial.loadgen)
}

fn settled((server, loadgen): &(server::Snapshot, loadgen::Snapshot)) -> Ledger {
    balance(server, loadgen, Topology::Veth)
}

fn equation(ledger: &Ledger, number: u8) -> &str {
    let line = ledger.lines.iter().find(|line| line.number == number).expect("a line");
    &line.equation
}

fn derived(ledger: &Ledger) -> Vec<u8> {
    ledger.lines.iter().filter(|line| line.derived).map(|line| line.number).collect()
}

#[test]
fn what_was_accepted_is_what_the_kernel_opened_and_the_queue_does_not_hold() {
    let mut books = books();
    books.0.listeners[0].left = 6;
    let ledger = settled(&books);
    assert!(ledger.balances(), "{ledger:?}");
    assert!(equation(&ledger, 3).starts_with("accepted 784 = PassiveOpens(server) 790 − left 6 − counted twice 0"));
    assert_eq!((ledger.terms.entered, ledger.terms.phantoms, ledger.terms.left), (790, 10, 6));
    assert_eq!(derived(&ledger), [3, 6, 7], "4 and 5 count phantoms twice, independently");
    assert!(equation(&ledger, 7).starts_with("not evaluated"));
}

#[test]
fn a_phantom_that_only_one_of_two_counts_knows_is_a_residual() {
    let mut books = books();
    books.0.kernel.net.embryonic_resets = 9;
    assert_eq!(settled(&books).residual(5), Some(1));
    books.0.kernel.net.embryonic_resets = 10;
    books.1.measured.established = 801;
    let ledger = settled(&books);
    assert_eq!((ledger.residual(4), ledger.residual(5)), (Some(0), Some(1)), "{ledger:?}");
    books.1.measured.established = 700;
    assert_eq!(settled(&books).residual(4), Some(-90), "more entered than there were clients");
}

#[test]
fn served_without_having_entered_is_a_residual() {
    let mut books = books();
    books.1.measured.verdicts.extend([(Verdict::Served, 795), (Verdict::Unserved, 5)]);
    assert_eq!(settled(&books).residual(6), Some(5));
}

#[test]
fn of_clients_that_speak_first_twins_are_told_from_the_second_count_of_phantoms() {
    let mut books = books();
    books.1.opts.confirm = Confirm::Reply;
    books.1.measured.abrupt = 800;
    books.1.measured.verdicts.extend([(Verdict::TimedOut, 0), (Verdict::Refused, 200)]);
    // 8 counted twice: line 4 alone would call 2 phantoms, line 5 knows 10.
    books.0.kernel.net.passive_opens = 798;
    let ledger = settled(&books);
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.terms.raced, ledger.terms.entered, ledger.terms.phantoms), (8, 790, 10));
    assert_eq!(derived(&ledger), [3, 6, 7], "nobody timed out, so nothing else explains the eight");
}

#[test]
fn what_may_be_twins_or_abandoned_handshakes_is_a_range() {
    let mut books = books();
    books.1.opts.confirm = Confirm::Reply;
    books.1.measured.abrupt = 800;
    books.0.kernel.net.embryonic_resets = 13;
    let ledger = settled(&books);
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.terms.raced, ledger.terms.phantoms, ledger.terms.abandoned), (0, 10, 3));
    assert!(ledger.terms.phantoms_derived);
    assert!(equation(&ledger, 4).ends_with("phantoms 10 to 13, as 0 to 3 more may have been counted twice"));
    assert_eq!(derived(&ledger), [3, 4, 5, 6, 7]);
}

#[test]
fn connections_of_the_target_to_itself_are_no_clients() {
    let mut books = books();
    books.0.kernel.net.active_opens = 4;
    books.0.kernel.net.passive_opens = 794;
    let ledger = settled(&books);
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.terms.entered, ledger.terms.phantoms), (790, 10));
    assert!(equation(&ledger, 3).contains("− the target's own 4"));
    // Three more are refused: nobody listens there. They never entered a queue.
    books.0.kernel.net.active_opens = 7;
    books.0.kernel.net.attempt_fails = 3 + books.0.kernel.net.embryonic_resets;
    let ledger = settled(&books);
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.terms.entered, ledger.terms.phantoms), (790, 10));
    assert!(equation(&ledger, 3).contains("− the target's own 4"));
    (books.0.kernel.net.active_opens, books.0.kernel.net.attempt_fails) = (4, 0);
    // Over loopback both ends share the counter.
    let (mut server, mut loadgen) = books;
    (server.kernel.net.active_opens, loadgen.kernel.net.active_opens) = (1004, 1004);
    let ledger = balance(&server, &loadgen, Topology::Loopback);
    assert!(ledger.balances(), "{ledger:?}");
    assert!(equation(&ledger, 2).ends_with("+ the target's own 4"));
    assert_eq!(ledger.terms.phantoms, 10);
}

#[test]
fn after_a_cookie_phantoms_are_derived_and_line_5_is_not_asked() {
    let mut books = books();
    books.0.kernel.net.syncookies_sent = 5;
    books.0.kernel.net.syncookies_received = 5;
    books.0.kernel.net.embryonic_resets = 0;
    let ledger = settled(&books);
    assert!(ledger.balances() && ledger.terms.phantoms_derived, "{ledger:?}");
    assert_eq!(ledger.terms.phantoms, 10);
    assert!(equation(&ledger, 5).starts_with("not applicable"));
}

#[test]
fn a_closed_listener_may_have_taken_some_along_and_that_is_said() {
    let mut books = books();
    books.0.listeners[0].retired = true;
    assert!(equation(&settled(&books), 3).starts_with("accepted or destroyed with its listener 790 ="));
}
