//! Connections that stay open after their verdict.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::support::*;
use loadgen::opts::{Close, Confirm, Engine, RunTime};
use loadgen::{Snapshot, Verdict};
use telemetry::namespace::Detail;

/// Greets, and returns when the client has ended.
fn greet_and_wait(connection: &TcpStream) {
    greet(connection);
    let _ = drain(connection);
}

with_both_engines! {
    fn connections_are_held_as_long_as_asked(engine) {
        let held: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let seen = Arc::clone(&held);
        let server = serve(nobody(), move |connection| {
            let greeted = Instant::now();
            greet_and_wait(&connection);
            seen.lock().expect("a lock").push(greeted.elapsed());
        });
        let generator = start(opts(engine, nobody(), |opts| opts.hold = "3s".parse().expect("a time")));
        let observer = generator.observer();
        until("all are held", || observer.snapshot(Detail::Books).holding == PLANNED);
        // Both ends of each.
        assert_eq!(sockets("established"), 2 * PLANNED);
        let books = end(generator);
        all(&books, Verdict::Served);
        assert_eq!(books.measured.held_lost, 0);
        done(&server, PLANNED);
        let held = held.lock().expect("a lock");
        assert!(held.iter().all(|held| *held >= Duration::from_secs(3)), "{held:?}");
        assert_eq!((counters().resets_sent, sockets("established")), (PLANNED, 0));
    }

    fn a_connection_is_held_without_a_word(engine) {
        // The server's bytes, which nobody waits for, are not its end.
        let server = serve(nobody(), |connection| greet_and_wait(&connection));
        let books = run(opts(engine, nobody(), |opts| {
            opts.confirm = Confirm::None;
            opts.hold = "500ms".parse().expect("a time");
        }));
        all(&books, Verdict::Connected);
        assert_eq!((books.measured.held_lost, books.measured.abrupt), (0, 0));
        done(&server, PLANNED);
    }

    fn no_more_are_kept_than_asked(engine) {
        let open = Arc::new(AtomicU64::new(0));
        let (most, now) = (Arc::new(AtomicU64::new(0)), Arc::clone(&open));
        let seen = Arc::clone(&most);
        let server = serve(nobody(), move |connection| {
            seen.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
            greet_and_wait(&connection);
            now.fetch_sub(1, Ordering::AcqRel);
        });
        leaves_no_descriptor(|| {
            // Slots of connections that end are taken again at once.
            let generator = start(opts(engine, nobody(), |opts| {
                opts.keep = "8".parse().ok();
                opts.rate = "2000".parse().expect("a rate");
                opts.duration = "1s".parse().expect("a time");
            }));
            let observer = generator.observer();
            let mut last = Snapshot::default();
            while !last.finished {
                last = observer.snapshot(Detail::Books);
                // A worker has one more than its part while it ends the oldest.
                assert!(last.holding <= 8 + 2, "{}", last.holding);
                std::thread::sleep(Duration::from_millis(5));
            }
            let books = end(generator);
            let measured = &books.measured;
            assert_eq!((measured.planned, measured.verdict(Verdict::Served)), (2000, 2000), "{:?} {:?}", measured.verdicts, measured.other_errnos);
            assert_eq!((measured.held_lost, measured.before_syn), (0, 0));
            done(&server, 2000);
        });
        assert!(most.load(Ordering::Acquire) >= 8);
        assert_eq!((counters().active_opens, counters().passive_opens, sockets("established")), (2000, 2000, 0));
    }

    fn what_is_kept_is_not_in_flight(engine) {
        let server = serve(nobody(), |connection| greet_and_wait(&connection));
        let books = run(opts(engine, nobody(), |opts| {
            opts.rate = "400".parse().expect("a rate");
            opts.keep = "100".parse().ok();
            opts.max_in_flight = "60".parse().expect("a count");
        }));
        let measured = &books.measured;
        assert_eq!((measured.verdict(Verdict::Served), measured.verdict(Verdict::Shed)), (80, 0), "{:?}", measured.verdicts);
        done(&server, 80);
    }

    fn what_the_other_side_ends_is_lost_and_its_slot_free(engine) {
        let server = serve(nobody(), |connection| greet(&connection));
        let books = run(opts(engine, nobody(), |opts| {
            opts.arrivals = "closed:2".parse().expect("arrivals");
            opts.hold = "60s".parse().expect("a time");
        }));
        let measured = &books.measured;
        assert!(measured.planned > 10, "held slots would be two: {measured:?}");
        assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
        assert_eq!(measured.held_lost, measured.planned);
        done(&server, measured.planned);
    }

    fn a_stop_ends_what_is_held(engine) {
        let server = serve(nobody(), |connection| greet_and_wait(&connection));
        leaves_no_descriptor(|| {
            let generator = start(opts(engine, nobody(), |opts| {
                opts.hold = "1h".parse().expect("a time");
                opts.duration = RunTime::Forever;
                opts.rate = "500".parse().expect("a rate");
            }));
            let observer = generator.observer();
            until("some are held", || observer.snapshot(Detail::Books).holding >= 20);
            generator.stop_issuing();
            let books = end(generator);
            let measured = &books.measured;
            assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
            done(&server, measured.planned);
        });
    }

    fn a_stop_wakes_a_worker_that_has_nothing_to_do(engine) {
        let server = serve(nobody(), |connection| greet_and_wait(&connection));
        leaves_no_descriptor(|| {
            let generator = start(opts(engine, nobody(), |opts| {
                opts.arrivals = "burst:2/1h".parse().expect("arrivals");
                opts.duration = RunTime::Forever;
            }));
            done(&server, 2);
            generator.stop_issuing();
            let books = end(generator);
            assert_eq!((books.measured.planned, books.measured.verdict(Verdict::Served)), (2, 2));
        });
    }

    fn a_held_connection_ends_by_shutdown(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            assert_eq!(drain(&connection).expect("a FIN"), 0);
        });
        let books = run(opts(engine, nobody(), |opts| {
            opts.hold = "100ms".parse().expect("a time");
            opts.close = Close::Shutdown;
        }));
        all(&books, Verdict::Served);
        assert_eq!(books.measured.held_lost, 0);
        done(&server, PLANNED);
        ended_in_order(PLANNED);
    }
}
