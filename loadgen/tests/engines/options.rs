//! Options that only one engine has.

use std::io::Read;

use kernel::sockopt;
use kernel::sysctl;

use super::support::*;
use loadgen::opts::{Confirm, Engine};
use loadgen::{Opts, Verdict};
use rerun::Own;

/// One after the other, so that each knows what the one before was told.
fn fast_open(opts: &mut Opts) {
    opts.arrivals = "closed:1".parse().expect("arrivals");
    opts.confirm = Confirm::Reply;
    opts.fastopen = true;
}

/// A server that waits for `length` bytes before it answers, and takes them in SYNs.
fn fast_server(length: usize) -> std::sync::Arc<std::sync::atomic::AtomicU64> {
    let listener = listener(nobody(), 1024);
    sockopt::set_fastopen(&listener, 1024).expect("an option");
    serve_at(listener, move |mut connection| {
        connection.read_exact(&mut vec![0; length]).expect("all of it");
        greet(&connection);
        let _ = drain(&connection);
    })
}

#[test]
fn the_second_syn_carries_the_first_bytes() {
    rerun::in_namespaces("options::the_second_syn_carries_the_first_bytes", Own::Network, || {
        sysctl::write("net.ipv4.tcp_fastopen", "0x3").expect("a sysctl");
        let server = fast_server(1);
        let books = run(opts(Engine::Epoll, nobody(), fast_open));
        let measured = &books.measured;
        assert!(measured.planned > 2, "{measured:?}");
        assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
        done(&server, measured.planned);
        let kernel = counters();
        assert_eq!((kernel.passive_opens, kernel.fastopen_cookie_required), (measured.planned, 1), "the first asks");
        assert_eq!((kernel.fastopen_active, kernel.fastopen_passive), (measured.planned - 1, measured.planned - 1));
    });
}

#[test]
fn without_cookies_every_syn_does() {
    rerun::in_namespaces("options::without_cookies_every_syn_does", Own::Network, || {
        sysctl::write("net.ipv4.tcp_fastopen", "0x207").expect("a sysctl");
        let server = fast_server(1);
        let books = run(opts(Engine::Auto, nobody(), fast_open));
        let measured = &books.measured;
        assert_eq!((measured.verdict(Verdict::Served), books.engine), (measured.planned, Engine::Epoll));
        done(&server, measured.planned);
        assert_eq!((counters().fastopen_active, counters().fastopen_passive), (measured.planned, measured.planned));
    });
}

#[test]
fn what_did_not_fit_the_syn_follows() {
    rerun::in_namespaces("options::what_did_not_fit_the_syn_follows", Own::Network, || {
        sysctl::write("net.ipv4.tcp_fastopen", "0x207").expect("a sysctl");
        std::process::Command::new("ip").args(["link", "set", "lo", "mtu", "1500"]).status().expect("ip, of iproute2");
        let server = fast_server(4096);
        let books = run(opts(Engine::Epoll, nobody(), |opts| {
            fast_open(opts);
            opts.send = "m".repeat(4096).parse().expect("a message");
            opts.deadline = "3s".parse().expect("a time");
        }));
        let measured = &books.measured;
        assert_eq!(measured.verdict(Verdict::Served), measured.planned, "{:?}", measured.verdicts);
        done(&server, measured.planned);
        assert_eq!(counters().fastopen_active, measured.planned);
    });
}

#[test]
fn a_host_without_fast_open_sends_no_syn() {
    rerun::in_namespaces("options::a_host_without_fast_open_sends_no_syn", Own::Network, || {
        sysctl::write("net.ipv4.tcp_fastopen", "0").expect("a sysctl");
        let _listener = listener(nobody(), 1024);
        let books = run(opts(Engine::Epoll, nobody(), |opts| {
            fast_open(opts);
            opts.arrivals = "constant".parse().expect("arrivals");
        }));
        all(&books, Verdict::Other);
        assert_eq!(books.measured.before_syn, PLANNED);
    });
}
