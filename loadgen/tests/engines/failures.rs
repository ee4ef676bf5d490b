//! Attempts that fail, and where: every reason has its verdict, and what never became a SYN is not counted as one.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::sysctl;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::support::*;
use loadgen::opts::{Confirm, Engine, Sockets};
use loadgen::{Generator, Machine, Plan, Verdict};
use telemetry::namespace::Detail;

/// `ip ARGS`, of iproute2.
fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip, of iproute2");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ten_ports() {
    sysctl::write("net.ipv4.ip_local_port_range", "40000 40009").expect("a sysctl");
}

with_both_engines! {
    fn nobody_listens(engine) {
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), |_| ()));
            all(&books, Verdict::Refused);
            assert_eq!((books.measured.issued, books.measured.before_syn, books.measured.established), (PLANNED, 0, 0));
            let kernel = counters();
            assert_eq!((kernel.attempt_fails, kernel.resets_sent, kernel.established_resets), (PLANNED, PLANNED, 0));
        });
    }

    fn nobody_accepts(engine) {
        let listener = listener(nobody(), 1024);
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), |opts| opts.deadline = "300ms".parse().expect("a time")));
            all(&books, Verdict::Unserved);
            let measured = &books.measured;
            assert_eq!((measured.established, measured.closed_without_byte, measured.abrupt), (PLANNED, 0, 0));
            let kernel = counters();
            assert_eq!((kernel.passive_opens, kernel.resets_sent, kernel.established_resets), (PLANNED, PLANNED, 2 * PLANNED));
        });
        drop(listener);
    }

    fn the_syn_is_dropped(engine) {
        sysctl::write("net.ipv4.tcp_syncookies", "0").expect("a sysctl");
        let full = full();
        leaves_no_descriptor(|| {
            let books = run(opts(engine, nobody(), |opts| opts.deadline = "300ms".parse().expect("a time")));
            all(&books, Verdict::TimedOut);
            assert_eq!((books.measured.established, books.measured.before_syn), (0, 0));
            let kernel = counters();
            assert!(kernel.listen_overflows >= PLANNED, "{kernel:?}");
            assert_eq!((kernel.passive_opens, kernel.attempt_fails, sockets("syn_sent")), (1, 0, 0));
        });
        drop(full);
    }

    fn the_kernel_gives_up_after_one_syn_more(engine) {
        let full = full();
        let books = run(opts(engine, nobody(), |opts| opts.syn_retries = "1".parse().ok()));
        all(&books, Verdict::TimedOut);
        let kernel = counters();
        assert_eq!((kernel.abort_on_timeout, kernel.attempt_fails), (PLANNED, PLANNED), "not the generator's own deadline");
        assert!(kernel.syn_retransmits >= PLANNED, "{kernel:?}");
        drop(full);
    }

    /// An attempt that needs no confirmation may end with its handshake: who had to send its SYN again is asked all the same.
    fn a_second_syn_is_seen(engine) {
        for sockets in [Sockets::Fresh, Sockets::Reused] {
            let (listener, waits) = full();
            let before = counters().syn_retransmits;
            let generator = start(opts(engine, nobody(), |opts| {
                opts.confirm = Confirm::None;
                opts.sockets = sockets;
            }));
            let observer = generator.observer();
            until("every SYN is out", || observer.snapshot(Detail::Books).measured.issued == PLANNED);
            std::thread::sleep(Duration::from_millis(50));
            // Who waits is let in, and makes room for one at a time.
            listener.set_nonblocking(true).expect("an option");
            let began = Instant::now();
            while generator.observer().snapshot(Detail::Books).measured.concluded() < PLANNED {
                assert!(began.elapsed() < LIMIT);
                let _ = listener.accept();
            }
            let books = end(generator);
            all(&books, Verdict::Connected);
            let classes: Vec<u64> = books.measured.connect_service.iter().map(|class| class.count).collect();
            assert_eq!((classes[0], classes[4]), (0, 0), "every SYN was sent again, and none is unknown: {classes:?}");
            assert_eq!(books.measured.syn_retransmits, counters().syn_retransmits - before);
            assert_eq!(books.measured.early_syn_retransmits, 0);
            drop((listener, waits));
        }
    }

    fn the_kernel_gives_up_by_the_users_timeout(engine) {
        let full = full();
        let books = run(opts(engine, nobody(), |opts| opts.user_timeout = "300ms".parse().ok()));
        all(&books, Verdict::TimedOut);
        let kernel = counters();
        assert_eq!((kernel.abort_on_timeout, kernel.attempt_fails), (PLANNED, PLANNED));
        drop(full);
    }

    fn the_server_resets_before_a_byte(engine) {
        let server = serve(nobody(), reset);
        let books = run(opts(engine, nobody(), |_| ()));
        all(&books, Verdict::Reset);
        let measured = &books.measured;
        assert_eq!((measured.established + measured.reset_at_connect, measured.before_syn), (PLANNED, 0));
        done(&server, PLANNED);
        assert_eq!((counters().passive_opens, counters().resets_sent), (PLANNED, PLANNED));
    }

    fn a_byte_before_a_reset_counts(engine) {
        let server = serve(nobody(), |connection| {
            greet(&connection);
            reset(connection);
        });
        // Many at once: their ends come while the worker is still issuing.
        let books = run(opts(engine, nobody(), |opts| opts.arrivals = "burst:40/1s".parse().expect("arrivals")));
        all(&books, Verdict::Served);
        assert_eq!((books.measured.established, books.measured.reset_at_connect), (PLANNED, 0));
        done(&server, PLANNED);
        assert_eq!(counters().passive_opens, PLANNED);
    }

    fn the_server_closes_without_a_byte(engine) {
        let server = serve(nobody(), drop);
        let books = run(opts(engine, nobody(), |_| ()));
        all(&books, Verdict::Unserved);
        assert_eq!((books.measured.established, books.measured.closed_without_byte), (PLANNED, PLANNED));
        done(&server, PLANNED);
        assert_eq!(counters().passive_opens, PLANNED);
    }

    fn routes_of_this_host_let_no_syn_out(engine) {
        ip("route add blackhole 198.18.1.0/24");
        ip("route add prohibit 198.18.2.0/24");
        ip("route add unreachable 198.18.3.0/24");
        let other = |errno: i32| (Verdict::Other, Some(errno.to_string()));
        for (target, (verdict, errno)) in [
            ("198.18.1.1:9700", other(22)),
            ("198.18.2.1:9700", other(13)),
            ("198.18.3.1:9700", (Verdict::Unreachable, None)),
            ("198.18.4.1:9700", (Verdict::Unreachable, None)),
        ] {
            let before = counters();
            leaves_no_descriptor(|| {
                let books = run(opts(engine, target.parse().expect("an address"), |_| ()));
                all(&books, verdict);
                assert_eq!((books.measured.issued, books.measured.before_syn), (PLANNED, PLANNED), "{target}");
                let others: Vec<_> = books.measured.other_errnos.iter().map(|(errno, n)| (errno.clone(), *n)).collect();
                assert_eq!(others, errno.map(|errno| (errno, PLANNED)).into_iter().collect::<Vec<_>>(), "{target}");
            });
            assert_eq!(counters().out_segments, before.out_segments, "{target}");
        }
    }

    fn a_router_says_no(engine) {
        // The answer comes to a SYN that left: the same numbers as those of the routes above, and another account.
        let refuse = "-A INPUT -p tcp --dport 9700 -j REJECT --reject-with";
        for (answer, verdict) in [("icmp-host-unreachable", Verdict::Unreachable), ("icmp-net-unreachable", Verdict::Unreachable)] {
            let args = format!("{refuse} {answer}");
            let output = Command::new("iptables").args(args.split(' ')).output();
            if !output.is_ok_and(|output| output.status.success()) {
                return skip("no iptables that works here");
            }
            let books = run(opts(engine, nobody(), |_| ()));
            all(&books, verdict);
            assert_eq!((books.measured.issued, books.measured.before_syn), (PLANNED, 0), "{answer}");
            let _ = Command::new("iptables").args(["-F", "INPUT"]).output();
        }
    }

    fn ports_run_out(engine) {
        ten_ports();
        let server = serve(nobody(), |connection| {
            greet(&connection);
            let _ = drain(&connection);
        });
        let books = run(opts(engine, nobody(), |opts| opts.keep = "100".parse().ok()));
        let measured = &books.measured;
        assert_eq!((measured.verdict(Verdict::Served), measured.verdict(Verdict::NoPorts)), (10, PLANNED - 10));
        assert_eq!((measured.issued, measured.before_syn, measured.held_lost), (PLANNED, PLANNED - 10, 0));
        done(&server, 10);
        assert_eq!((counters().active_opens, counters().passive_opens), (10, 10));
    }

    fn a_socket_that_meets_itself_is_not_served(engine) {
        sysctl::write("net.ipv4.ip_local_port_range", "40000 40000").expect("a sysctl");
        let target = "127.0.0.1:40000".parse().expect("an address");
        leaves_no_descriptor(|| {
            // One after the other, for there is one port.
            let books = run(opts(engine, target, |opts| opts.arrivals = "closed:1".parse().expect("arrivals")));
            let measured = &books.measured;
            let (met, no_ports) = (measured.verdict(Verdict::SelfConnect), measured.verdict(Verdict::NoPorts));
            assert!(met > 1, "{measured:?}");
            assert_eq!(met + no_ports, measured.planned, "{:?}", measured.verdicts);
            // A ring lets go of a socket that it was reading from a moment later, and the port with it.
            assert!(engine == Engine::IoUring || no_ports == 0, "{:?}", measured.verdicts);
            assert_eq!((measured.established, counters().passive_opens), (0, 0));
        });
    }
}

#[test]
fn descriptors_run_out() {
    rerun::in_namespaces("failures::descriptors_run_out", rerun::Own::Network, || {
        let _listener = listener(nobody(), 1024);
        let opts = opts(Engine::Epoll, nobody(), |opts| {
            opts.confirm = Confirm::None;
            opts.keep = "100".parse().ok();
        });
        let generator = Generator::prepare(Plan::new(opts, &Machine::read()).expect("a load")).expect("a generator");
        // The numbers below the highest one that is in use are taken, so that ten more are ten sockets.
        let highest = std::fs::read_dir("/proc/self/fd")
            .expect("a directory")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let highest = highest.max().expect("some");
        let take = || std::fs::File::open("/dev/null").expect("a file");
        let mut taken = vec![take()];
        while taken.last().is_some_and(|file| file.as_raw_fd() <= highest) {
            taken.push(take());
        }
        let limit = u64::from(taken.last().expect("one").as_raw_fd().cast_unsigned()) + 1 + 10;
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).expect("a limit");
        generator.begin(kernel::process::monotonic_ns());
        let books = end(generator);
        setrlimit(Resource::Nofile, before).expect("a limit");
        let measured = &books.measured;
        assert_eq!((measured.verdict(Verdict::Connected), measured.verdict(Verdict::NoFds)), (10, PLANNED - 10));
        assert_eq!((measured.issued, measured.before_syn, counters().active_opens), (10, 0, 10));
    });
}
