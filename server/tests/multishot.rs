//! What a backlog of 7 means under each engine while nobody handles connections: everything, but under a multishot accept,
//! which takes connections off the accept queue by itself.
#![expect(clippy::print_stdout, reason = "the table is what a reader of the test's output wants to see")]

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kernel::process::monotonic_ns;
use server::opts::{Engine, OnAccept};
use server::{Opts, Origin, Plan, Server, Snapshot};
use socket2::{Domain, Socket, Type};
use telemetry::namespace::Detail;

const BACKLOG: u32 = 7;

/// Connections tried.
const CLIENTS: usize = 200;

/// The stall lasts until well after [`LOOK`].
const STALL: &str = "1500ms";

/// When it is counted who got in: before the first SYN is sent again, after 1 s.
const LOOK: Duration = Duration::from_millis(500);

/// Between two of them. A burst from one go of a CPU overruns even a multishot accept: the acceptor's thread must get to
/// run to empty the queue.
const GAP: Duration = Duration::from_micros(500);

/// Every engine that waits, and what it makes of connections that come during a stall which found it waiting.
const ENGINES: [(Engine, Meanwhile); 8] = [
    (Engine::Epoll, Meanwhile::Nothing),
    (Engine::EpollEdge, Meanwhile::Nothing),
    (Engine::EpollExclusive, Meanwhile::Nothing),
    (Engine::Blocking, Meanwhile::HandlesOne),
    (Engine::IoUring, Meanwhile::TakesOne),
    (Engine::IoUringMultishot, Meanwhile::TakesAll),
    (Engine::Tokio, Meanwhile::Nothing),
    (Engine::TokioLocal, Meanwhile::Nothing),
];

#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// It waits for the queue, and then sits out the stall before it takes anything.
    Nothing,
    /// It is asleep in accept4(2), and whoever comes first is dealt with before anything else is looked at.
    HandlesOne,
    /// An accept is in flight and takes whoever comes first, who then waits for the acceptor.
    TakesOne,
    /// The accept goes on.
    TakesAll,
}

/// Where connections are during a stall.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    established: u64,
    depth: u64,
    unhandled: u64,
    handled: u64,
}

fn start(engine: Engine, stall: &str) -> Server {
    let opts = Opts {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        backlog: BACKLOG,
        engine,
        on_accept: OnAccept::Greet,
        stall: Some(stall.parse().expect("a stall")),
        ..Opts::default()
    };
    let server = Server::start(&Plan::try_from(opts).expect("valid"), Origin::default()).expect("starts");
    server.begin(monotonic_ns());
    server
}

/// One connect(2) that does not block.
fn connect(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => panic!("connect: {error}"),
    }
    socket.into()
}

/// Everybody knocks during the stall; then who is held where, and the books when all of them have been served.
fn overrun(engine: Engine, at: Duration) -> (Held, Snapshot) {
    let server = start(engine, &format!("{}ms+{STALL}", at.as_millis()));
    let address = server.observer().addresses()[0];
    // The acceptor waits by now, in its own way.
    std::thread::sleep(at + Duration::from_millis(50));
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            std::thread::sleep(GAP);
            connect(address)
        })
        .collect();
    std::thread::sleep(LOOK);
    let inside: Vec<&TcpStream> = clients.iter().filter(|client| client.peer_addr().is_ok()).collect();
    let snapshot = server.observer().snapshot(Detail::Books);
    let held = Held {
        established: inside.len() as u64,
        depth: snapshot.depth(),
        unhandled: snapshot.total(|acceptor| acceptor.unhandled),
        handled: snapshot.accepted(),
    };
    for client in inside {
        greeted(client);
    }
    drop(clients);
    assert!(server.drain(Duration::from_secs(1)));
    server.stop_accepting();
    assert!(server.serve_out(Duration::from_secs(1)));
    (held, server.finish(Detail::Books))
}

/// Reads the byte of the greeting, once the stall is over.
fn greeted(mut client: &TcpStream) {
    client.set_nonblocking(false).expect("blocking");
    client.set_read_timeout(Some(Duration::from_secs(3))).expect("a limit");
    let mut byte = [0];
    match client.read_exact(&mut byte) {
        Ok(()) => assert_eq!(&byte, b"a"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("connected, never served"),
        Err(error) => panic!("connected, then {error}"),
    }
}

fn every_engine(at: Duration, expected: impl Fn(Meanwhile) -> Held) {
    let results = std::thread::scope(|scope| {
        let runs: Vec<_> = ENGINES.iter().map(|(engine, _)| scope.spawn(move || overrun(*engine, at))).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect::<Vec<_>>()
    });
    println!("backlog {BACKLOG}, stall {}ms+{STALL}, {CLIENTS} clients", at.as_millis());
    println!("{:<18} {:>11} {:>5} {:>9} {:>7}", "engine", "established", "depth", "unhandled", "handled");
    for ((engine, _), (Held { established, depth, unhandled, handled }, _)) in ENGINES.iter().zip(&results) {
        println!("{:<18} {established:>11} {depth:>5} {unhandled:>9} {handled:>7}", engine.to_string());
    }
    for ((engine, meanwhile), (held, books)) in ENGINES.iter().zip(results) {
        assert_eq!(held, expected(*meanwhile), "{engine}");
        // Who was refused may have come in after the stall, with the next of its SYNs.
        assert!(books.accepted() >= held.established, "{engine}: {}", books.accepted());
        assert_eq!(books.batch.sum, books.accepted(), "{engine}");
        assert_eq!(books.total(|acceptor| acceptor.unhandled), 0, "{engine}");
        assert_eq!(books.total(server::AcceptorCounts::open), 0, "{engine}");
    }
}

/// `limit` + 1 in the queue.
const FULL: Held = Held { established: BACKLOG as u64 + 1, depth: BACKLOG as u64 + 1, unhandled: 0, handled: 0 };

/// The backlog means nothing.
const ALL: Held = Held { established: CLIENTS as u64, depth: 0, unhandled: CLIENTS as u64, handled: 0 };

#[test]
fn a_stall_from_the_beginning_leaves_all_to_the_queue_but_under_multishot() {
    every_engine(Duration::ZERO, |meanwhile| match meanwhile {
        Meanwhile::TakesAll => ALL,
        // Nobody waits yet, so no accept is in flight.
        _ => FULL,
    });
}

#[test]
fn a_stall_that_finds_an_accept_in_flight_has_one_more_than_the_queue() {
    every_engine(Duration::from_millis(200), |meanwhile| match meanwhile {
        Meanwhile::Nothing => FULL,
        Meanwhile::HandlesOne => Held { established: FULL.established + 1, handled: 1, ..FULL },
        Meanwhile::TakesOne => Held { established: FULL.established + 1, ..FULL },
        Meanwhile::TakesAll => ALL,
    });
}
