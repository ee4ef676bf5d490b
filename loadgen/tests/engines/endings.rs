//! How a connection ends, and what it leaves behind; and sockets that live on.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::*;
use loadgen::opts::{Close, Engine, Sockets};
use loadgen::{Opts, Verdict};
use telemetry::namespace::Detail;

/// One at a time, on a socket that is used again.
fn reused(opts: &mut Opts) {
    opts.sockets = Sockets::Reused;
    opts.arrivals = "closed:1".parse().expect("arrivals");
}

with_both_engines! {
    fn a_fin_leaves_time_wait_with_whom_it_comes_from(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            assert_eq!(drain(&connection).expect("a FIN"), 0);
        });
        let books = run(opts(engine, nobody(), |opts| opts.close = Close::Fin));
        all(&books, Verdict::Served);
        done(&server, PLANNED);
        ended_in_order(PLANNED);
        assert_eq!(counters().passive_opens, PLANNED);
    }

    fn a_shutdown_waits_for_the_servers_fin(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            assert_eq!(drain(&connection).expect("a FIN"), 0);
            std::thread::sleep(Duration::from_millis(50));
            // Half of the connection is open still: its last words are no reset.
            greet(&connection);
        });
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), |opts| opts.close = Close::Shutdown));
            all(&books, Verdict::Served);
            done(&server, PLANNED);
        });
        ended_in_order(PLANNED);
    }

    fn the_deadline_bounds_the_wait_for_a_fin(engine) {
        let kept: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let keeper = Arc::clone(&kept);
        let _server = serve(nobody(), move |connection| {
            greet(&connection);
            keeper.lock().expect("a lock").push(connection);
        });
        let generator = start(opts(engine, nobody(), |opts| {
            opts.close = Close::Shutdown;
            opts.deadline = "5s".parse().expect("a time");
        }));
        let observer = generator.observer();
        until("they wait", || observer.snapshot(Detail::Books).ending == PLANNED);
        until("the last FIN is acknowledged", || (sockets("fin_wait2"), sockets("close_wait")) == (PLANNED, PLANNED));
        all(&end(generator), Verdict::Served);
        assert_eq!(kept.lock().expect("a lock").len(), 40);
    }

    fn a_socket_lives_again_and_again(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            assert!(drain(&connection).is_err(), "a RST ends it");
        });
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), reused));
            let measured = &books.measured;
            assert!(measured.planned > 2, "{measured:?}");
            assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
            done(&server, measured.planned);
            let kernel = counters();
            assert_eq!((kernel.passive_opens, kernel.resets_sent), (measured.planned, measured.planned));
        });
    }

    fn a_socket_that_was_held_lives_again(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            assert!(drain(&connection).is_err(), "a RST ends it");
        });
        let generator = start(opts(engine, nobody(), |opts| {
            reused(opts);
            opts.hold = "5ms".parse().expect("a time");
            opts.duration = "1s".parse().expect("a time");
        }));
        let observer = generator.observer();
        until("some are over", || observer.snapshot(Detail::Books).measured.planned > 4);
        let books = end(generator);
        let measured = &books.measured;
        assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
        assert_eq!((measured.held_lost, counters().passive_opens), (0, measured.planned));
        done(&server, measured.planned);
    }

    fn a_failure_ends_the_life_of_a_socket_and_no_more(engine) {
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), reused));
            let measured = &books.measured;
            assert!(measured.planned > 2, "{measured:?}");
            assert_eq!(measured.verdict(Verdict::Refused), measured.planned, "{:?}", measured.verdicts);
        });
        // Every other connection is reset by the server.
        let count = AtomicU64::new(0);
        let every_other = serve(nobody(), move |connection| {
            if count.fetch_add(1, Ordering::AcqRel).is_multiple_of(2) {
                return reset(connection);
            }
            greet(&connection);
            let _ = drain(&connection);
        });
        let books = run(opts(engine, nobody(), reused));
        let measured = &books.measured;
        let (served, resets) = (measured.verdict(Verdict::Served), measured.verdict(Verdict::Reset));
        assert!(served > 1 && served + resets == measured.planned && resets - served < 2, "{:?}", measured.verdicts);
        done(&every_other, measured.planned);
    }

    fn no_more_are_in_flight_than_asked(engine) {
        // Each attempt is over for the server before it is over for the client.
        let (now, most) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
        let seen = Arc::clone(&most);
        let server = serve(nobody(), move |connection| {
            seen.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
            std::thread::sleep(Duration::from_millis(20));
            now.fetch_sub(1, Ordering::AcqRel);
            greet(&connection);
        });
        let books = run(opts(engine, nobody(), |opts| {
            opts.arrivals = "closed:5".parse().expect("arrivals");
            opts.duration = "1s".parse().expect("a time");
        }));
        let measured = &books.measured;
        assert!(measured.planned > 10, "{measured:?}");
        assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
        done(&server, measured.planned);
        assert_eq!(most.load(Ordering::Acquire), 5);
    }
}
