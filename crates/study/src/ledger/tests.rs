use loadgen::opts::Confirm;

use super::*;
use crate::results::Trial;
use crate::testing;

mod half_open;

/// The books of a balanced trial after `bend`.
fn settled(bend: impl FnOnce(&mut Trial)) -> Ledger {
    let mut trial = testing::trial(0);
    bend(&mut trial);
    balance(&trial.server, &trial.loadgen, trial.topology)
}

/// The only lines that do not balance, with their residuals.
fn residuals(ledger: &Ledger) -> Vec<(u8, i64)> {
    ledger.lines.iter().filter(|line| line.residual != 0).map(|line| (line.number, line.residual)).collect()
}

/// Lets only this many of 1000 attempts connect; 780 are served.
fn established(trial: &mut Trial, connected: u64) {
    let cohort = &mut trial.loadgen.measured;
    cohort.established = connected;
    cohort.verdicts.insert(Verdict::Unserved, connected - 780);
    cohort.verdicts.insert(Verdict::TimedOut, 1000 - connected);
}

/// Sends cookies: phantoms leave no request socket.
fn with_cookies(trial: &mut Trial, sent: u64, received: u64) {
    trial.server.kernel.net.syncookies_sent = sent;
    trial.server.kernel.net.syncookies_received = received;
    trial.server.kernel.net.embryonic_resets = 0;
}

#[test]
fn an_overloaded_trial_without_cookies_balances_on_all_seven_lines() {
    let ledger = settled(|_| ());
    assert_eq!(residuals(&ledger), []);
    assert!(ledger.balances());
    assert_eq!(ledger.worst(), None);
    assert_eq!((ledger.terms.phantoms, ledger.terms.entered, ledger.terms.too_late), (10, 790, 10));
    assert!(!ledger.terms.phantoms_derived);
    let numbers: Vec<u8> = ledger.lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(ledger.lines[2].equation, "PassiveOpens(server) 790 = accepted 790 + left 0 + destroyed 0 + raced 0");
    assert_eq!(ledger.lines[3].equation, "established 800 + reset at connect 0 = entered 790 + phantoms 10 − ghosts 0");
    assert!(ledger.lines.iter().all(|line| !line.derived));
}

#[test]
fn warm_up_and_measured_phase_are_settled_together() {
    let ledger = settled(|trial| {
        let moved = &mut trial.loadgen.warm_up;
        (moved.planned, moved.issued, moved.established) = (100, 100, 100);
        moved.verdicts.insert(Verdict::Served, 100);
        let cohort = &mut trial.loadgen.measured;
        (cohort.planned, cohort.issued, cohort.established) = (900, 900, 700);
        cohort.verdicts.insert(Verdict::Served, 680);
    });
    assert_eq!(residuals(&ledger), []);
}

#[test]
fn line_1_fails_when_an_attempt_has_no_verdict() {
    let ledger = settled(|trial| {
        trial.loadgen.measured.verdicts.insert(Verdict::TimedOut, 197);
    });
    assert_eq!(residuals(&ledger), [(1, 3)]);
    assert_eq!(ledger.residual(1), Some(3));
    assert_eq!(ledger.residual(8), None);
}

#[test]
fn line_2_leaves_out_attempts_that_failed_before_a_syn() {
    let no_ports = |before_syn: u64| {
        move |trial: &mut Trial| {
            trial.loadgen.measured.before_syn = before_syn;
            trial.loadgen.kernel.net.active_opens = 950;
        }
    };
    assert_eq!(residuals(&settled(no_ports(50))), []);
    assert_eq!(residuals(&settled(no_ports(40))), [(2, -10)]);
}

#[test]
fn a_self_connect_is_an_open_without_an_entry() {
    let ledger = settled(|trial| {
        trial.loadgen.measured.planned += 1;
        trial.loadgen.measured.issued += 1;
        trial.loadgen.measured.verdicts.insert(Verdict::SelfConnect, 1);
        trial.loadgen.kernel.net.active_opens += 1;
    });
    assert_eq!(residuals(&ledger), []);
}

#[test]
fn line_3_counts_what_was_left_and_what_was_destroyed() {
    let ledger = settled(|trial| {
        trial.server.acceptors[0].accepts = 770;
        trial.server.acceptors[0].greetings = 770;
        trial.server.batch = telemetry::histogram::HistogramSnapshot::default();
        trial.server.batch.record(770);
        trial.loadgen.measured.verdicts.insert(Verdict::Served, 760);
        trial.loadgen.measured.verdicts.insert(Verdict::Unserved, 32);
        trial.loadgen.measured.verdicts.insert(Verdict::Reset, 8);
        trial.server.listeners[0].left = 12;
        trial.server.listeners[0].destroyed = 8;
    });
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.left, ledger.terms.destroyed), (12, 8));
}

#[test]
fn line_3_calls_a_lost_entry_a_residual_when_the_client_waits_for_the_greeting() {
    let ledger = settled(|trial| trial.server.kernel.net.passive_opens = 793);
    assert_eq!(residuals(&ledger), [(3, 3)]);
    assert_eq!(ledger.terms.raced, 0);
}

#[test]
fn raced_is_bounded_by_the_attempts_closed_right_after_connecting() {
    let ledger = settled(|trial| {
        trial.server.kernel.net.passive_opens = 793;
        trial.server.kernel.net.embryonic_resets = 8;
        trial.loadgen.measured.abrupt = 2;
    });
    assert_eq!(ledger.terms.raced, 2);
    assert_eq!(residuals(&ledger), [(3, 1)]);
}

#[test]
fn line_3_names_raced_when_the_client_may_send_and_refuses_a_negative_one() {
    let without_greeting = |opens: u64, resets: u64| {
        move |trial: &mut Trial| {
            trial.loadgen.measured.abrupt = 800;
            trial.loadgen.measured.verdicts.insert(Verdict::Connected, 800);
            trial.loadgen.measured.verdicts.insert(Verdict::Served, 0);
            trial.loadgen.measured.verdicts.insert(Verdict::Unserved, 0);
            trial.server.kernel.net.passive_opens = opens;
            trial.server.kernel.net.embryonic_resets = resets;
        }
    };
    let ledger = settled(without_greeting(797, 3));
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.raced, ledger.terms.entered, ledger.terms.phantoms), (7, 797, 3));
    assert_eq!(residuals(&settled(without_greeting(788, 10))), [(3, -2)]);
}

/// An acceptor was killed: what it may have lost is bounded by `at_most`, and the kernel counted `opens` entries.
fn killed(at_most: u64, opens: u64) -> impl FnOnce(&mut Trial) {
    move |trial| {
        trial.server.acceptors[0].lost_at_most = at_most;
        trial.server.kernel.net.passive_opens = opens;
        // Who was lost is no phantom.
        trial.server.kernel.net.embryonic_resets -= opens - 790;
    }
}

#[test]
fn a_connection_lost_with_its_process_balances_and_is_named() {
    let ledger = settled(killed(1, 791));
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.lost, ledger.terms.raced, ledger.terms.entered, ledger.terms.phantoms), (1, 0, 791, 9));
    let line = &ledger.lines[2].equation;
    assert_eq!(
        line,
        "PassiveOpens(server) 791 = accepted 790 + left 0 + destroyed 0 + lost with the process 1 + raced 0"
    );
    let ledger = settled(killed(1, 790));
    assert_eq!((residuals(&ledger), ledger.terms.lost), (vec![], 0), "a kill need not lose anything");
    assert!(ledger.lines[2].equation.contains("lost with the process 0"), "{}", ledger.lines[2].equation);
    assert!(!settled(|_| ()).lines[2].equation.contains("lost"), "nobody was killed");
}

#[test]
fn more_lost_than_kills_explain_is_a_residual() {
    let ledger = settled(|trial| trial.server.kernel.net.passive_opens = 791);
    assert_eq!((residuals(&ledger), ledger.terms.lost), (vec![(3, 1)], 0), "nobody was killed");
    let ledger = settled(|trial| {
        killed(1, 793)(trial);
        trial.server.kernel.net.embryonic_resets = 9;
    });
    assert_eq!((residuals(&ledger), ledger.terms.lost), (vec![(3, 2)], 1));
}

#[test]
fn lost_comes_before_raced() {
    let ledger = settled(|trial| {
        killed(2, 793)(trial);
        trial.loadgen.measured.abrupt = 5;
    });
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.lost, ledger.terms.raced, ledger.terms.entered), (2, 1, 793));
}

#[test]
fn line_6_forgives_a_byte_sent_by_a_process_that_died_before_it_counted_it() {
    let greeted = |greetings: u64, at_most: u64| {
        move |trial: &mut Trial| {
            trial.server.acceptors[0].greetings = greetings;
            trial.server.acceptors[0].lost_at_most = at_most;
        }
    };
    assert_eq!(residuals(&settled(greeted(779, 1))), []);
    assert_eq!(residuals(&settled(greeted(778, 1))), [(6, 1)]);
    assert_eq!(residuals(&settled(greeted(779, 0))), [(6, 1)]);
    let line = &settled(greeted(779, 1)).lines[5].equation;
    assert!(line.contains("answered 779 (+ at most 1 uncounted) ≤ accepted 790 + lost with the process 0"), "{line}");
}

#[test]
fn an_answer_is_a_greeting_or_a_reply() {
    let answered = |greetings: u64, replies: u64| {
        move |trial: &mut Trial| {
            trial.loadgen.opts.confirm = Confirm::Reply;
            (trial.server.acceptors[0].greetings, trial.server.acceptors[0].replies) = (greetings, replies);
        }
    };
    assert_eq!(residuals(&settled(answered(0, 785))), []);
    assert_eq!(residuals(&settled(answered(400, 385))), []);
    assert_eq!(residuals(&settled(answered(0, 779))), [(6, 1)]);
    assert_eq!(residuals(&settled(answered(400, 395))), [(6, 5)]);
}

#[test]
fn with_confirm_reply_a_raced_child_has_a_twin_that_counts() {
    let spoken = |opens: u64| {
        move |trial: &mut Trial| {
            trial.loadgen.opts.confirm = Confirm::Reply;
            trial.loadgen.measured.abrupt = 800;
            let acceptor = &mut trial.server.acceptors[0];
            (acceptor.greetings, acceptor.replies) = (0, 790);
            trial.server.kernel.net.passive_opens = opens;
        }
    };
    let ledger = settled(spoken(793));
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.raced, ledger.terms.entered, ledger.terms.phantoms), (3, 790, 10));
    assert_eq!(residuals(&settled(spoken(1591))), [(3, 1)], "at most one for each attempt that spoke");
}

#[test]
fn line_4_fails_when_more_entered_than_clients_connected() {
    let ledger = settled(|trial| {
        established(trial, 785);
        trial.server.kernel.net.embryonic_resets = 0;
    });
    assert_eq!(residuals(&ledger), [(4, -5)]);
    assert_eq!(ledger.terms.phantoms, 0);
}

#[test]
fn a_connect_that_was_reset_counts_as_connected() {
    let ledger = settled(|trial| {
        trial.loadgen.measured.reset_at_connect = 6;
        trial.loadgen.measured.verdicts.insert(Verdict::Reset, 6);
        trial.loadgen.measured.verdicts.insert(Verdict::TimedOut, 194);
        trial.server.kernel.net.embryonic_resets = 16;
    });
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.phantoms, ledger.terms.reset_at_connect), (16, 6));
}

#[test]
fn with_cookies_phantoms_are_derived_and_said_to_be() {
    let ledger = settled(|trial| with_cookies(trial, 40, 40));
    assert_eq!(residuals(&ledger), []);
    assert_eq!(ledger.terms.phantoms, 10);
    assert!(ledger.terms.phantoms_derived);
    assert!(ledger.lines[3].derived && ledger.lines[4].derived);
    assert!(ledger.lines[4].equation.starts_with("not applicable: 40 cookies sent"), "{}", ledger.lines[4].equation);
}

#[test]
fn ghosts_are_bounded_by_stray_cookies() {
    let more_entries = |received: u64| {
        move |trial: &mut Trial| {
            with_cookies(trial, 40, received);
            established(trial, 782);
        }
    };
    let ledger = settled(more_entries(60));
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.ghosts, ledger.terms.stray_cookies, ledger.terms.phantoms), (8, 20, 0));
    let ledger = settled(more_entries(45));
    assert_eq!(residuals(&ledger), [(4, -3)]);
    assert_eq!(ledger.terms.ghosts, 5);
}

#[test]
fn line_5_counts_request_sockets_that_are_still_pending() {
    let ledger = settled(|trial| {
        trial.server.kernel.net.embryonic_resets = 6;
        trial.server.syn_recv = 4;
    });
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.pending, ledger.terms.phantoms), (4, 10));
}

#[test]
fn line_5_fails_when_phantoms_left_no_trace() {
    let ledger = settled(|trial| trial.server.kernel.net.embryonic_resets = 7);
    assert_eq!(residuals(&ledger), [(5, 3)]);
    assert_eq!(ledger.terms.expired, 0);
}

#[test]
fn requests_expire_only_after_their_last_timer() {
    let lasted = |seconds: u64, retries: Option<&'static str>| {
        move |trial: &mut Trial| {
            trial.server.kernel.net.embryonic_resets = 7;
            trial.loadgen.monotonic_ns = trial.loadgen.origin_ns + seconds * 1_000_000_000;
            if let Some(retries) = retries {
                trial.server.kernel.sysctls.insert("net.ipv4.tcp_synack_retries".to_owned(), retries.to_owned());
            }
        }
    };
    let ledger = settled(lasted(8, Some("5")));
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.expired, ledger.terms.phantoms), (3, 10));
    assert_eq!(residuals(&settled(lasted(8, None))), []);
    assert_eq!(residuals(&settled(lasted(6, Some("5")))), [(5, 3)]);
    assert_eq!(residuals(&settled(lasted(4, Some("1")))), [], "one retry: 3.07 s");
    assert_eq!(residuals(&settled(lasted(2, Some("1")))), [(5, 3)]);
    assert_eq!(residuals(&settled(lasted(2, Some("0")))), []);
}

#[test]
fn abandoned_handshakes_are_bounded_by_timed_out_attempts() {
    let ledger = settled(|trial| trial.server.kernel.net.embryonic_resets = 150);
    assert_eq!(residuals(&ledger), []);
    assert_eq!((ledger.terms.abandoned, ledger.terms.phantoms), (140, 10));
    let ledger = settled(|trial| trial.server.kernel.net.embryonic_resets = 215);
    assert_eq!(residuals(&ledger), [(5, -5)]);
    assert_eq!(ledger.terms.abandoned, 200);
}

#[test]
fn line_6_fails_when_somebody_was_served_without_a_greeting() {
    let ledger = settled(|trial| trial.server.acceptors[0].greetings = 778);
    assert_eq!(residuals(&ledger), [(6, 2)]);
    let ledger = settled(|trial| trial.server.acceptors[0].greetings = 795);
    assert_eq!(residuals(&ledger), [(6, 5)]);
}

#[test]
fn line_6_fails_when_more_stayed_unserved_than_phantoms_and_late_ones_explain() {
    let ledger = settled(|trial| {
        trial.loadgen.measured.verdicts.insert(Verdict::Unserved, 26);
        trial.loadgen.measured.verdicts.insert(Verdict::TimedOut, 194);
    });
    assert_eq!(residuals(&ledger), [(6, 6)]);
}

#[test]
fn line_7_fails_when_an_accept_is_in_no_batch() {
    let ledger = settled(|trial| trial.server.batch.record(1));
    assert_eq!(residuals(&ledger), [(7, -1)]);
}

#[test]
fn the_worst_line_is_the_first_of_the_greatest_residuals() {
    let ledger = settled(|trial| {
        trial.loadgen.measured.planned += 2;
        trial.server.batch.record(2);
    });
    assert_eq!(residuals(&ledger), [(1, 2), (7, -2)]);
    assert_eq!(ledger.worst().map(|line| line.name.as_str()), Some("verdicts"));
}

#[test]
fn over_loopback_the_counters_are_called_shared() {
    let ledger = settled(|trial| trial.topology = Topology::Loopback);
    assert!(ledger.lines[1].equation.starts_with("ActiveOpens(shared) 1000"), "{}", ledger.lines[1].equation);
}

#[test]
fn a_ledger_survives_json_with_kebab_case_names() {
    let ledger = settled(|_| ());
    let text = serde_json::to_string(&ledger).unwrap();
    assert!(text.contains("\"phantoms-derived\":false") && text.contains("\"name\":\"request-sockets\""), "{text}");
    assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
}
