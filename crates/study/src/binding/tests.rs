use loadgen::judgement::LimitKind;
use loadgen::verdict::Verdict;

use super::*;
use crate::results::Topology;
use crate::testing;

/// A trial of 1000 attempts in 1 s of which 200 were lost, with backlog, somaxconn, limit and overflows as asked, and a
/// service time of 1 ms: the acceptor has twice the time it needs for the 1000 that are planned per 2 s.
fn overflowing(backlog: u32, somaxconn: u32, overflows: u64) -> Trial {
    let mut trial = testing::trial(0);
    trial.sysctls.insert("net.core.somaxconn".to_owned(), somaxconn.to_string());
    let listener = &mut trial.server.listeners[0];
    (listener.backlog_requested, listener.limit) = (Some(backlog), backlog.min(somaxconn));
    trial.server.kernel.net.listen_overflows = overflows;
    trial.server.kernel.net.listen_drops = overflows;
    trial.loadgen.opts.duration = "2s".parse().unwrap();
    trial.server.opts.accept_delay = "1ms".parse().unwrap();
    trial.server.acceptors[0].service_ns = 790 * 1_000_000;
    trial
}

fn judge(trial: &Trial) -> (Knob, String) {
    let found = rules::judge(&Facts::of(trial));
    assert!(!found.1.is_empty());
    found
}

fn knob(trial: &Trial) -> Knob {
    judge(trial).0
}

fn all_served(trial: &mut Trial) {
    trial.loadgen.measured.verdicts.extend([(Verdict::Served, 1000), (Verdict::Unserved, 0), (Verdict::TimedOut, 0)]);
}

#[test]
fn the_smaller_of_backlog_and_somaxconn_bound_a_queue_that_overflowed() {
    let (knob_found, evidence) = judge(&overflowing(16, 128, 812));
    assert_eq!(knob_found, Knob::Backlog);
    assert_eq!(
        evidence,
        "overflows 812; limit 16 = min(backlog 16, somaxconn 128); 500 arrivals/s, below the 1000/s that acceptors can serve"
    );
    assert_eq!(knob(&overflowing(128, 16, 812)), Knob::Somaxconn);
    assert_eq!(knob(&overflowing(16, 16, 812)), Knob::BacklogAndSomaxconn);
}

#[test]
fn of_a_target_the_limit_alone_says_what_made_it() {
    let target = |limit, somaxconn| {
        let mut trial = overflowing(limit, somaxconn, 812);
        trial.target = Some(crate::results::Target::default());
        trial.server.acceptors.clear();
        trial.server.opts = server::Opts::default();
        trial.server.listeners[0].backlog_requested = None;
        trial.server.listeners[0].full_ns = 300_000_000;
        judge(&trial)
    };
    let (knob, evidence) = target(511, 4096);
    assert_eq!(knob, Knob::Backlog);
    assert_eq!(evidence, "overflows 812; limit 511 = backlog, below somaxconn 4096; queue full 30.0 % of the time");
    let (knob, evidence) = target(128, 128);
    assert_eq!(knob, Knob::Somaxconn);
    assert!(evidence.contains("limit 128 = somaxconn 128, the backlog is that or more"), "{evidence}");
}

#[test]
fn a_limit_that_neither_of_them_explains_is_not_explained_away() {
    let mut trial = overflowing(4096, 1024, 5);
    trial.server.listeners[0].limit = 128;
    let (knob, evidence) = judge(&trial);
    assert_eq!(knob, Knob::Undetermined);
    assert!(evidence.contains("limit 128, though the backlog is 4096 and somaxconn 1024"), "{evidence}");
}

#[test]
fn without_somaxconn_on_record_only_a_capped_backlog_says_what_bound() {
    let mut trial = overflowing(128, 16, 5);
    trial.sysctls.clear();
    assert_eq!(knob(&trial), Knob::Somaxconn);
    trial.server.listeners[0].limit = 128;
    assert_eq!(knob(&trial), Knob::Undetermined, "somaxconn may be the same or more");
}

#[test]
fn more_arrivals_than_the_acceptor_serves_are_its_fault_whatever_the_queue() {
    let mut trial = overflowing(16, 128, 812);
    trial.server.acceptors[0].service_ns = 790 * 2_000_001;
    let (found, evidence) = judge(&trial);
    assert_eq!(found, Knob::Acceptor);
    assert!(
        evidence.starts_with("500 arrivals/s, at least the 500/s that acceptors can serve; overflows 812"),
        "{evidence}"
    );
    trial.server.opts.acceptors = 2.try_into().unwrap();
    assert_eq!(knob(&trial), Knob::Backlog, "two have the time");
    trial.server.opts.acceptors = 1.try_into().unwrap();
    trial.server.acceptors[0].service_ns = 790 * 1_000_000;
    trial.server.opts.stall = Some("0s+600ms".parse().unwrap());
    assert_eq!(knob(&trial), Knob::Acceptor, "nobody accepted for 600 of 1000 ms");
}

#[test]
fn rates_are_those_of_the_quantities() {
    let mut trial = overflowing(16, 128, 812);
    trial.topology = Topology::Attached;
    trial.timings.load_ms = 1500.0;
    let rates = |trial: &Trial| {
        let of = |name: &str| crate::quantity::Quantity::named(name).unwrap().of(trial);
        let facts = Facts::of(trial);
        assert_eq!((facts.rate, facts.capacity), (of("arrival-rate"), of("service-rate")));
        (facts.rate, facts.capacity)
    };
    assert_eq!(rates(&trial), (Some(500.0), Some(1000.0)), "the window of the generator lasted 2 s");
    trial.server.opts.engine = server::opts::Engine::Blocking;
    trial.server.opts.close = server::opts::Close::Wait;
    assert_eq!(rates(&trial).1, None, "it waits for the client's end, too");
}

#[test]
fn without_a_service_time_the_share_of_time_with_a_full_queue_decides_or_nobody_does() {
    let mut trial = overflowing(16, 128, 812);
    trial.server.opts.accept_delay = server::opts::AcceptDelay::None;
    trial.server.acceptors[0].service_ns = 0;
    for (full_ms, expected) in [(100, Knob::Backlog), (700, Knob::Undetermined), (950, Knob::Acceptor)] {
        trial.server.listeners[0].full_ns = full_ms * 1_000_000;
        assert_eq!(knob(&trial), expected, "full {full_ms} of 1000 ms");
    }
    trial.loadgen.opts.arrivals = "closed:64".parse().unwrap();
    assert_eq!(knob(&trial), Knob::Backlog, "a closed loop has 64 in flight at most");
}

#[test]
fn a_full_syn_queue_and_the_quarter_of_max_syn_backlog_are_told_apart() {
    let mut trial = overflowing(128, 4096, 0);
    trial.sysctls.insert("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned());
    trial.sysctls.insert("net.ipv4.tcp_max_syn_backlog".to_owned(), "64".to_owned());
    trial.server.kernel.net.listen_drops = 150;
    trial.server.syn_recv = 49;
    let (found, evidence) = judge(&trial);
    assert_eq!(found, Knob::MaxSynBacklog);
    assert_eq!(evidence, "150 SYNs dropped at SYN_RECV 49; 3/4 of tcp_max_syn_backlog 64 and one is 49");
    trial.server.kernel.net.request_queue_full_drops = 150;
    assert_eq!(knob(&trial), Knob::SynQueue);
    trial.server.kernel.net.listen_overflows = 151;
    trial.server.kernel.net.listen_drops = 301;
    assert_eq!(knob(&trial), Knob::Backlog, "the accept queue dropped more");
    trial.server.kernel.net.listen_overflows = 0;
    trial.server.kernel.net.request_queue_full_drops = 0;
    trial.sysctls.insert("net.ipv4.tcp_syncookies".to_owned(), "1".to_owned());
    assert_eq!(knob(&trial), Knob::Undetermined, "with cookies that rule drops nothing");
}

#[test]
fn everybody_served_is_bound_by_nothing_unless_somebody_had_to_try_again() {
    let mut trial = overflowing(16, 128, 0);
    all_served(&mut trial);
    trial.server.listeners[0].deepest = 9;
    assert_eq!(judge(&trial), (Knob::Nothing, "1000 of 1000 served, deepest queue 9 of 17".to_owned()));
    trial.loadgen.measured.syn_retransmits = 40;
    trial.loadgen.measured.early_syn_retransmits = 40;
    assert_eq!(knob(&trial), Knob::Nothing, "no timer sent those");
    trial.loadgen.measured.syn_retransmits = 120;
    trial.server.kernel.net.listen_overflows = 80;
    let (found, evidence) = judge(&trial);
    assert_eq!(found, Knob::SynRetry);
    assert!(evidence.contains("80 SYNs sent again by their timer; overflows 80; limit 16"), "{evidence}");
}

#[test]
fn a_closed_loop_in_which_all_are_served_is_bound_by_busy_acceptors_or_by_nothing() {
    let mut trial = overflowing(16, 128, 0);
    all_served(&mut trial);
    trial.loadgen.opts.arrivals = "closed:4".parse().unwrap();
    assert_eq!(knob(&trial), Knob::Nothing, "79 % busy");
    trial.server.acceptors[0].service_ns = 950_000_000;
    assert_eq!(knob(&trial), Knob::Acceptor);
    trial.server.acceptors[0].service_ns = 0;
    assert_eq!(knob(&trial), Knob::Undetermined);
}

#[test]
fn who_got_in_too_late_fell_to_the_acceptor_or_to_the_deadline() {
    let mut trial = overflowing(1024, 1024, 0);
    trial.loadgen.measured.verdicts.extend([(Verdict::Served, 600), (Verdict::Unserved, 400), (Verdict::TimedOut, 0)]);
    let (found, evidence) = judge(&trial);
    assert_eq!(found, Knob::Deadline);
    assert!(evidence.starts_with("390 of 1000 got in and no byte within 5s"), "without the 10 phantoms: {evidence}");
    trial.server.acceptors[0].service_ns *= 3;
    assert_eq!(knob(&trial), Knob::Acceptor);
    trial.ledger.terms.phantoms = 300;
    trial.server.kernel.net.listen_overflows = 300;
    trial.server.acceptors[0].service_ns /= 3;
    assert_eq!(knob(&trial), Knob::BacklogAndSomaxconn, "most of them never got in");
}

#[test]
fn the_generators_own_limits_come_first() {
    let mut trial = overflowing(16, 128, 812);
    trial.loadgen.measured.verdicts.insert(Verdict::NoPorts, 3);
    let (found, evidence) = judge(&trial);
    assert_eq!((found, evidence.as_str()), (Knob::ClientPorts, "3 attempts found no free local port"));
    trial.loadgen.measured.verdicts.insert(Verdict::NoPorts, 0);
    for _ in 0..100 {
        trial.loadgen.measured.lag.record(900_000_000);
    }
    assert_eq!(loadgen::judgement::limits(&trial.loadgen)[0].what, LimitKind::Lag);
    assert_eq!(knob(&trial), Knob::Generator);
    let mut trial = overflowing(16, 128, 812);
    trial.loadgen.opts.max_in_flight = "64".parse().unwrap();
    trial.loadgen.measured.verdicts.insert(Verdict::Shed, 7);
    assert_eq!(knob(&trial), Knob::Generator, "asked for, but what bound");
}

#[test]
fn what_no_counter_explains_is_not_determined() {
    let mut trial = overflowing(16, 128, 0);
    assert_eq!(
        judge(&trial),
        (Knob::Undetermined, "220 of 1000 lost, 200 timed out, and no counter of the server says why".to_owned())
    );
    trial.loadgen.measured.verdicts.extend([(Verdict::Refused, 200), (Verdict::TimedOut, 0)]);
    assert!(judge(&trial).1.contains("nobody listened"));
    trial.loadgen.measured.planned = 0;
    assert_eq!(knob(&trial), Knob::Undetermined);
    let mut trial = overflowing(16, 128, 812);
    trial.server.acceptors[0].pauses = 4;
    trial.server.acceptors[0].errors.insert("EMFILE".to_owned(), 4);
    let (found, evidence) = judge(&trial);
    assert_eq!(found, Knob::Acceptor);
    assert!(evidence.contains("4 times (EMFILE)"), "{evidence}");
}

#[test]
fn of_trials_that_agree_the_middle_one_speaks_and_disagreement_is_said() {
    let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "1024"])])]);
    let mut trials = Vec::new();
    for (overflows, lost) in [(10, 100), (90, 900), (50, 500)] {
        let mut trial = overflowing(16, 128, overflows);
        testing::serve(&mut trial, 1000 - lost, 1);
        trials.push(trial);
    }
    let bound = |trials: &[Trial]| of(&design, trials);
    let bindings = bound(&trials);
    assert_eq!(bindings.len(), 1, "cell 1 was not run");
    assert_eq!((bindings[0].knob, bindings[0].trials[&Knob::Backlog]), (Knob::Backlog, 3));
    assert!(bindings[0].evidence.starts_with("overflows 50;"), "{}", bindings[0].evidence);
    all_served(&mut trials[0]);
    let bindings = bound(&trials);
    assert_eq!(bindings[0].knob, Knob::Undetermined);
    assert_eq!(bindings[0].evidence, "the trials disagree: backlog argument in 2, nothing in 1");
    trials[0].invalid.push("residual".to_owned());
    assert_eq!(bound(&trials)[0].knob, Knob::Backlog, "an invalid trial has no voice");
    for trial in &mut trials {
        trial.invalid.push("the generator was the bottleneck".to_owned());
    }
    assert_eq!(bound(&trials)[0].evidence, "no valid trial");
    for trial in &mut trials {
        for _ in 0..100 {
            trial.loadgen.measured.lag.record(900_000_000);
        }
    }
    assert_eq!(bound(&trials)[0].knob, Knob::Generator);
}

#[test]
fn cells_are_summed_up_by_knob_the_most_frequent_first() {
    let binding = |knob| Binding {
        cell: 0,
        name: String::new(),
        knob,
        evidence: "overflows 3".to_owned(),
        trials: BTreeMap::new(),
    };
    let knobs = [Knob::Nothing, Knob::Backlog, Knob::Somaxconn, Knob::Backlog];
    assert_eq!(
        in_words(&knobs.map(binding)).as_deref(),
        Some("backlog argument in 2 cells, somaxconn in 1, nothing in 1")
    );
    assert_eq!(in_words(&[binding(Knob::Backlog)]).as_deref(), Some("backlog argument: overflows 3"));
    assert_eq!(in_words(&[]), None);
}
