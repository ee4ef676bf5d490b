//! What only this engine has: a timer in the place of `epoll_pwait2(2)`.

use std::io::Write;
use std::net::TcpListener;

use telemetry::Stop;

use super::*;
use crate::opts::Opts;
use crate::plan::Machine;

#[test]
fn where_epoll_pwait2_is_refused_a_timer_wakes_the_worker() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let target = listener.local_addr().expect("an address");
    let plan = Plan::new(Opts { target: target.into(), ..Opts::default() }, &Machine::read()).expect("a load");
    let stop = Stop::new();
    let mut epoll = Epoll::new(Arc::new(plan), stop.eventfd().expect("a descriptor")).expect("a set");
    // From the first refusal on every wait is one of these.
    epoll.wait_by_timer(Some(0)).expect("a look");
    assert!(epoll.timer.is_some());
    for ms in [1, 20, 3] {
        let until = monotonic_ns() + ms * 1_000_000;
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
