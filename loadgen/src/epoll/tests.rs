//! What only this engine has: timers that wake the worker, and sockets that are made ahead.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Duration;

use telemetry::Stop;

use super::*;
use crate::opts::Opts;
use crate::plan::Machine;

/// An engine, and its listener's address.
fn engine(opts: Opts, stop: &Stop) -> (Epoll, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let opts = Opts { target: listener.local_addr().expect("an address").into(), ..opts };
    let plan = Plan::new(opts, &Machine::read()).expect("a load");
    let epoll = Epoll::new(Arc::new(plan), stop.eventfd().expect("a descriptor")).expect("a set");
    (epoll, listener)
}

fn waits_as_long_as_it_is_told_unless_something_happens(refused: bool) {
    let stop = Stop::new();
    let (mut epoll, listener) = engine(Opts::default(), &stop);
    epoll.refused = refused;
    let target = listener.local_addr().expect("an address");
    for (ms, then) in [(1, None), (20, Some(60_000)), (3, Some(40)), (3, None)] {
        let now = monotonic_ns();
        let until = now + ms * 1_000_000;
        if let Some(ms) = then {
            epoll.foresee(now + ms * 1_000_000);
        }
        epoll.wait(Some(until)).expect("a wait");
        assert!(monotonic_ns() >= until, "{ms} ms were not waited for");
        assert_eq!(epoll.next(), None);
    }
    let token = Token { slot: 0, generation: 1 };
    epoll.open(token, target, None).expect("an attempt");
    epoll.wait(Some(monotonic_ns() + 60_000_000_000)).expect("a wait");
    assert_eq!(epoll.next(), Some((token, Seen::Connected)), "before the time is up");
    listener.accept().expect("a connection").0.write_all(b"a").expect("a byte");
    epoll.wait(None).expect("a wait");
    assert_eq!(epoll.next(), Some((token, Seen::Answered)), "without a time");
    stop.request();
    epoll.wait(None).expect("a stop wakes it");
}

#[test]
fn it_waits_as_long_as_it_is_told_unless_something_happens() {
    waits_as_long_as_it_is_told_unless_something_happens(false);
}

#[test]
fn so_it_does_where_epoll_pwait2_is_refused() {
    waits_as_long_as_it_is_told_unless_something_happens(true);
}

#[test]
fn the_next_socket_is_made_while_there_is_time() {
    let (mut epoll, listener) = engine(Opts::default(), &Stop::new());
    let target = listener.local_addr().expect("an address");
    epoll.wait(Some(monotonic_ns() + 1)).expect("a wait");
    assert!(epoll.ready.is_none(), "nobody knows yet what it would connect to");
    let [first, second] = [0, 1].map(|slot| Token { slot, generation: 1 });
    epoll.open(first, target, None).expect("an attempt");
    assert!(epoll.ready.is_none(), "not while there is something to do");
    epoll.wait(Some(0)).expect("a look");
    assert!(epoll.ready.is_none(), "not while there is something to do");
    epoll.wait(Some(monotonic_ns() + 1)).expect("a wait");
    let ready = epoll.ready.as_ref().map(|(_, socket)| socket.as_raw_fd()).expect("a socket");
    let linger = rustix::net::sockopt::socket_linger(&epoll.ready.as_ref().expect("a socket").1).expect("asked");
    assert_eq!(linger, Some(Duration::ZERO), "its options are set");
    epoll.open(second, target, None).expect("an attempt");
    let used = epoll.with_socket(second, |socket| socket.as_raw_fd());
    assert_eq!((used, epoll.ready.is_none()), (Some(ready), true));
}

#[test]
fn a_socket_made_for_another_target_is_not_used() {
    let (mut epoll, listener) = engine(Opts::default(), &Stop::new());
    let other = TcpListener::bind("[::1]:0").expect("a listener");
    epoll.open(Token { slot: 0, generation: 1 }, listener.local_addr().expect("an address"), None).expect("an attempt");
    epoll.wait(Some(monotonic_ns() + 1)).expect("a wait");
    assert!(epoll.ready.is_some());
    let token = Token { slot: 1, generation: 1 };
    epoll.open(token, other.local_addr().expect("an address"), None).expect("an attempt of the other family");
    let peer = epoll.with_socket(token, |socket| rustix::net::getsockname(socket)).expect("a socket");
    assert!(SocketAddr::try_from(peer.expect("asked")).expect("an address").is_ipv6());
}

#[test]
fn reused_sockets_are_not_made_ahead() {
    let (mut epoll, listener) = engine(Opts { sockets: Sockets::Reused, ..Opts::default() }, &Stop::new());
    epoll.open(Token { slot: 0, generation: 1 }, listener.local_addr().expect("an address"), None).expect("an attempt");
    epoll.wait(Some(monotonic_ns() + 1)).expect("a wait");
    assert!(epoll.ready.is_none());
}
