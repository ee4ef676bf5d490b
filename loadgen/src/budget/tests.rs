//! The arithmetic, on the facts of a machine as it comes.

use super::*;

fn opts(change: impl FnOnce(&mut Opts)) -> Opts {
    let mut opts = Opts { close: Close::Fin, ..Opts::default() };
    change(&mut opts);
    opts
}

fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

/// 20 000/s for a minute with FIN.
fn minute(opts: &mut Opts) {
    opts.rate = text("20000");
    opts.duration = text("60s");
}

/// A figure within a thousandth.
fn about(figure: Option<u64>, expected: u64) {
    let figure = figure.expect("a figure");
    assert!(figure.abs_diff(expected) <= expected / 1000 + 1, "{figure} is not about {expected}");
}

#[test]
fn one_source_on_a_link_runs_out_in_the_second_second() {
    let budget = Budget::of(&opts(minute), &Facts::default());
    assert_eq!((budget.ports, budget.rest, budget.rests), (Some(28_232), Rest::TimeWait, Span::from_secs(60)));
    assert!((budget.sustained_rate.expect("a limit") - 470.5).abs() < 0.1, "{budget:?}");
    assert_eq!(budget.planned, Some(1_200_000));
    about(budget.ports_run_out_after.map(|span| span.as_ns() / 1_000_000), 1412);
    about(budget.no_ports_expected, 1_200_000 - 28_232);
    about(Some(budget.ports_needed), 1_200_000);
    let warnings = budget.warnings(&opts(minute));
    let ports = warnings.iter().find(|warning| warning.code == "ports").expect("a warning");
    assert!(
        ports.cause.contains("if the client closes first, each attempt takes its port for 1m (TIME_WAIT)"),
        "{ports}"
    );
    assert!(ports.cause.contains("28232 ports towards the target, enough for 471 attempts/s"), "{ports}");
    assert!(ports.cause.contains("they run out 1.41"), "{ports}");
    assert!(ports.cause.contains("of 1200000 attempts get no-ports, late"), "{ports}");
    assert!(ports.hint.contains("give 43 or more --sources"), "{ports}");
}

#[test]
fn a_network_of_sources_has_ports_for_a_minute_but_not_buckets() {
    let facts = Facts { sources: 62, ..Facts::default() };
    let budget = Budget::of(&opts(minute), &facts);
    assert_eq!((budget.ports, budget.no_ports_expected), (Some(62 * 28_232), Some(0)));
    assert_eq!(budget.ports_run_out_after, None);
    about(Some(budget.time_waits), 1_200_000);
    // 131 072 at 20 000/s.
    about(budget.time_wait_overflows_after.map(|span| span.as_ns() / 1_000_000), 6554);
    let codes: Vec<String> = budget.warnings(&opts(minute)).into_iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["descriptors", "time-wait-limit"]);
    let raised = Budget::of(&opts(minute), &Facts { time_wait_limit: 2_000_000, ..facts });
    assert_eq!(raised.time_wait_overflows_after, None);
}

#[test]
fn fewer_buckets_than_ports_never_run_out_of_ports() {
    let facts = Facts { time_wait_limit: 10, ports_per_source: Some(50), ..Facts::default() };
    let budget = Budget::of(&opts(|_| ()), &facts);
    assert_eq!((budget.no_ports_expected, budget.sustained_rate), (Some(0), None));
    assert!(budget.time_wait_overflows_after.is_some_and(|after| after <= Span::from_millis(70)), "{budget:?}");
}

#[test]
fn time_wait_costs_what_the_kernels_rule_says() {
    let rest = |close, change: fn(&mut Facts)| {
        let mut facts = Facts::default();
        change(&mut facts);
        let budget = Budget::of(&opts(|opts| opts.close = close), &facts);
        (budget.rest, budget.rests.to_string())
    };
    let minute = (Rest::TimeWait, "1m".to_owned());
    let second = (Rest::Reused, "1s".to_owned());
    assert_eq!(rest(Close::Reset, |_| ()), (Rest::None, "0".to_owned()));
    assert_eq!(rest(Close::Fin, |_| ()), minute);
    assert_eq!(rest(Close::Shutdown, |_| ()), minute);
    assert_eq!(rest(Close::Fin, |facts| facts.loopback = true), second);
    assert_eq!(rest(Close::Fin, |facts| facts.reuse = Reuse::Everywhere), second);
    let quick = |facts: &mut Facts| {
        facts.loopback = true;
        facts.reuse_delay = Span::from_millis(200);
    };
    assert_eq!(rest(Close::Fin, quick), (Rest::Reused, "200ms".to_owned()));
    let never = |facts: &mut Facts| {
        facts.loopback = true;
        facts.reuse = Reuse::Never;
    };
    assert_eq!(rest(Close::Fin, never), minute);
    let unstamped = |facts: &mut Facts| {
        facts.loopback = true;
        facts.timestamps = false;
    };
    assert_eq!(rest(Close::Fin, unstamped), minute);
}

#[test]
fn ports_that_come_back_are_counted_again() {
    // 200 ports, 2000/s for 1.5 s: 200 at once, 200 after a second.
    let facts = Facts { loopback: true, ports_per_source: Some(200), ..Facts::default() };
    let load = opts(|opts| {
        opts.rate = text("2000");
        opts.duration = text("1500ms");
    });
    let budget = Budget::of(&load, &facts);
    about(budget.no_ports_expected, 2600);
    about(budget.ports_run_out_after.map(|span| span.as_ns() / 1_000_000), 100);
    assert!((budget.sustained_rate.expect("a limit") - 200.0).abs() < 1e-9);
    about(Budget::of(&load, &Facts { loopback: false, ..facts.clone() }).no_ports_expected, 2800);
    assert_eq!(Budget::of(&load, &Facts { sources: 30, ..facts }).no_ports_expected, Some(0));
}

#[test]
fn every_arrival_process_is_integrated() {
    let facts = Facts { ports_per_source: Some(200), ..Facts::default() };
    let expected = |arrivals: &str| {
        let load = opts(|opts| {
            opts.arrivals = text(arrivals);
            opts.rate = text("400");
            opts.duration = text("2s");
        });
        let budget = Budget::of(&load, &facts);
        (budget.planned, budget.no_ports_expected, budget.ports_run_out_after.map(|span| span.as_ns() / 1_000_000))
    };
    assert_eq!(expected("constant"), (Some(800), Some(600), Some(500)));
    assert_eq!(expected("poisson"), (Some(800), Some(600), Some(500)));
    let (planned, none, after) = expected("burst:150/600ms");
    assert_eq!((planned, none), (Some(600), Some(400)));
    assert!(after.is_some_and(|ms| (599..=602).contains(&ms)), "in the second burst: {after:?}");
    // 100 in the first second; the ramp has 100 t + 100 t² more.
    let (planned, none, after) = expected("profile:100x1s,ramp:100-300x1s");
    assert_eq!((planned, none), (Some(300), Some(100)));
    assert!(after.is_some_and(|ms| (1615..=1621).contains(&ms)), "{after:?}");
    assert_eq!(expected("closed:8"), (None, None, None), "its rate is the server's");
}

#[test]
fn an_endless_run_says_when_and_not_how_many() {
    let budget = Budget::of(&opts(|opts| opts.duration = text("forever")), &Facts::default());
    about(budget.ports_run_out_after.map(|span| span.as_ns() / 1_000_000), 28_232);
    assert_eq!((budget.planned, budget.no_ports_expected, budget.no_ports_at_most), (None, None, None));
    assert!(
        budget.warnings(&opts(|_| ()))[0].cause.contains("they run out 28.2"),
        "{:?}",
        budget.warnings(&opts(|_| ()))
    );
}

#[test]
fn a_long_run_is_a_matter_of_its_rate() {
    let day = opts(|opts| {
        opts.duration = text("24h");
        opts.rate = text("600");
    });
    let budget = Budget::of(&day, &Facts::default());
    // Every minute 28 232 of 36 000 find a port.
    let expected = 1440 * (36_000 - 28_232);
    let off = budget.no_ports_expected.expect("a figure").abs_diff(expected);
    assert!(off < expected / 100, "{budget:?}");
}

#[test]
fn a_run_of_weeks_is_reckoned_in_no_time() {
    let facts = Facts { loopback: true, ports_per_source: Some(100), ..Facts::default() };
    let budget = Budget::of(&opts(|opts| (opts.duration, opts.rate) = (text("720h"), text("200"))), &facts);
    let off = budget.no_ports_expected.expect("a figure").abs_diff(2_592_000 * 100);
    assert!(off < 2_592_000 * 100 / 20, "{budget:?}");
}

#[test]
fn held_connections_hold_ports_and_descriptors() {
    let facts = Facts { ports_per_source: Some(100), ..Facts::default() };
    let reset = |change: fn(&mut Opts)| {
        opts(|opts| {
            (opts.close, opts.rate, opts.duration) = (Close::Reset, text("100"), text("4s"));
            opts.deadline = text("500ms");
            change(opts);
        })
    };
    let held = reset(|opts| opts.hold = text("2s"));
    let budget = Budget::of(&held, &facts);
    // In each 2 s 100 of 200 find a port.
    about(budget.no_ports_expected, 200);
    assert_eq!((budget.held, budget.sustained_rate), (200, Some(50.0)));
    let warning = &budget.warnings(&held)[0];
    assert!(warning.cause.contains("each attempt holds its port for 2s"), "{warning}");

    let kept = reset(|opts| opts.keep = "150".parse().ok());
    let budget = Budget::of(&kept, &facts);
    about(budget.no_ports_expected, 300);
    assert_eq!(budget.held, 150);
    assert_eq!(budget.max_in_flight(&kept), 20_000 - RESERVED_FDS - 150, "the kept have descriptors");
    assert!(budget.warnings(&kept)[0].cause.contains("150 connections are held open"));
}

#[test]
fn unanswered_attempts_hold_their_ports_until_the_deadline() {
    let facts = Facts { ports_per_source: Some(10), ..Facts::default() };
    let load = opts(|opts| {
        (opts.close, opts.arrivals) = (Close::Reset, text("burst:30/10s"));
        opts.deadline = text("300ms");
    });
    let budget = Budget::of(&load, &facts);
    assert_eq!((budget.no_ports_expected, budget.no_ports_at_most), (Some(0), Some(20)));
    let warning = &budget.warnings(&load)[0];
    assert!(warning.cause.contains("have 10 ports") || warning.cause.contains("has 10 ports"), "{warning}");
    // What is shed takes no port.
    let bounded = Opts { max_in_flight: text("8"), ..load };
    assert_eq!(Budget::of(&bounded, &facts).no_ports_at_most, Some(0));
}

#[test]
fn what_an_earlier_run_left_is_missing() {
    let facts = Facts { ports_per_source: Some(200), leftover: 150, ..Facts::default() };
    let load = opts(|opts| (opts.rate, opts.duration) = (text("100"), text("1s")));
    let budget = Budget::of(&load, &facts);
    about(budget.no_ports_expected, 50);
    let codes: Vec<String> = budget.warnings(&load).into_iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["ports", "time-wait-leftover"]);
}

#[test]
fn what_was_foretold_stands_beside_what_happened() {
    let budget = Budget::of(&opts(minute), &Facts::default());
    let said = budget.beside(1_200_000, 1_171_700).expect("something");
    assert!(
        said.starts_with("no-ports 1171700, foretold 11717") && said.ends_with("if the client closes first"),
        "{said}"
    );
    assert!(budget.beside(1_200_000, 0).is_some_and(|said| said.ends_with("none, as when the server closes first")));
    assert_eq!(budget.beside(7, 0), None, "ended early");
    let reset = Budget::of(&opts(|opts| opts.close = Close::Reset), &Facts::default());
    assert_eq!(reset.beside(10_000, 0), None);
}

#[test]
fn a_shard_needs_its_part() {
    let load = opts(|opts| {
        minute(opts);
        opts.shard = "1/4".parse().ok();
    });
    let budget = Budget::of(&load, &Facts::default());
    assert_eq!(budget.planned, Some(300_000));
    about(budget.no_ports_expected, 300_000 - 28_232);
}
