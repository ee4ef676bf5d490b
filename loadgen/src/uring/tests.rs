//! What only this engine has: an end that is tied to the handshake, and cut off from a slow one.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use socket2::Socket;
use telemetry::Stop;

use super::*;
use crate::attempt;
use crate::opts::{Confirm, Engine, Opts};
use crate::plan::Machine;
use crate::reactor::tests::{LIMIT, silence, told};

/// An engine whose attempts need no confirmation, and the listener they go to.
fn engine(backlog: i32, sockets: Sockets) -> Option<(Uring, TcpListener)> {
    stoppable(&Stop::new(), backlog, sockets)
}

/// The same, which `stop` wakes up.
fn stoppable(stop: &Stop, backlog: i32, sockets: Sockets) -> Option<(Uring, TcpListener)> {
    if let Some(needs) = lacks(false) {
        println!("skipped: needs {needs}");
        return None;
    }
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("an address");
    socket.listen(backlog).expect("a listener");
    let listener = TcpListener::from(socket);
    let target = listener.local_addr().expect("an address").into();
    let opts = Opts { target, engine: Engine::IoUring, confirm: Confirm::None, sockets, ..Opts::default() };
    // No attempt comes from the listener's port.
    let plan = Plan::new(opts, &Machine { ports: Some((1, 1)), ..Machine::read() }).expect("a load");
    assert!(plan.ends_with_the_handshake());
    let ring = Ring::new(4).expect("a ring");
    let mut uring = Uring::new(Arc::new(plan), 4, ring, stop.eventfd().expect("a descriptor"));
    uring.enter().expect("an engine");
    Some((uring, listener))
}

fn token(generation: u32) -> Token {
    Token { slot: 1, generation }
}

fn begin(uring: &mut Uring, listener: &TcpListener, token: Token) {
    uring.open(token, listener.local_addr().expect("an address"), None).expect("an attempt");
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let (server, _) = listener.accept().expect("a connection");
    server.set_read_timeout(Some(LIMIT)).expect("an option");
    server
}

/// What became of the client, seen from the server's end.
fn end_of(mut server: &TcpStream) -> io::ErrorKind {
    server.read(&mut [0]).expect_err("no byte and no FIN").kind()
}

/// Is it open still?
fn is_open(server: &TcpStream) -> bool {
    server.set_nonblocking(true).expect("an option");
    end_of(server) == io::ErrorKind::WouldBlock
}

#[test]
fn an_attempt_ends_with_its_handshake_and_its_slot_lives_on() {
    for sockets in [Sockets::Fresh, Sockets::Reused] {
        let Some((mut uring, listener)) = engine(16, sockets) else { return };
        for generation in 1..=5 {
            begin(&mut uring, &listener, token(generation));
            assert_eq!(told(&mut uring, token(generation)), Seen::Connected);
            assert_eq!(end_of(&accepted(&listener)), io::ErrorKind::ConnectionReset, "before the worker says so");
            assert_eq!(uring.with_socket(token(generation), attempt::syn_retransmits), None, "it cannot be asked");
            uring.close(token(generation), true);
        }
        uring.finish().expect("an end");
    }
}

/// The worker asks whether it is to stop, looks at a slow attempt, and only then waits.
#[test]
fn a_stop_ends_the_next_wait_though_it_was_seen_before() {
    let stop = Stop::new();
    let Some((mut uring, listener)) = stoppable(&stop, 0, Sockets::Fresh) else { return };
    stop.request();
    begin(&mut uring, &listener, token(1));
    assert_eq!(uring.look_again(token(1)), Some(Seen::Connected));
    assert!(uring.stopped, "it has completed, too");
    let began = monotonic_ns();
    uring.wait(Some(began + 60_000_000_000)).expect("a wait");
    let waited = monotonic_ns() - began;
    assert!(waited < 30_000_000_000, "it waited {waited} ns");
    uring.close(token(1), true);
    uring.finish().expect("an end");
}

#[test]
fn a_slow_attempt_does_not_end_by_itself_and_can_be_asked() {
    for sockets in [Sockets::Fresh, Sockets::Reused] {
        let Some((mut uring, listener)) = engine(0, sockets) else { return };
        let waits = TcpStream::connect(listener.local_addr().expect("an address")).expect("room for one");
        begin(&mut uring, &listener, token(1));
        silence(&mut uring, 20);
        uring.untie(token(1));
        silence(&mut uring, 20);
        drop((accepted(&listener), waits));
        assert_eq!(told(&mut uring, token(1)), Seen::Connected, "by its second SYN");
        assert!(uring.with_socket(token(1), attempt::syn_retransmits) >= Some(1));
        let server = accepted(&listener);
        assert!(is_open(&server));
        uring.close(token(1), true);
        begin(&mut uring, &listener, token(2));
        assert_eq!(told(&mut uring, token(2)), Seen::Connected);
        server.set_nonblocking(false).expect("an option");
        assert_eq!(end_of(&server), io::ErrorKind::ConnectionReset);
        uring.close(token(2), true);
        uring.finish().expect("an end");
    }
}

#[test]
fn what_fails_is_told_whether_it_was_slow_or_not() {
    for slow in [false, true] {
        let Some((mut uring, listener)) = engine(0, Sockets::Fresh) else { return };
        let waits = TcpStream::connect(listener.local_addr().expect("an address")).expect("room for one");
        if slow {
            begin(&mut uring, &listener, token(1));
            silence(&mut uring, 20);
            uring.untie(token(1));
            silence(&mut uring, 20);
        }
        let target = listener.local_addr().expect("an address");
        drop((listener, waits));
        if !slow {
            uring.open(token(1), target, None).expect("an attempt");
        }
        assert_eq!(told(&mut uring, token(1)), Seen::Failed(Errno::CONNREFUSED), "slow: {slow}");
        uring.close(token(1), false);
        uring.finish().expect("an end");
    }
}

/// The end that was tied to an attempt given up must not meet the next one in its slot.
#[test]
fn an_attempt_given_up_leaves_nothing_in_its_slot() {
    for sockets in [Sockets::Fresh, Sockets::Reused] {
        let Some((mut uring, listener)) = engine(0, sockets) else { return };
        for generation in 1..=40 {
            let waits = TcpStream::connect(listener.local_addr().expect("an address")).expect("room for one");
            begin(&mut uring, &listener, token(2 * generation));
            if generation % 2 == 0 {
                silence(&mut uring, 1);
            }
            uring.close(token(2 * generation), false);
            drop((accepted(&listener), waits));
            begin(&mut uring, &listener, token(2 * generation + 1));
            uring.untie(token(2 * generation + 1));
            assert_eq!(told(&mut uring, token(2 * generation + 1)), Seen::Connected);
            drop(accepted(&listener));
            uring.close(token(2 * generation + 1), false);
        }
        uring.finish().expect("an end");
        assert_eq!(uring.outstanding, 0);
    }
}
