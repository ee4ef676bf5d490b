use loadgen::verdict::Verdict;
use proptest::prelude::*;
use telemetry::histogram::HistogramSnapshot;

use super::*;
use crate::testing;

fn histogram(values: &[u64]) -> HistogramSnapshot {
    let mut histogram = HistogramSnapshot::default();
    for value in values {
        histogram.record(*value);
    }
    histogram
}

/// A server with these books; four counts decide everything.
fn server([a, b, c, d]: [u64; 4], times: &[u64]) -> server::Snapshot {
    let mut books = testing::trial(0).server;
    books.acceptors = vec![
        AcceptorCounts {
            accepts: a,
            service_ns: d,
            wakeups_work: b,
            wakeups_empty: c,
            errors: [("EMFILE".to_owned(), d + 1)].into(),
            dead_on_accept: a,
            late_handshakes: b,
            greetings: c,
            closed_by_server: d,
            closed_by_reset: a,
            closed_on_error: b,
            pid: 7,
            deaths: c,
            restarts: d,
            lost_at_most: a,
            pauses: b,
            replies: c,
            closed_by_peer: d,
            closed_by_kill: a,
            forks: b,
            unhandled: 0,
        };
        2
    ];
    let listener = &mut books.listeners[0];
    (listener.full_ns, listener.drops, listener.left, listener.destroyed, listener.relistens) = (a, b, c, d, a);
    (books.batch, books.wait, books.fill) = (histogram(times), histogram(times), histogram(times));
    books.wait_stamped = histogram(times);
    (books.kernel.net.passive_opens, books.kernel.net.listen_overflows, books.sampler_cpu_ns) = (a, b, c);
    books
}

fn loadgen([a, b, c, d]: [u64; 4], times: &[u64]) -> loadgen::Snapshot {
    let mut books = testing::trial(0).loadgen;
    books.measured = PhaseCounts {
        planned: a,
        issued: b,
        before_syn: c,
        established: d,
        reset_at_connect: a,
        closed_without_byte: b,
        abrupt: c,
        syn_retransmits: d,
        early_syn_retransmits: c,
        held_lost: b,
        verdicts: Verdict::ALL.map(|verdict| (verdict, a)).into(),
        other_errnos: [("5".to_owned(), b + 1)].into(),
        lag: histogram(times),
        connect_latency: histogram(times),
        connect_service: vec![histogram(times); 4],
        confirm_latency: histogram(times),
        confirm_service: histogram(times),
    };
    books.warm_up = PhaseCounts { other_errnos: BTreeMap::new(), ..books.measured.clone() };
    (books.kernel.net.active_opens, books.target_changes) = (d, c);
    books
}

/// The greatest value of a window is known to its bucket only.
fn without_greatest(times: &mut HistogramSnapshot) {
    times.max = 0;
}

fn twice<T: Clone>(books: &T) -> Twice<T> {
    Twice { first: books.clone(), second: books.clone() }
}

fn between<T: Clone>(begin: &T, end: &T) -> Between<T> {
    Between { begin: twice(begin), end: twice(end) }
}

proptest! {
    #[test]
    fn what_came_before_and_the_window_make_the_whole_server(
        before: [u32; 4], more: [u32; 4], times in proptest::collection::vec(1..1_000_000_u64, 1..20),
        more_times in proptest::collection::vec(1..1_000_000_u64, 0..20),
    ) {
        let earlier = server(before.map(u64::from), &times);
        let all = [times, more_times].concat();
        let later = server([0, 1, 2, 3].map(|i| u64::from(before[i]) + u64::from(more[i])), &all);
        let mut sum = server_since(&later, &earlier);
        prop_assert_eq!(sum.accepted(), 2 * u64::from(more[0]));
        sum.absorb(&earlier);
        let mut whole = later;
        for books in [&mut sum, &mut whole] {
            [&mut books.batch, &mut books.wait, &mut books.fill].into_iter().for_each(without_greatest);
        }
        prop_assert_eq!(sum, whole);
    }

    #[test]
    fn what_came_before_and_the_window_make_the_whole_generator(
        before: [u32; 4], more: [u32; 4], times in proptest::collection::vec(1..1_000_000_u64, 1..20),
        more_times in proptest::collection::vec(1..1_000_000_u64, 0..20),
    ) {
        let earlier = loadgen(before.map(u64::from), &times);
        let all = [times, more_times].concat();
        let later = loadgen([0, 1, 2, 3].map(|i| u64::from(before[i]) + u64::from(more[i])), &all);
        let mut sum = loadgen_since(&later, &earlier);
        prop_assert_eq!(sum.measured.planned, u64::from(more[0]));
        prop_assert_eq!(sum.origin_ns, earlier.monotonic_ns);
        sum.absorb(&earlier);
        // A window is judged by what happened within it.
        (sum.origin_ns, sum.limits) = (later.origin_ns, later.limits.clone());
        let mut whole = later;
        for books in [&mut sum, &mut whole] {
            for phase in [&mut books.warm_up, &mut books.measured] {
                let single = [&mut phase.lag, &mut phase.connect_latency, &mut phase.confirm_latency, &mut phase.confirm_service];
                single.into_iter().chain(&mut phase.connect_service).for_each(without_greatest);
            }
        }
        prop_assert_eq!(sum, whole);
    }
}

#[test]
fn nothing_between_two_equal_readings_is_nothing() {
    let books = loadgen([9, 8, 7, 6], &[5, 50]);
    let nothing = loadgen_since(&books, &books);
    assert_eq!((nothing.measured.planned, nothing.whole().concluded()), (0, 0));
    assert!(nothing.measured.confirm_latency.is_empty() && nothing.measured.other_errnos.is_empty());
    assert!(nothing.measured.verdicts.contains_key(&Verdict::Served), "every verdict stays present");
}

#[test]
fn a_window_has_no_depths_over_time() {
    let mut books = server([1; 4], &[]);
    books.depths = vec![server::Depths { step_ns: 5, deepest: vec![Some(3)] }];
    assert_eq!(server_since(&books, &books).depths, []);
}

#[test]
fn a_generator_is_judged_by_the_window() {
    let mut early = loadgen([0; 4], &[1]);
    early.measured.lag = histogram(&[500_000_000; 100]);
    early.worker_cpu = vec![WorkerCpu { cpu_ns: 1_000_000_000, ran_ns: 1_000_000_000 }];
    early.limits = judgement::limits(&early);
    assert_eq!(early.limits.len(), 2, "late, and without headroom: {:?}", early.limits);
    let mut late = early.clone();
    late.worker_cpu[0].ran_ns += 9_000_000_000;
    let window = loadgen_since(&late, &early);
    assert_eq!((window.worker_cpu[0].cpu_ns, window.worker_cpu[0].ran_ns), (0, 9_000_000_000));
    assert_eq!(window.limits, [], "all of that came before");
    late.measured.verdicts.insert(Verdict::NoPorts, 3);
    assert_eq!(loadgen_since(&late, &early).limits.len(), 1);
}

#[test]
fn a_restart_is_told_from_a_window() {
    let (early, late) = (server([10; 4], &[1]), server([30; 4], &[1, 2]));
    assert!(!between(&early, &late).restarted());
    assert!(between(&late, &early).restarted(), "counts went down");
    let mut other = late.clone();
    other.kernel.process.start_time_seconds += 5.0;
    assert!(between(&early, &other).restarted(), "a later process, whatever it counted");
    other = late.clone();
    other.opts.backlog += 1;
    assert!(between(&early, &other).restarted(), "other options");

    let (early, mut late) = (loadgen([10; 4], &[1]), loadgen([30; 4], &[1, 2]));
    assert!(!between(&early, &late).restarted());
    late.origin_ns += 1;
    assert!(between(&early, &late).restarted(), "another start");
}

#[test]
fn a_limit_that_changed_within_the_window_is_named_with_both_values() {
    let (early, mut late) = (server([10; 4], &[1]), server([30; 4], &[1]));
    assert_eq!(between(&early, &late).changed_limits(), []);
    late.listeners[0].limit = 4096;
    assert_eq!(between(&early, &late).changed_limits(), [(early.listeners[0].address, 128, 4096)]);
}

#[test]
fn generators_together_are_the_sum_of_their_counts_and_of_what_is_under_way() {
    let (mut a, mut b) = (loadgen([10, 10, 0, 9], &[1]), loadgen([5, 5, 0, 4], &[2]));
    (a.connecting, b.connecting, a.finished, b.finished) = (1, 2, false, true);
    let sum = together([a, b]).unwrap();
    assert_eq!((sum.measured.planned, sum.connecting, sum.workers, sum.finished), (15, 3, 2, false));
    assert_eq!((sum.kernel.net.active_opens, sum.measured.lag.count), (13, 2));
    assert_eq!(sum.target_rate.to_bits(), 2000.0_f64.to_bits());
    assert!(together([]).is_none());
}
