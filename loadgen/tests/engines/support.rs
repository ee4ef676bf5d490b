//! What the cases share: a load with an engine, servers of a few lines, and the books held against the kernel's counters.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::netstat::{NetCounters, NetstatReader};
use kernel::process::monotonic_ns;
use kernel::sock_diag::SockDiag;
use loadgen::opts::Engine;
use loadgen::{Generator, Machine, Opts, Plan, PlanError, Snapshot, Verdict};
use rerun::Own;
use socket2::{Domain, SockRef, Socket, Type};
use telemetry::namespace::Detail;

/// Nothing takes longer, however busy the machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Attempts that [`opts`] plans.
pub(crate) const PLANNED: u64 = 40;

/// Makes a test of each case for each engine.
macro_rules! with_both_engines {
    ($($(#[$about:meta])* fn $name:ident($engine:ident) $body:block)+) => {$(
        $(#[$about])*
        mod $name {
            use super::*;

            fn body($engine: Engine) $body

            #[test]
            fn epoll() {
                $crate::support::inside(concat!(module_path!(), "::epoll"), Engine::Epoll, body);
            }

            #[test]
            fn io_uring() {
                $crate::support::inside(concat!(module_path!(), "::io_uring"), Engine::IoUring, body);
            }
        }
    )+};
}
pub(crate) use with_both_engines;

/// Runs a case in a network of its own, if the engine works here.
pub(crate) fn inside(path: &str, engine: Engine, body: fn(Engine)) {
    if let Some(reason) = lacks(&opts(engine, nobody(), |_| ())) {
        return skip(&reason);
    }
    let (_, name) = path.split_once("::").expect("a path within this crate");
    rerun::in_namespaces(name, Own::Network, || body(engine));
}

/// Says why a case is not run.
#[expect(clippy::print_stdout, reason = "what a test says")]
pub(crate) fn skip(reason: &str) {
    println!("skipped: {reason}");
}

/// Why the engine these options ask for cannot do it here.
pub(crate) fn lacks(opts: &Opts) -> Option<String> {
    match Plan::new(opts.clone(), &Machine::read()) {
        Err(error @ PlanError::Engine { .. }) => Some(error.to_string()),
        _ => None,
    }
}

/// An address at which nobody listens, in a network of one's own.
pub(crate) fn nobody() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9700))
}

/// A load of [`PLANNED`] attempts by two workers.
pub(crate) fn opts(engine: Engine, target: SocketAddr, set: impl FnOnce(&mut Opts)) -> Opts {
    let mut opts = Opts {
        target: target.into(),
        engine,
        rate: "200".parse().expect("a rate"),
        duration: "200ms".parse().expect("a time"),
        deadline: "30s".parse().expect("a time"),
        workers: "2".parse().expect("a count"),
        ..Opts::default()
    };
    set(&mut opts);
    opts
}

/// Starts a load.
pub(crate) fn start(opts: Opts) -> Generator {
    let generator = Generator::prepare(Plan::new(opts, &Machine::read()).expect("a valid load")).expect("a generator");
    generator.begin(monotonic_ns());
    generator
}

/// Waits for the end of a load, and checks what holds of every one.
pub(crate) fn end(generator: Generator) -> Snapshot {
    assert!(generator.wait(LIMIT), "it ends by itself: {:?}", generator.observer().snapshot(Detail::Books).measured);
    let books = generator.finish(Detail::Books).expect("its books");
    assert!(books.finished);
    let measured = &books.measured;
    assert_eq!(measured.planned, measured.concluded(), "{:?}", measured.verdicts);
    assert_eq!((books.connecting, books.confirming, books.holding, books.ending), (0, 0, 0, 0));
    books
}

/// Runs a load to its end; what is said of SYNs must be what the kernel counted since.
pub(crate) fn run(opts: Opts) -> Snapshot {
    let before = counters().active_opens;
    let books = end(start(opts));
    let measured = &books.measured;
    assert_eq!(counters().active_opens - before, measured.issued - measured.before_syn, "{:?}", measured.verdicts);
    books
}

/// Every attempt, [`PLANNED`] of them, ended with this verdict.
pub(crate) fn all(books: &Snapshot, verdict: Verdict) {
    let measured = &books.measured;
    assert_eq!(measured.planned, PLANNED);
    assert_eq!(measured.verdict(verdict), PLANNED, "{:?} {:?}", measured.verdicts, measured.other_errnos);
}

/// What the kernel counted in this network.
pub(crate) fn counters() -> NetCounters {
    NetstatReader::open().and_then(|mut reader| reader.read()).expect("counters")
}

/// Sockets of this network in this state.
pub(crate) fn sockets(state: &str) -> u64 {
    SockDiag::open().expect("a socket").states().expect("states")[state]
}

/// This many connections were ended by two FINs, the client's first, and none was aborted by either end. On a busy machine a
/// segment may overtake another between two CPUs; the late one finds nobody and draws a RST, which ends a `TIME_WAIT`.
pub(crate) fn ended_in_order(connections: u64) {
    until("the last one ends", || sockets("time_wait") + counters().resets_sent == connections);
    let kernel = counters();
    assert_eq!((kernel.established_resets, kernel.abort_on_data, kernel.abort_on_close), (0, 0, 0));
    assert!(sockets("time_wait") > connections / 2, "{kernel:?}");
}

/// Waits until something holds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs what leaves as many descriptors as it found, in the end.
pub(crate) fn leaves_no_descriptor(work: impl FnOnce()) {
    let before = descriptors();
    work();
    let began = Instant::now();
    while descriptors().len() > before.len() {
        assert!(began.elapsed() < LIMIT, "{before:#?} have become {:#?}", descriptors());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What this process has open. The directory it reads for this, and one that a library keeps open, are not among it.
fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("a directory").filter_map(Result::ok);
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).filter(|link| !link.ends_with("/fd")).collect()
}

/// A listener with this backlog, that accepts nothing by itself.
pub(crate) fn listener(address: SocketAddr, backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&address.into()).expect("an address");
    socket.listen(backlog).expect("a listener");
    socket.into()
}

/// A full accept queue: the listener, and who is in it. SYNs are dropped, cookies or not.
pub(crate) fn full() -> (TcpListener, TcpStream) {
    let full = listener(nobody(), 0);
    let waits = TcpStream::connect(nobody()).expect("room for one");
    (full, waits)
}

/// A server that does this to each connection, all at the same time. Returns how many it is done with.
pub(crate) fn serve(address: SocketAddr, each: impl Fn(TcpStream) + Send + Sync + 'static) -> Arc<AtomicU64> {
    serve_at(listener(address, 1024), each)
}

/// The same at a listener there is.
pub(crate) fn serve_at(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + 'static) -> Arc<AtomicU64> {
    let (each, done) = (Arc::new(each), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&done);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (each, done) = (Arc::clone(&each), Arc::clone(&counted));
            let connection = connection.expect("a connection");
            std::thread::spawn(move || {
                each(connection);
                done.fetch_add(1, Ordering::Release);
            });
        }
    });
    done
}

/// Waits until a server is done with this many connections.
pub(crate) fn done(server: &AtomicU64, connections: u64) {
    until("the server is done", || server.load(Ordering::Acquire) == connections);
}

/// Says `a`.
pub(crate) fn greet(mut connection: &TcpStream) {
    let _ = connection.write_all(b"a");
}

/// Reads to the client's end: `Ok` is a FIN.
pub(crate) fn drain(mut connection: &TcpStream) -> std::io::Result<usize> {
    connection.read_to_end(&mut Vec::new())
}

/// Closes by a RST.
pub(crate) fn reset(connection: TcpStream) {
    SockRef::from(&connection).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(connection);
}
