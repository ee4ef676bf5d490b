use loadgen::verdict::Verdict;

use super::*;
use crate::testing;
use crate::window::Twice;

/// A window in which the balanced books of a trial were counted, on top of the same once more. Nothing moved while
/// they were read.
struct Window {
    server: Between<server::Snapshot>,
    loadgen: Between<loadgen::Snapshot>,
}

fn twice<T: Clone>(books: T) -> Twice<T> {
    Twice { first: books.clone(), second: books }
}

fn window() -> Window {
    let trial = testing::trial(0);
    let (mut server, mut loadgen) = (trial.server.clone(), trial.loadgen.clone());
    server.absorb(&trial.server);
    loadgen.absorb(&trial.loadgen);
    Window {
        server: Between { begin: twice(trial.server), end: twice(server) },
        loadgen: Between { begin: twice(trial.loadgen), end: twice(loadgen) },
    }
}

impl Window {
    fn balance(&self) -> (Ledger, Vec<Warning>) {
        balance(&self.server, std::slice::from_ref(&self.loadgen))
    }

    fn line(&self, number: u8) -> Line {
        self.balance().0.lines.into_iter().find(|line| line.number == number).unwrap()
    }
}

#[test]
fn a_window_of_balanced_books_balances_on_the_lines_it_can_tell() {
    let (ledger, warnings) = window().balance();
    let lines: Vec<(u8, i64)> = ledger.lines.iter().map(|line| (line.number, line.residual)).collect();
    assert_eq!(lines, [(1, 0), (2, 0), (3, 0), (7, 0)]);
    assert!(ledger.balances() && warnings.is_empty());
    assert_eq!(ledger.terms, Terms::default(), "phantoms and the rest are not claimed");
    let json = serde_json::to_string(&ledger).unwrap();
    assert!(!json.contains("phantoms"), "{json}");
    assert_eq!(serde_json::from_str::<Ledger>(&json).unwrap(), ledger);
}

#[test]
fn attempts_under_way_at_either_end_are_a_term() {
    let mut window = window();
    for reading in [&mut window.loadgen.begin.first, &mut window.loadgen.begin.second] {
        reading.connecting = 4;
        *reading.measured.verdicts.get_mut(&Verdict::Served).unwrap() -= 4;
    }
    let line = window.line(1);
    assert_eq!((line.residual, line.balances()), (0, true));
    assert_eq!(line.equation, "planned 1000 = verdicts 1004 + Δ in flight -4");
}

#[test]
fn what_moved_while_it_was_read_is_allowed_and_not_more() {
    let mut window = window();
    // One worker, two moments.
    assert_eq!(window.line(1).allowance, 2);
    window.loadgen.end.second.measured.planned += 5;
    window.loadgen.end.second.measured.established += 2;
    *window.loadgen.end.second.measured.verdicts.get_mut(&Verdict::Served).unwrap() += 1;
    let allowance = 2 + 5 + 2 + 1;
    for (lost, balances) in [(allowance, true), (allowance + 1, false)] {
        for reading in [&mut window.loadgen.end.first, &mut window.loadgen.end.second] {
            reading.measured.verdicts.insert(Verdict::TimedOut, 400 - lost);
        }
        let line = window.line(1);
        assert_eq!((line.residual, line.allowance), (i64::try_from(lost).unwrap(), allowance));
        assert_eq!((line.balances(), window.balance().0.balances()), (balances, balances));
        assert_eq!(line.imbalance() == 0, balances);
    }
}

#[test]
fn an_open_the_kernel_never_saw_is_a_residual_and_one_of_another_program_is_not() {
    let mut window = window();
    let opens = |window: &mut Window, more: u64, fewer: u64| {
        for reading in [&mut window.loadgen.end.first, &mut window.loadgen.end.second] {
            reading.kernel.net.active_opens = reading.kernel.net.active_opens + more - fewer;
        }
        for reading in [&mut window.server.end.first, &mut window.server.end.second] {
            reading.kernel.net.passive_opens = reading.kernel.net.passive_opens + more - fewer;
        }
    };
    opens(&mut window, 30, 0);
    let (ledger, warnings) = window.balance();
    assert!(ledger.balances() && warnings.is_empty(), "scrapes and health checks: {warnings:?}");
    assert!(ledger.lines[1].equation.ends_with("+ others 30"), "{}", ledger.lines[1].equation);

    opens(&mut window, 0, 33);
    // Nothing moved: only the workers and the acceptor may be between two counters.
    assert_eq!((window.line(2).residual, window.line(2).balances()), (-3, false));
    assert_eq!((window.line(3).residual, window.line(3).balances()), (-3, false));
}

#[test]
fn many_connections_of_others_are_warned_of() {
    let mut window = window();
    window.server.end.first.kernel.net.passive_opens += 900;
    window.server.end.second.kernel.net.passive_opens += 900;
    let (ledger, warnings) = window.balance();
    assert!(ledger.balances());
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.cause.starts_with("900 connections of other programs in the server's"), "{warning}");
}

#[test]
fn a_queue_that_grew_within_the_window_is_a_term() {
    let mut window = window();
    for reading in [&mut window.server.end.first, &mut window.server.end.second] {
        reading.listeners[0].depth = 40;
        reading.kernel.net.passive_opens += 40;
    }
    assert_eq!((window.line(3).residual, window.line(3).balances()), (0, true));
    assert!(window.line(3).equation.contains("+ Δ depth 40 +"), "{}", window.line(3).equation);
}

#[test]
fn batches_may_lag_behind_accepts_but_not_lead() {
    let mut window = window();
    window.server.end.first.acceptors[0].accepts += 500;
    window.server.end.second.acceptors[0].accepts += 500;
    assert!(window.line(7).balances(), "a batch of 500 that is not over");
    window.server.end.first.acceptors[0].accepts -= 501;
    window.server.end.second.acceptors[0].accepts -= 501;
    assert_eq!((window.line(7).residual, window.line(7).balances()), (-1, false));
}

#[test]
fn without_the_kernels_counters_their_lines_are_left_out() {
    let mut window = window();
    window.server.end.first.kernel.sources =
        vec![telemetry::namespace::SourceReading { name: "netstat".to_owned(), up: false, seconds: 0.0 }];
    let numbers: Vec<u8> = window.balance().0.lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, [1, 2, 7]);
}

#[test]
fn several_generators_are_summed() {
    let window = window();
    let (ledger, _) = balance(&window.server, &[window.loadgen.clone(), window.loadgen.clone()]);
    assert_eq!(ledger.lines[0].equation, "planned 2000 = verdicts 2000 + Δ in flight 0");
    assert!(ledger.balances());
}
