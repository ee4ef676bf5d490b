//! The `io_uring` engines end to end: every connection is served and counted once, however it is treated and whenever the
//! server stops.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::process::monotonic_ns;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::opts::{Close, Engine, OnAccept, Reuseport};
use server::{AcceptorCounts, Observer, Opts, Origin, Plan, Server, Snapshot};
use socket2::{Domain, Socket, Type};
use telemetry::namespace::Detail;

const ENGINES: [Engine; 2] = [Engine::IoUring, Engine::IoUringMultishot];

/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(5);

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn start(engine: Engine, set: impl FnOnce(&mut Opts)) -> Server {
    let mut opts = Opts { listen: local().into(), backlog: 1024, engine, ..Opts::default() };
    set(&mut opts);
    let server = Server::start(&Plan::try_from(opts).expect("valid"), Origin::default()).expect("starts");
    server.begin(monotonic_ns());
    server
}

fn connect(to: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&to, LIMIT).expect("connects");
    client.set_read_timeout(Some(LIMIT)).expect("a limit");
    client
}

/// Everything the server says until it closes.
fn hear(mut client: &TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("closes in time");
    heard
}

fn until(observer: &Observer, what: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let began = Instant::now();
    loop {
        let snapshot = observer.snapshot(Detail::Books);
        if what(&snapshot) {
            return snapshot;
        }
        assert!(began.elapsed() < LIMIT, "{:?}", snapshot.acceptors);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends a server and checks what must hold of its books: `n` connections, each in one batch and closed once.
fn settled(server: Server, n: u64) -> Snapshot {
    assert!(server.drain(LIMIT));
    server.stop_accepting();
    assert!(server.serve_out(LIMIT));
    let books = server.finish(Detail::Books);
    assert_eq!((books.accepted(), books.batch.sum, books.left()), (n, n, 0), "{:?}", books.acceptors);
    assert_eq!(books.total(AcceptorCounts::open), 0, "{:?}", books.acceptors);
    assert_eq!(books.batch.count, books.total(|acceptor| acceptor.wakeups_work));
    assert_eq!(books.total(|acceptor| acceptor.unhandled), 0);
    books
}

#[test]
fn every_client_is_greeted() {
    for engine in ENGINES {
        let server = start(engine, |_| ());
        let address = server.observer().addresses()[0];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| assert_eq!(hear(&connect(address)), b"a")));
            }
        });
        let books = settled(server, 1000);
        assert_eq!(books.total(|a| a.greetings), 1000);
        assert_eq!(books.total(|a| a.closed_by_server), 1000);
    }
}

#[test]
fn what_the_client_says_is_answered() {
    for engine in ENGINES {
        let server = start(engine, |opts| opts.on_accept = OnAccept::Reply);
        let address = server.observer().addresses()[0];
        let clients: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
        until(&server.observer(), |books| books.accepted() == 50);
        for mut client in &clients {
            client.write_all(b"x").expect("sends");
        }
        assert!(clients.iter().all(|client| hear(client) == b"a"));
        let books = settled(server, 50);
        assert_eq!((books.total(|a| a.replies), books.total(|a| a.closed_by_server)), (50, 50));
        assert_eq!(books.wait_stamped.count, 0, "all of them spoke after they were accepted");
    }
}

#[test]
fn an_echo_gives_back_more_than_the_socket_holds() {
    for engine in ENGINES {
        let server = start(engine, |opts| (opts.on_accept, opts.close) = (OnAccept::Echo, Close::Wait));
        let client = connect(server.observer().addresses()[0]);
        let sent: Vec<u8> = (0..16_000_000_u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
        let heard = std::thread::scope(|scope| {
            scope.spawn(|| (&client).write_all(&sent).expect("sends"));
            // Late, so that the server has to wait for room.
            std::thread::sleep(Duration::from_millis(100));
            let mut heard = vec![0; sent.len()];
            (&client).read_exact(&mut heard).expect("hears");
            heard
        });
        assert!(heard == sent, "{engine}: not what was sent");
        client.shutdown(Shutdown::Write).expect("ends");
        assert_eq!(hear(&client), b"");
        let books = settled(server, 1);
        assert_eq!((books.total(|a| a.replies), books.total(|a| a.closed_by_peer)), (1, 1));
    }
}

/// The poll of a held connection holds its socket: unless it is cancelled, no FIN is sent.
#[test]
fn a_held_connection_is_closed_in_time() {
    for engine in ENGINES {
        let server =
            start(engine, |opts| (opts.on_accept, opts.hold) = (OnAccept::Hold, "100ms".parse().expect("a time")));
        let address = server.observer().addresses()[0];
        let began = Instant::now();
        let clients: Vec<TcpStream> = (0..300).map(|_| connect(address)).collect();
        assert!(clients.iter().all(|client| hear(client) == b""));
        let took = began.elapsed();
        assert!((Duration::from_millis(100)..Duration::from_secs(1)).contains(&took), "{engine}: {took:?}");
        assert_eq!(settled(server, 300).total(|a| a.closed_by_server), 300);
    }
}

/// The poll outlives the hold time, and sees the client's end.
#[test]
fn the_client_may_have_the_last_word() {
    for engine in ENGINES {
        let server = start(engine, |opts| {
            (opts.hold, opts.close) = ("20ms".parse().expect("a time"), Close::HalfClose);
        });
        let client = connect(server.observer().addresses()[0]);
        assert_eq!(hear(&client), b"a");
        let open = server.observer().snapshot(Detail::Books);
        assert_eq!(open.total(AcceptorCounts::open), 1);
        drop(client);
        until(&server.observer(), |books| books.total(AcceptorCounts::open) == 0);
        assert_eq!(settled(server, 1).total(|a| a.closed_by_server), 1);
    }
}

#[test]
fn several_listeners_share_an_acceptor() {
    for engine in ENGINES {
        let server = start(engine, |opts| {
            opts.listen = "127.0.0.1:0,127.0.0.1:0,127.0.0.1:0".parse().expect("addresses");
        });
        let addresses = server.observer().addresses();
        assert_eq!(addresses.len(), 3);
        std::thread::scope(|scope| {
            for address in &addresses {
                scope.spawn(|| (0..100).for_each(|_| assert_eq!(hear(&connect(*address)), b"a")));
            }
        });
        assert_eq!(settled(server, 300).total(|a| a.greetings), 300);
    }
}

#[test]
fn several_acceptors_share_a_listener() {
    for engine in ENGINES {
        let server = start(engine, |opts| opts.acceptors = 3.try_into().expect("above 0"));
        let address = server.observer().addresses()[0];
        (0..300).for_each(|_| assert_eq!(hear(&connect(address)), b"a"));
        assert_eq!(settled(server, 300).total(|a| a.greetings), 300);
    }
}

#[test]
fn an_idle_server_stops_at_once() {
    for engine in ENGINES {
        let server = start(engine, |_| ());
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        server.stop_accepting();
        let stopped = began.elapsed();
        drop(server.finish(Detail::Books));
        assert!(stopped < Duration::from_millis(50), "{engine}: {stopped:?}");
        assert!(began.elapsed() < Duration::from_millis(100), "{engine}: {:?}", began.elapsed());
    }
}

/// Nobody is lost between the kernel's accept and ours: whoever left the queue is served.
#[test]
fn a_stop_in_full_flow_leaves_nobody_out() {
    for engine in ENGINES {
        let server = start(engine, |_| ());
        let address = server.observer().addresses()[0];
        let clients: Vec<TcpStream> = std::thread::scope(|scope| {
            let flow = scope.spawn(|| (0..800).map(|_| connect(address)).collect());
            std::thread::sleep(Duration::from_millis(10));
            server.stop_accepting();
            flow.join().expect("connects")
        });
        assert!(server.serve_out(LIMIT));
        let books = server.finish(Detail::Books);
        assert_eq!(books.total(|acceptor| acceptor.unhandled), 0);
        assert_eq!(books.batch.sum, books.accepted());
        assert_eq!(books.total(|a| a.greetings), books.accepted());
        let greeted = clients.into_iter().filter(|mut client| matches!(client.read(&mut [0]), Ok(1))).count();
        assert_eq!(greeted as u64, books.accepted(), "{engine}");
    }
}

/// An end in the middle closes what is open at once, polls or not.
#[test]
fn an_end_closes_what_is_open() {
    for engine in ENGINES {
        let server = start(engine, |opts| opts.close = Close::Wait);
        let address = server.observer().addresses()[0];
        let clients: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
        until(&server.observer(), |books| books.accepted() == 100);
        let began = Instant::now();
        let books = server.finish(Detail::Books);
        assert_eq!((books.batch.sum, books.total(AcceptorCounts::open)), (100, 0));
        assert!(clients.iter().all(|client| hear(client) == b"a"));
        assert!(began.elapsed() < Duration::from_millis(200), "{engine}: {:?}", began.elapsed());
    }
}

/// An accept in flight holds its listener: unless it is cancelled, the port stays open.
#[test]
fn a_retired_listener_is_closed() {
    for engine in ENGINES {
        let server = start(engine, |opts| {
            (opts.reuseport, opts.acceptors) = (Reuseport::Hash, 2.try_into().expect("above 0"));
            opts.retire = Some("0@50ms".parse().expect("a retirement"));
        });
        let address = server.observer().addresses()[0];
        until(&server.observer(), |books| books.listeners[0].retired);
        // Were it open, it would take half of these, and nobody would greet them.
        (0..50).for_each(|_| assert_eq!(hear(&connect(address)), b"a"));
        let books = settled(server, 50);
        assert_eq!((books.acceptors[0].accepts, books.destroyed()), (0, 0));
    }
}

#[test]
fn the_last_listener_retired_refuses() {
    for engine in ENGINES {
        let server = start(engine, |opts| opts.retire = Some("0@50ms".parse().expect("a retirement")));
        let address = server.observer().addresses()[0];
        assert_eq!(hear(&connect(address)), b"a");
        until(&server.observer(), |books| books.listeners[0].retired);
        let refused = TcpStream::connect_timeout(&address, LIMIT).expect_err("closed");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{engine}");
        drop(server.finish(Detail::Books));
    }
}

#[test]
fn a_service_time_leaves_the_queue_to_the_kernel() {
    let server = start(Engine::IoUring, |opts| {
        (opts.backlog, opts.accept_delay) = (7, "20ms".parse().expect("a service time"));
    });
    let address = server.observer().addresses()[0];
    let clients: Vec<TcpStream> = (0..8).map(|_| connect(address)).collect();
    until(&server.observer(), |books| books.accepted() > 0);
    // Read anew: one reading takes the depth before it counts the accepts.
    let books = server.observer().snapshot(Detail::Books);
    assert!((4..=7).contains(&books.depth()), "one is served, the others wait: {}", books.depth());
    let began = Instant::now();
    assert!(clients.iter().all(|client| hear(client) == b"a"));
    let took = began.elapsed();
    assert!((Duration::from_millis(80)..Duration::from_millis(250)).contains(&took), "{took:?}");
    let books = settled(server, 8);
    assert_eq!(books.batch.count, 8, "one at a time");
}

/// The loop looks at what has completed between asking whether it is to stop and waiting: a stop that comes just then must
/// not be waited for.
#[test]
fn a_stop_is_heard_whenever_it_comes() {
    for wait in 0..600_u32 {
        let server = start(Engine::IoUring, |opts| opts.accept_delay = "1us".parse().expect("a service time"));
        let client = connect(server.observer().addresses()[0]);
        until(&server.observer(), |books| books.accepted() == 1);
        let again = connect(server.observer().addresses()[0]);
        let began = monotonic_ns();
        while monotonic_ns() < began + u64::from(wait) * 100 {
            std::hint::spin_loop();
        }
        server.stop_accepting();
        if !server.serve_out(LIMIT) {
            // To drop it would be to wait for its acceptor.
            std::mem::forget(server);
            panic!("stopped after {wait} x 100 ns, the acceptor waits on");
        }
        server.finish(Detail::Books);
        drop((client, again));
    }
}

/// What has no descriptor stays in the queue: it is asked for again every 10 ms, and served when there is one. In a process
/// of its own, which has the limit.
#[test]
fn without_descriptors_a_listener_is_left_alone_for_a_while() {
    const INSIDE: &str = "URING_TEST_INSIDE";
    const NAME: &str = "without_descriptors_a_listener_is_left_alone_for_a_while";
    if std::env::var_os(INSIDE).is_some() {
        // The kernel reads it when an accept is submitted.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).expect("a limit");
        return ENGINES.into_iter().for_each(without_descriptors);
    }
    let test = std::env::current_exe().expect("own path");
    let output = Command::new(test).args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1").output().expect("runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn without_descriptors(engine: Engine) {
    let server = start(engine, |opts| (opts.on_accept, opts.hold) = (OnAccept::Hold, "100ms".parse().expect("a time")));
    let address = server.observer().addresses()[0];
    let clients: Vec<Socket> =
        (0..10).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect();
    let mut filling: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    filling.truncate(filling.len() - 4);
    for client in &clients {
        client.connect(&address.into()).expect("connects");
    }
    let clients: Vec<TcpStream> = clients.into_iter().map(TcpStream::from).collect();
    assert!(clients.iter().all(|client| hear(client) == b""));
    drop(filling);
    let books = settled(server, 10);
    let pauses = books.total(|a| a.pauses);
    // 100 ms wait for the descriptors of those before, at most ten times.
    assert!((5..150).contains(&pauses), "{engine}: {pauses}");
    assert_eq!(books.total(|a| a.errors.get("EMFILE").copied().unwrap_or(0)), pauses);
    assert!((1..=pauses).contains(&books.total(|a| a.wakeups_empty)), "the others found somebody before");
}
