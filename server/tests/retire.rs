//! Closing one of four `SO_REUSEPORT` listeners while connections wait at all of them: what its queue held is lost, and
//! told exactly, or moved by the kernel (`net.ipv4.tcp_migrate_req`) and served by another. Checked in a network
//! namespace of its own, for which the test runs itself again under unshare(1).

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kernel::link::Links;
use kernel::process::monotonic_ns;
use kernel::sysctl;
use rerun::{Own, in_namespaces};
use server::opts::{Engine, Reuseport};
use server::{Opts, Origin, Plan, Server, Snapshot};
use telemetry::namespace::Detail;

const MIGRATE: &str = "net.ipv4.tcp_migrate_req";

/// Connections that wait when the listener is closed.
const CLIENTS: usize = 200;

/// The listener that is closed.
const RETIRED: usize = 1;

#[test]
fn what_a_retired_listener_held_is_lost_or_moved_and_told_exactly() {
    in_namespaces("what_a_retired_listener_held_is_lost_or_moved_and_told_exactly", Own::Network, inside);
}

fn inside() {
    Links::open().and_then(|mut links| links.set_up("lo")).expect("a loopback");
    for (round, engine) in (0_u16..).zip([Engine::Epoll, Engine::EpollEdge, Engine::Blocking]) {
        sysctl::write(MIGRATE, "0").expect("a parameter of this namespace");
        lost(engine, 9700 + 2 * round);
        sysctl::write(MIGRATE, "1").expect("a parameter of this namespace");
        moved(engine, 9701 + 2 * round);
    }
}

/// A server of four listeners, of which one is closed after a second, and which accepts nobody during `stall`.
fn start(engine: Engine, port: u16, stall: &str) -> Server {
    let opts = Opts {
        listen: SocketAddr::from(([127, 0, 0, 1], port)).into(),
        backlog: 1024,
        acceptors: 4.try_into().expect("above 0"),
        reuseport: Reuseport::Hash,
        engine,
        stall: Some(stall.parse().expect("a stall")),
        retire: Some(format!("{RETIRED}@1s").parse().expect("a retirement")),
        ..Opts::default()
    };
    let server = Server::start(&Plan::try_from(opts).expect("valid"), Origin::default()).expect("listens");
    server.begin(monotonic_ns());
    server
}

/// Clients that are connected and wait, and the depth of every queue, before the listener is closed.
fn fill(server: &Server, port: u16) -> (Vec<TcpStream>, Vec<u64>) {
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("connected")).collect();
    let snapshot = server.observer().snapshot(Detail::Full);
    assert!(began.elapsed() < Duration::from_millis(900), "too slow to be in time: {:?}", began.elapsed());
    assert!(!snapshot.listeners[RETIRED].retired);
    let depths: Vec<u64> = snapshot.listeners.iter().map(|listener| listener.depth).collect();
    assert_eq!(depths.iter().sum::<u64>(), CLIENTS as u64, "all wait: {depths:?}");
    (clients, depths)
}

/// Waits until the listener is closed; the books after that.
fn retired(server: &Server) -> Snapshot {
    let began = Instant::now();
    loop {
        let snapshot = server.observer().snapshot(Detail::Full);
        if snapshot.listeners[RETIRED].retired {
            // That one may have looked at listener 0 before and at the others after.
            return server.observer().snapshot(Detail::Full);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the listener is not closed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many clients were reset, of those who have heard anything at all within `patience`.
fn resets(clients: &mut [TcpStream], patience: Duration) -> (usize, usize) {
    let (mut reset, mut greeted) = (0, 0);
    for client in clients {
        client.set_read_timeout(Some(patience)).expect("a time-out");
        match client.read(&mut [0]) {
            Ok(length) => greeted += length,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => reset += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
    (reset, greeted)
}

fn lost(engine: Engine, port: u16) {
    let server = start(engine, port, "0s+forever");
    let before = server.observer().snapshot(Detail::Full);
    let (mut clients, depths) = fill(&server, port);
    let after = retired(&server);
    let destroyed: Vec<u64> = after.listeners.iter().map(|listener| listener.destroyed).collect();
    let mut expected = [0; 4];
    expected[RETIRED] = depths[RETIRED];
    assert_eq!(destroyed, expected, "{engine}: of {depths:?}");
    let net = after.kernel.net.since(&before.kernel.net);
    assert_eq!((net.migrate_request_success, net.migrate_request_failure), (0, 0));
    let (reset, greeted) = resets(&mut clients, Duration::from_millis(1));
    assert_eq!((reset as u64, greeted), (depths[RETIRED], 0), "{engine}: of {depths:?}");
    let others: Vec<u64> = after.listeners.iter().map(|listener| listener.depth).collect();
    assert_eq!(others.iter().sum::<u64>() + depths[RETIRED], CLIENTS as u64, "the others keep theirs: {others:?}");
    eprintln!(
        "measured: {engine}, tcp_migrate_req=0: queues {depths:?}, destroyed {destroyed:?}, clients reset {reset}"
    );
}

fn moved(engine: Engine, port: u16) {
    let server = start(engine, port, "0s+2s");
    let before = server.observer().snapshot(Detail::Full);
    let (mut clients, depths) = fill(&server, port);
    let after = retired(&server);
    assert_eq!(after.destroyed(), 0, "{engine}: of {depths:?}");
    let net = after.kernel.net.since(&before.kernel.net);
    assert_eq!(net.migrate_request_success, depths[RETIRED], "{engine}: of {depths:?}");
    let queues: Vec<u64> = after.listeners.iter().map(|listener| listener.depth).collect();
    assert_eq!(queues.iter().sum::<u64>(), CLIENTS as u64, "{engine}: {depths:?} became {queues:?}");
    // The kernel scales the 4-tuple's hash to the number of listeners. The second quarter of all hashes becomes the end of
    // the first third and the beginning of the second, where the last listener has taken the place of the closed one.
    assert_eq!(queues[2], depths[2], "{engine}: {depths:?} became {queues:?}");
    assert!(queues[0] > depths[0] && queues[3] > depths[3], "{engine}: {depths:?} became {queues:?}");
    // The stall ends, and everybody is greeted.
    let (reset, greeted) = resets(&mut clients, Duration::from_secs(10));
    assert_eq!((reset, greeted), (0, CLIENTS), "{engine}");
    let end = server.finish(Detail::Full);
    assert_eq!((end.accepted(), end.destroyed()), (CLIENTS as u64, 0), "{engine}");
    eprintln!("measured: {engine}, tcp_migrate_req=1: queues {depths:?} became {queues:?}, clients reset {reset}");
}
