//! What both engines promise, step by step: what they tell of a socket whose other side is in the test's hands.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::process::monotonic_ns;
use rustix::fs::fstat;
use socket2::{SockRef, Socket};
use telemetry::Stop;

use super::*;
use crate::epoll::Epoll;
use crate::opts::{Engine, Opts, Sockets};
use crate::plan::{Machine, Plan};
use crate::uring::{self, Ring, Uring};

/// Nothing takes longer, however busy the machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Slots of a ring.
const SLOTS: usize = 4;

fn listener(backlog: i32) -> TcpListener {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("an address");
    socket.listen(backlog).expect("a listener");
    socket.into()
}

/// A load that confirms a greeting.
fn plan(engine: Engine, target: SocketAddr, set: impl FnOnce(&mut Opts)) -> Arc<Plan> {
    let mut opts = Opts { target: target.into(), engine, ..Opts::default() };
    set(&mut opts);
    Arc::new(Plan::new(opts, &Machine::read()).expect("a valid load"))
}

/// An attempt's name: the nth use of a slot.
fn token(slot: u32, generation: u32) -> Token {
    Token { slot, generation }
}

/// The next that is told of an attempt.
pub(crate) fn told(reactor: &mut impl Reactor, of: Token) -> Seen {
    let began = Instant::now();
    loop {
        while let Some((token, seen)) = reactor.next() {
            if token == of {
                return seen;
            }
        }
        assert!(began.elapsed() < LIMIT, "nothing is told of {of:?}");
        reactor.wait(Some(monotonic_ns() + 10_000_000)).expect("a wait");
    }
}

/// For a while nothing is told.
fn nothing_more(reactor: &mut impl Reactor) {
    silence(reactor, 50);
}

/// Nothing is told for as long as this.
pub(crate) fn silence(reactor: &mut impl Reactor, ms: u64) {
    let until = monotonic_ns() + ms * 1_000_000;
    while monotonic_ns() < until {
        reactor.wait(Some(until)).expect("a wait");
        assert_eq!(reactor.next(), None);
    }
}

/// Makes a test for each engine. The engine is entered, and its target listens with this backlog.
macro_rules! with_both_engines {
    ($($(#[$about:meta])* fn $name:ident($reactor:ident, $listener:ident, $stop:ident) [$backlog:expr, $set:expr] $body:block)+) => {$(
        $(#[$about])*
        mod $name {
            use super::*;

            fn body(mut $reactor: impl Reactor, $listener: TcpListener, $stop: Stop) {
                $reactor.enter().expect("an engine");
                $body
            }

            #[test]
            fn epoll() {
                let (listener, stop) = (listener($backlog), Stop::new());
                let plan = plan(Engine::Epoll, listener.local_addr().expect("an address"), $set);
                let reactor = Epoll::new(plan, stop.eventfd().expect("a descriptor")).expect("an engine");
                body(reactor, listener, stop);
            }

            #[test]
            fn io_uring() {
                if let Some(needs) = uring::lacks(false) {
                    return println!("skipped: needs {needs}");
                }
                let (listener, stop) = (listener($backlog), Stop::new());
                let plan = plan(Engine::IoUring, listener.local_addr().expect("an address"), $set);
                let ring = Ring::new(SLOTS).expect("a ring");
                let reactor = Uring::new(plan, SLOTS, ring, stop.eventfd().expect("a descriptor"));
                body(reactor, listener, stop);
            }
        }
    )+};
}

/// Begins an attempt at the listener, and the server's end of it.
fn connected(reactor: &mut impl Reactor, listener: &TcpListener, token: Token) -> TcpStream {
    let target = listener.local_addr().expect("an address");
    reactor.open(token, target, None).expect("an attempt");
    assert_eq!(told(reactor, token), Seen::Connected);
    let (server, _) = listener.accept().expect("a connection");
    server.set_read_timeout(Some(LIMIT)).expect("an option");
    server
}

with_both_engines! {
    fn an_answer_is_told_after_the_handshake(reactor, listener, _stop) [16, |_| ()] {
        let mut server = connected(&mut reactor, &listener, token(0, 1));
        nothing_more(&mut reactor);
        server.write_all(b"a").expect("a byte");
        assert_eq!(told(&mut reactor, token(0, 1)), Seen::Answered);
        reactor.close(token(0, 1), true);
        reactor.finish().expect("an end");
        assert_eq!(server.read(&mut [0]).expect_err("a RST").kind(), io::ErrorKind::ConnectionReset);
    }

    /// The slot's first socket has a receive under way when it is closed, and the second comes with the same system call.
    fn a_slot_that_is_taken_at_once_is_the_successors(reactor, listener, _stop) [16, |_| ()] {
        for use_of in 1..20 {
            let (first, second) = (token(0, 2 * use_of), token(0, 2 * use_of + 1));
            let mut unserved = connected(&mut reactor, &listener, first);
            reactor.close(first, false);
            let mut served = connected(&mut reactor, &listener, second);
            assert_eq!(unserved.read(&mut [0]).expect_err("a RST").kind(), io::ErrorKind::ConnectionReset);
            served.write_all(b"a").expect("a byte");
            assert_eq!(told(&mut reactor, second), Seen::Answered);
            reactor.close(second, true);
        }
        reactor.finish().expect("an end");
    }

    /// The handshake ends while nobody looks: the SYN found the queue full and is sent again after a second.
    fn a_byte_before_a_reset_counts(reactor, listener, _stop) [0, |_| ()] {
        let target = listener.local_addr().expect("an address");
        let _waits = TcpStream::connect(target).expect("room for one");
        reactor.open(token(0, 1), target, None).expect("an attempt");
        nothing_more(&mut reactor);
        drop(listener.accept().expect("who waits"));
        let (mut server, _) = listener.accept().expect("a connection");
        server.write_all(b"a").expect("a byte");
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(server);
        let mut seen = told(&mut reactor, token(0, 1));
        if seen == Seen::Connected {
            seen = told(&mut reactor, token(0, 1));
        }
        assert_eq!(seen, Seen::Answered);
    }

    fn a_reset_without_a_byte_is_one(reactor, listener, _stop) [0, |_| ()] {
        let target = listener.local_addr().expect("an address");
        let _waits = TcpStream::connect(target).expect("room for one");
        reactor.open(token(0, 1), target, None).expect("an attempt");
        nothing_more(&mut reactor);
        drop(listener.accept().expect("who waits"));
        let (server, _) = listener.accept().expect("a connection");
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(server);
        assert_eq!(told(&mut reactor, token(0, 1)), Seen::Failed(Errno::CONNRESET));
        reactor.close(token(0, 1), false);
        nothing_more(&mut reactor);
    }

    fn what_has_happened_is_found_without_a_wait(reactor, listener, _stop) [16, |_| ()] {
        let target = listener.local_addr().expect("an address");
        reactor.open(token(1, 1), target, None).expect("an attempt");
        // A ring's chain goes on when its worker calls.
        let began = Instant::now();
        let mut seen = None;
        while seen.is_none() {
            assert!(began.elapsed() < LIMIT);
            seen = reactor.look_again(token(1, 1));
        }
        assert_eq!(seen, Some(Seen::Connected));
        let (mut server, _) = listener.accept().expect("a connection");
        server.write_all(b"a").expect("a byte");
        assert_eq!(reactor.look_again(token(1, 1)), Some(Seen::Answered));
        assert_eq!(reactor.look_again(token(1, 1)), None, "told once");
        assert_eq!(reactor.look_again(token(1, 2)), None, "nobody's");
    }

    fn the_other_sides_end_is_told_and_its_words_are_not(reactor, listener, _stop) [16, |_| ()] {
        let mut server = connected(&mut reactor, &listener, token(0, 1));
        server.write_all(b"a").expect("a byte");
        assert_eq!(told(&mut reactor, token(0, 1)), Seen::Answered);
        reactor.watch_end(token(0, 1));
        let much = std::thread::spawn(move || {
            server.write_all(&vec![7; 3_000_000]).expect("somebody reads");
        });
        assert_eq!(told(&mut reactor, token(0, 1)), Seen::Ended);
        much.join().expect("all was read");
    }

    fn a_shut_connection_waits_for_the_end(reactor, listener, _stop) [16, |_| ()] {
        let mut server = connected(&mut reactor, &listener, token(0, 1));
        server.write_all(b"a").expect("a byte");
        assert_eq!(told(&mut reactor, token(0, 1)), Seen::Answered);
        reactor.shut(token(0, 1));
        nothing_more(&mut reactor);
        assert_eq!(server.read(&mut [0]).expect("a FIN"), 0);
        drop(server);
        assert_eq!(told(&mut reactor, token(0, 1)), Seen::Ended);
    }

    fn a_socket_lives_again(reactor, listener, _stop) [16, |opts| opts.sockets = Sockets::Reused] {
        let inode = |reactor: &mut _, token| {
            Reactor::with_socket(reactor, token, |socket| fstat(socket).expect("a socket").st_ino)
        };
        let mut first = None;
        for (use_of, held) in [(1, false), (2, true), (3, true), (4, false)] {
            let token = token(2, use_of);
            let mut server = connected(&mut reactor, &listener, token);
            server.write_all(b"a").expect("a byte");
            assert_eq!(told(&mut reactor, token), Seen::Answered);
            let socket = inode(&mut reactor, token).expect("a socket");
            assert_eq!(*first.get_or_insert(socket), socket, "use {use_of}");
            if held {
                reactor.watch_end(token);
                nothing_more(&mut reactor);
            }
            reactor.close(token, true);
            reactor.wait(Some(0)).expect("a wait");
            assert_eq!(server.read(&mut [0]).expect_err("a RST").kind(), io::ErrorKind::ConnectionReset);
        }
        // One that failed does not.
        let server = connected(&mut reactor, &listener, token(2, 5));
        reactor.close(token(2, 5), false);
        let _other = connected(&mut reactor, &listener, token(2, 6));
        assert_ne!(inode(&mut reactor, token(2, 6)), first);
        drop(server);
        reactor.finish().expect("an end");
    }

    fn whoever_waits_for_ever_is_woken_by_a_stop(reactor, listener, stop) [16, |_| ()] {
        let server = connected(&mut reactor, &listener, token(0, 1));
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            stop.request();
        });
        reactor.wait(None).expect("a wait");
        assert_eq!(reactor.next(), None);
        other.join().expect("it asked");
        drop(server);
    }

    /// Every request in flight is given up, and every socket closed, whatever it was doing.
    fn an_end_leaves_nothing(reactor, listener, _stop) [16, |_| ()] {
        let mut servers: Vec<TcpStream> = (0..3).map(|slot| connected(&mut reactor, &listener, token(slot, 1))).collect();
        servers[1].write_all(b"a").expect("a byte");
        assert_eq!(told(&mut reactor, token(1, 1)), Seen::Answered);
        reactor.watch_end(token(1, 1));
        for slot in 0..3 {
            reactor.close(token(slot, 1), false);
        }
        let began = monotonic_ns();
        reactor.finish().expect("an end");
        assert!(monotonic_ns() - began < 900_000_000, "nothing was waited for in vain");
        for server in &mut servers {
            assert_eq!(server.read(&mut [0]).expect_err("a RST").kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn tokens_are_numbers_and_back() {
    let token = Token { slot: 77, generation: 3 };
    assert_eq!(Token::from(u64::from(token)), token);
    assert_eq!(u64::from(token), 0x3_0000_004d);
}

#[test]
fn an_answer_may_come_in_pieces() {
    let mut matched = 0;
    assert_eq!(compare(b"HTTP/1.1 200", &mut matched, b"HT"), None);
    assert_eq!(compare(b"HTTP/1.1 200", &mut matched, b"TP/1.1 2"), None);
    assert_eq!(compare(b"HTTP/1.1 200", &mut matched, b"00 OK\r\n"), Some(Seen::Answered));
    assert_eq!(compare(b"HTTP/1.1 200", &mut 9, b"404"), Some(Seen::WrongAnswer));
    assert_eq!(compare(b"", &mut 0, b"x"), Some(Seen::Answered));
}
