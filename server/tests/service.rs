//! What an acceptor waits is not what it serves, whatever the engine and however many wait at the same listener. (An accept4
//! that sleeps is left out: its race is too short to be lost on purpose, and has a test beside its code.)

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::time::Duration;

use kernel::process::monotonic_ns;
use server::opts::Engine;
use server::{Opts, Origin, Plan, Server, Snapshot};
use telemetry::namespace::Detail;

/// All that may have a service time: a multishot accept may not.
const ENGINES: [Engine; 7] = [
    Engine::Epoll,
    Engine::EpollEdge,
    Engine::EpollExclusive,
    Engine::Blocking,
    Engine::IoUring,
    Engine::Tokio,
    Engine::TokioLocal,
];

/// All at one listener, and all let go at the same instant, by the end of a stall.
const ACCEPTORS: NonZeroU32 = NonZeroU32::new(8).expect("above 0");

/// Nobody connects for so long.
const IDLE: Duration = Duration::from_millis(600);

/// Each of [`ACCEPTORS`] + 1 connections takes a millisecond; the rest is for a busy machine.
const MOST: Duration = Duration::from_millis(300);

fn greeted(mut client: &TcpStream) {
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    assert_eq!(client.read(&mut [0; 2]).expect("a greeting"), 1);
}

/// One connection is queued before anybody accepts, so that each acceptor finds it there and one gets it; then, after a
/// while, there is one for each.
fn one_then_all(engine: Engine) -> Snapshot {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let first = TcpStream::connect(address).expect("queued");
    let opts = Opts {
        listen: SocketAddr::from(([127, 0, 0, 1], address.port())).into(),
        acceptors: ACCEPTORS,
        engine,
        accept_delay: "1ms".parse().expect("a time"),
        stall: Some("0s+200ms".parse().expect("a stall")),
        ..Opts::default()
    };
    let plan = Plan::try_from(opts).expect("valid");
    let server = Server::start(&plan, Origin { inherited: vec![listener.into()], ..Origin::default() });
    let server = server.expect("inherits");
    server.begin(monotonic_ns());
    greeted(&first);
    std::thread::sleep(IDLE);
    for _ in 0..ACCEPTORS.get() {
        let client = TcpStream::connect(address).expect("connects");
        std::thread::sleep(Duration::from_millis(3));
        greeted(&client);
    }
    server.stop_accepting();
    assert!(server.serve_out(Duration::from_secs(1)));
    server.finish(Detail::Books)
}

#[test]
fn who_found_a_connection_that_another_took_has_served_nobody_until_the_next() {
    println!("{:<18} {:>8} {:>12}", "engine", "accepted", "service (ms)");
    for engine in ENGINES {
        let books = one_then_all(engine);
        let service = Duration::from_nanos(books.total(|acceptor| acceptor.service_ns));
        println!("{:<18} {:>8} {:>12.1}", engine.to_string(), books.accepted(), service.as_secs_f64() * 1e3);
        assert_eq!(books.accepted(), u64::from(ACCEPTORS.get()) + 1, "{engine}");
        assert!(service >= Duration::from_millis(9), "{engine}: a millisecond each, not {service:?}");
        assert!(service < MOST, "{engine}: {IDLE:?} of waiting are in {service:?}");
    }
}
