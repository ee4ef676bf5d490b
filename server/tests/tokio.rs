//! The tokio engines keep the same books as the others, whatever happens to a connection, and stop when they are told.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kernel::process::monotonic_ns;
use server::opts::{Batch, Close, Cpus, Engine, OnAccept, Reuseport};
use server::{Opts, Origin, Plan, Server, Snapshot};
use telemetry::namespace::Detail;

const ENGINES: [Engine; 2] = [Engine::Tokio, Engine::TokioLocal];

/// Connections of a test, bounded.
const N: u64 = 200;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

fn opts(engine: Engine) -> Opts {
    Opts { listen: "127.0.0.1:0".parse().expect("an address"), backlog: 1024, engine, ..Opts::default() }
}

fn start(opts: Opts) -> Server {
    let server = Server::start(&Plan::try_from(opts).expect("valid"), Origin::default()).expect("listens");
    server.begin(monotonic_ns());
    server
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Reads until the server closes.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end");
    bytes
}

/// Waits until the books say so.
fn until(server: &Server, what: &str, done: impl Fn(&Snapshot) -> bool) {
    let began = Instant::now();
    loop {
        let snapshot = server.observer().snapshot(Detail::Books);
        if done(&snapshot) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "never {what}: {:?}", snapshot.acceptors);
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn closed(snapshot: &Snapshot) -> u64 {
    snapshot.total(|a| a.closed_by_peer + a.closed_by_server + a.closed_by_reset + a.closed_on_error + a.closed_by_kill)
}

/// Ends the server and checks what must hold of every run: each connection accepted once, in one batch, closed once.
fn books(server: Server, accepts: u64) -> Snapshot {
    server.stop_accepting();
    assert!(server.serve_out(PATIENCE), "what is open comes to an end");
    let books = server.finish(Detail::Books);
    assert_eq!(books.total(|a| a.accepts), accepts);
    assert_eq!((books.batch.sum, books.batch.count), (accepts, books.total(|a| a.wakeups_work)));
    assert_eq!((closed(&books), books.total(server::AcceptorCounts::open)), (accepts, 0));
    assert_eq!(books.listeners.iter().map(|l| l.left + l.destroyed).sum::<u64>(), 0);
    books
}

#[test]
fn everyone_is_greeted_once_however_listeners_and_acceptors_are_shared_out() {
    for engine in ENGINES {
        for (acceptors, reuseport, listen) in [
            (1, Reuseport::Off, "127.0.0.1:0"),
            (3, Reuseport::Off, "127.0.0.1:0"),
            (2, Reuseport::Off, "127.0.0.1:0,127.0.0.1:0,[::1]:0"),
            (3, Reuseport::Hash, "127.0.0.1:0"),
            (2, Reuseport::Hash, "127.0.0.1:0,127.0.0.1:0"),
        ] {
            let server = start(Opts {
                listen: listen.parse().expect("addresses"),
                acceptors: acceptors.try_into().expect("above 0"),
                reuseport,
                cpus: Cpus::Auto,
                ..opts(engine)
            });
            let addresses = server.observer().addresses();
            for index in 0..N {
                let mut stream = connect(addresses[usize::try_from(index).expect("small") % addresses.len()]);
                assert_eq!(rest(&mut stream), b"a");
            }
            let books = books(server, N);
            assert_eq!((books.total(|a| a.greetings), books.total(|a| a.closed_by_server)), (N, N));
        }
    }
}

#[test]
fn a_queue_longer_than_the_batch_is_taken_in_batches() {
    for engine in ENGINES {
        let batch = Batch::AtMost(7.try_into().expect("above 0"));
        let stall = Some("0s+100ms".parse().expect("a stall"));
        let server = start(Opts { accept_batch: batch, stall, ..opts(engine) });
        let address = server.observer().addresses()[0];
        let mut streams: Vec<_> = (0..N).map(|_| connect(address)).collect();
        for stream in &mut streams {
            assert_eq!(rest(stream), b"a");
        }
        assert_eq!(books(server, N).batch.max, 7);
    }
}

#[test]
fn requests_are_answered_and_the_end_is_seen_even_if_it_comes_with_the_request() {
    for engine in ENGINES {
        for close in [Close::Close, Close::HalfClose, Close::Wait] {
            let server = start(Opts { on_accept: OnAccept::Reply, close, acceptors: two(), ..opts(engine) });
            let address = server.observer().addresses()[0];
            for index in 0..N {
                let mut stream = connect(address);
                stream.write_all(b"hello").expect("sent");
                if index % 2 == 0 {
                    stream.shutdown(Shutdown::Write).expect("shut");
                }
                let mut answer = [0];
                stream.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"a");
            }
            let books = books(server, N);
            assert_eq!(books.total(|a| a.replies), N, "{close}");
            assert!(books.wait_stamped.count <= N);
        }
    }
}

#[test]
fn an_echo_sends_back_all_even_to_a_client_that_reads_late() {
    for engine in ENGINES {
        let server = start(Opts { on_accept: OnAccept::Echo, acceptors: two(), ..opts(engine) });
        let address = server.observer().addresses()[0];
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut streams: Vec<_> = (0..4).map(|_| connect(address)).collect();
        for stream in &mut streams {
            let mut writer = stream.try_clone().expect("a descriptor");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&sent).expect("sent");
                    writer.shutdown(Shutdown::Write).expect("shut");
                });
                // By now the buffers of both sides are full.
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(rest(stream), sent);
            });
        }
        let books = books(server, 4);
        assert_eq!((books.total(|a| a.replies), books.total(|a| a.closed_by_peer)), (4, 4));
    }
}

#[test]
fn a_hold_lasts_as_long_as_asked_unless_the_client_leaves() {
    for engine in ENGINES {
        let hold = "60ms".parse().expect("a time");
        let server = start(Opts { on_accept: OnAccept::Hold, hold, acceptors: two(), ..opts(engine) });
        let address = server.observer().addresses()[0];
        let began = Instant::now();
        let mut streams: Vec<_> = (0..N).map(|_| connect(address)).collect();
        streams.truncate(100);
        for stream in &mut streams {
            assert!(rest(stream).is_empty());
            assert!(began.elapsed() >= Duration::from_millis(60));
        }
        let books = books(server, N);
        assert_eq!((books.total(|a| a.closed_by_server), books.total(|a| a.closed_by_peer)), (100, 100));
    }
}

#[test]
fn an_idle_server_stops_at_once_and_closes_its_listener() {
    for engine in ENGINES {
        for reuseport in [Reuseport::Off, Reuseport::Hash] {
            let server = start(Opts { acceptors: two(), reuseport, ..opts(engine) });
            let address = server.observer().addresses()[0];
            let began = Instant::now();
            books(server, 0);
            assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
            assert_eq!(TcpStream::connect(address).map(drop).map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused));
        }
    }
}

#[test]
fn connections_open_at_the_end_are_served_and_then_closed() {
    for engine in ENGINES {
        let server = start(Opts { on_accept: OnAccept::Echo, acceptors: two(), ..opts(engine) });
        let address = server.observer().addresses()[0];
        let mut streams: Vec<_> = (0..20).map(|_| connect(address)).collect();
        until(&server, "accepted", |books| books.total(|a| a.accepts) == 20);
        server.stop_accepting();
        streams[0].write_all(b"x").expect("sent");
        let mut byte = [0];
        streams[0].read_exact(&mut byte).expect("still served");
        drop(streams.split_off(15));
        assert!(!server.serve_out(Duration::from_millis(30)));
        let books = server.finish(Detail::Books);
        assert_eq!((books.total(|a| a.closed_by_peer), books.total(|a| a.closed_by_server)), (5, 15));
        assert!(rest(&mut streams[1]).is_empty());
    }
}

#[test]
fn a_retired_listener_is_closed_and_the_other_goes_on() {
    for engine in ENGINES {
        let retire = Some("0@50ms".parse().expect("a retirement"));
        let server = start(Opts { acceptors: two(), reuseport: Reuseport::Hash, retire, ..opts(engine) });
        let address = server.observer().addresses()[0];
        let mut accepted = 0;
        let mut greet = |n: u64| {
            for _ in 0..n {
                assert_eq!(rest(&mut connect(address)), b"a");
            }
            accepted += n;
            accepted
        };
        greet(20);
        until(&server, "retired", |books| books.listeners[0].retired);
        // Every one of them would meet a listener that was left open with an even chance.
        let before = server.observer().snapshot(Detail::Books).acceptors[0].accepts;
        let accepted = greet(N);
        let books = books(server, accepted);
        assert_eq!((books.acceptors[0].accepts, books.listeners[1].retired), (before, false));
        assert_eq!(books.total(|a| a.greetings), accepted);
    }
}

fn two() -> std::num::NonZeroU32 {
    2.try_into().expect("above 0")
}
