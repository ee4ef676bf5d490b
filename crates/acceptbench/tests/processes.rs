//! Acceptors as pre-forked processes (`workers = processes`) and a child per connection (`handler = fork`): nothing is lost
//! from the books whoever is killed, the dead are replaced, and no process stays behind.

#[path = "processes/killed.rs"]
mod killed;
#[path = "processes/support.rs"]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kernel::process::Signal;
use server::opts::{Engine, Handler, OnAccept, Reuseport};
use server::{Opts, Server};
use support::{
    PROGRAM, address, books, children, descriptors, is_gone, kill, machine, pids, start, state, stop, visit, visits,
    within,
};

/// Those that can be processes and fork for a connection.
const ENGINES: [Engine; 4] = [Engine::Blocking, Engine::Epoll, Engine::EpollEdge, Engine::EpollExclusive];

#[test]
fn every_engine_accepts_in_processes_and_leaves_none_behind() {
    let _machine = machine().read();
    for (engine, reuseport) in ENGINES.into_iter().flat_map(|e| [(e, Reuseport::Off), (e, Reuseport::Hash)]) {
        let server = start(|opts| (opts.engine, opts.reuseport) = (engine, reuseport));
        let staff = pids(&books(&server));
        let (_, nursery) = state(staff[0]).expect("an acceptor");
        assert!(staff.iter().all(|pid| state(*pid).is_some_and(|(_, parent)| parent == nursery)));
        visits(address(&server), 60);
        for pid in &staff {
            within(Duration::from_secs(2), "an acceptor holds its listener and no other, no control socket", || {
                let held = descriptors(*pid);
                held.iter().filter(|what| what.starts_with("socket:")).count() == 1
                    && !held.iter().any(|what| what.contains("pidfd"))
            });
        }
        let cpu = books(&server).kernel.process.cpu_seconds;
        let began = Instant::now();
        let snapshot = stop(server);
        assert!(snapshot.kernel.process.cpu_seconds >= cpu, "the CPU time of those who ended is kept");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{engine} {reuseport}: stopping took {took:?}");
        let counts = [
            snapshot.accepted(),
            snapshot.total(|acceptor| acceptor.greetings),
            snapshot.total(|acceptor| acceptor.closed_by_server),
            snapshot.batch.sum,
            snapshot.wait.count,
        ];
        assert_eq!(counts, [60; 5], "{engine} {reuseport}");
        assert_eq!(snapshot.total(|acceptor| acceptor.deaths + acceptor.lost_at_most), 0);
        assert_eq!(pids(&snapshot), [0; 3]);
        for pid in staff.into_iter().chain([nursery]) {
            assert!(state(pid).is_none(), "{engine} {reuseport}: process {pid} stayed behind");
        }
    }
}

#[test]
fn a_retired_listener_is_closed_in_every_process() {
    let _machine = machine().read();
    let server = start(|opts| {
        (opts.reuseport, opts.retire) = (Reuseport::Hash, Some("1@100ms".parse().expect("a retirement")));
    });
    let nursery = state(pids(&books(&server))[0]).expect("an acceptor").1;
    let sockets = |pid| descriptors(pid).iter().filter(|what| what.starts_with("socket:")).count();
    assert_eq!(sockets(nursery), 4, "three listeners and the control socket");
    within(Duration::from_secs(2), "the listener is retired", || books(&server).listeners[1].retired);
    assert_eq!(sockets(nursery), 3);
    // Only the two that are left are there to connect to.
    visits(address(&server), 40);
    let snapshot = stop(server);
    assert_eq!((snapshot.accepted(), snapshot.acceptors[1].accepts, snapshot.destroyed()), (40, 0, 0));
    assert_eq!(snapshot.total(|acceptor| acceptor.deaths), 0);
}

#[test]
fn more_listeners_than_one_message_carries_arrive() {
    let _machine = machine().read();
    let server = start(|opts| {
        (opts.listen, opts.backlog) = ("127.0.0.1:21700-22199".parse().expect("addresses"), 8);
    });
    for port in [21700, 21899, 21900, 22199] {
        visits(SocketAddr::from(([127, 0, 0, 1], port)), 4);
    }
    let snapshot = stop(server);
    assert_eq!((snapshot.listeners.len(), snapshot.accepted()), (500, 16));
}

#[test]
fn a_program_that_is_no_nursery_is_an_error_that_leaves_nothing_behind() {
    let _machine = machine().read();
    let mut opts = Opts { workers: server::opts::Workers::Processes, ..Opts::default() };
    opts.listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let plan = server::Plan::try_from(opts).expect("valid");
    for (program, text) in [("/bin/true", "ended before its acceptors ran"), ("/no/such/program", "No such file")] {
        let origin = server::Origin { program: program.into(), ..server::Origin::default() };
        let error = Server::start(&plan, origin).expect_err("refused").to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// `acceptbench server` with three processes, and where it listens.
fn serve() -> (Child, SocketAddr, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(PROGRAM)
        .args(["server", "--listen", "127.0.0.1:0", "--workers", "processes", "--acceptors", "3", "--admin", "off"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program");
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("listening on ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("a line") > 0, "it says where it listens");
    }
    let address = line.split_whitespace().nth(2).expect("an address").parse().expect("an address");
    (child, address, said)
}

/// The nursery of a server and its acceptors.
fn tree(server: u32) -> (u32, Vec<u32>) {
    let nursery = children(server)[0].0;
    let mut acceptors = Vec::new();
    within(Duration::from_secs(2), "three acceptors", || {
        acceptors = children(nursery).into_iter().map(|(pid, _)| pid).collect();
        acceptors.len() == 3
    });
    (nursery, acceptors)
}

fn rest(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn nobody_outlives_a_killed_server() {
    let _machine = machine().read();
    let (mut child, address, _said) = serve();
    let (nursery, acceptors) = tree(child.id());
    visits(address, 12);
    child.kill().expect("killed");
    child.wait().expect("waited for");
    let took = within(Duration::from_secs(1), "nursery and acceptors are gone", || {
        is_gone(nursery) && acceptors.iter().all(|pid| is_gone(*pid))
    });
    eprintln!("gone {took:?} after the server was killed");
    TcpStream::connect(address).expect_err("nobody listens any more");
}

#[test]
fn a_killed_nursery_is_reported_and_the_server_still_ends_with_its_outcome() {
    let _machine = machine().read();
    let (mut child, address, said) = serve();
    let (nursery, acceptors) = tree(child.id());
    visits(address, 12);
    kill(nursery, Signal::KILL);
    within(Duration::from_secs(1), "the acceptors are gone", || acceptors.iter().all(|pid| is_gone(*pid)));
    let stderr = child.stderr.take().expect("piped");
    std::thread::sleep(Duration::from_millis(50));
    kill(child.id(), Signal::TERM);
    let mut status = None;
    within(Duration::from_secs(3), "the server ends", || {
        status = child.try_wait().expect("waited for");
        status.is_some()
    });
    let (outcome, log) = (rest(said), rest(stderr));
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{log}");
    assert!(outcome.contains("accepted 12  greeted 12"), "{outcome}");
    assert!(log.contains("nursery of the acceptors died"), "{log}");
    assert!(log.contains("signal: 9"), "{log}");
}

#[test]
fn ctrl_c_stops_the_server_in_order_though_it_reaches_every_process() {
    let _machine = machine().read();
    let (mut child, address, said) = serve();
    let (nursery, acceptors) = tree(child.id());
    visits(address, 12);
    for pid in acceptors.iter().chain([&nursery, &child.id()]) {
        kill(*pid, Signal::INT);
    }
    let mut status = None;
    within(Duration::from_secs(3), "the server ends", || {
        status = child.try_wait().expect("waited for");
        status.is_some()
    });
    let log = rest(child.stderr.take().expect("piped"));
    assert!(rest(said).contains("accepted 12  greeted 12"), "{log}");
    assert!(!log.contains("died"), "{log}");
    assert!(is_gone(nursery) && acceptors.iter().all(|pid| is_gone(*pid)));
}

/// A server that forks a child per connection.
fn forking(engine: Engine, set: impl FnOnce(&mut Opts)) -> Server {
    start(|opts| {
        (opts.engine, opts.handler, opts.acceptors) = (engine, Handler::Fork, 2.try_into().expect("above 0"));
        set(opts);
    })
}

#[test]
fn a_child_per_connection_serves_and_is_counted_and_reaped() {
    let _machine = machine().read();
    for engine in ENGINES {
        let server = forking(engine, |_| {});
        visits(address(&server), 80);
        let staff = pids(&books(&server));
        std::thread::sleep(Duration::from_millis(200));
        for pid in staff {
            assert_eq!(children(pid), [], "{engine}: no child and no zombie is left");
        }
        let idle = books(&server);
        assert_eq!(idle.total(|a| a.closed_by_server), 80, "{engine}: counted while idle");
        let snapshot = stop(server);
        let counts =
            [snapshot.accepted(), snapshot.total(|a| a.forks), snapshot.total(|a| a.greetings), snapshot.batch.sum];
        assert_eq!(counts, [80; 4], "{engine}");
        assert_eq!(snapshot.total(server::AcceptorCounts::open), 0, "{engine}");
        let empty = snapshot.total(|a| a.wakeups_empty) - idle.total(|a| a.wakeups_empty);
        assert!(engine != Engine::Blocking || empty == 0, "looking after children is no empty wake-up");
    }
}

#[test]
fn a_child_holds_its_connection_only_and_the_cap_holds() {
    let _machine = machine().read();
    for engine in [Engine::Blocking, Engine::Epoll] {
        let server = forking(engine, |opts| {
            (opts.on_accept, opts.hold) = (OnAccept::Hold, "200ms".parse().expect("a time"));
            opts.max_children = 2.try_into().expect("above 0");
        });
        let staff = pids(&books(&server));
        let to = address(&server);
        let (mut most, mut looked) = (0, false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..16).map(|_| scope.spawn(move || assert_eq!(visit(to), b""))).collect();
            while clients.iter().any(|client| !client.is_finished()) {
                for pid in &staff {
                    let running = children(*pid);
                    most = most.max(running.len());
                    if let Some((child, 'S')) = running.first() {
                        let held = descriptors(*child);
                        let sockets = held.iter().filter(|what| what.starts_with("socket:")).count();
                        looked |= sockets > 0;
                        assert!(sockets <= 1, "{engine}: {held:?}");
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        assert!(looked, "a child was seen at work");
        assert_eq!(most, 2, "{engine}: children of an acceptor at once");
        let snapshot = stop(server);
        assert_eq!((snapshot.total(|a| a.forks), snapshot.total(|a| a.closed_by_server)), (16, 16), "{engine}");
        assert_eq!(snapshot.total(|a| a.closed_by_kill), 0, "{engine}");
    }
}

#[test]
fn stopping_lets_children_finish_and_ending_does_not_wait_for_them() {
    let _machine = machine().read();
    for (hold, out) in [("300ms", true), ("30s", false)] {
        let server = forking(Engine::Epoll, |opts| opts.hold = hold.parse().expect("a time"));
        let to = address(&server);
        let clients: Vec<_> = (0..6).map(|_| std::thread::spawn(move || visit(to))).collect();
        within(Duration::from_secs(2), "six children", || books(&server).total(|a| a.forks) == 6);
        server.stop_accepting();
        assert_eq!(server.serve_out(Duration::from_secs(1)), out, "hold {hold}");
        let began = Instant::now();
        let snapshot = server.finish(telemetry::namespace::Detail::Books);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        assert_eq!((snapshot.total(|a| a.greetings), snapshot.total(|a| a.closed_by_server)), (6, 6), "hold {hold}");
        for client in clients {
            assert_eq!(client.join().expect("a client"), b"a");
        }
    }
}

#[test]
fn a_killed_child_is_counted_and_children_die_with_their_acceptor() {
    let _machine = machine().read();
    let server = forking(Engine::Blocking, |opts| opts.hold = "30s".parse().expect("a time"));
    let to = address(&server);
    let clients: Vec<_> = (0..8).map(|_| std::thread::spawn(move || TcpStream::connect(to))).collect();
    within(Duration::from_secs(2), "eight children", || books(&server).total(|a| a.forks) == 8);
    let staff = pids(&books(&server));
    let victim = staff.iter().find_map(|pid| children(*pid).first().copied()).expect("a child").0;
    kill(victim, Signal::KILL);
    within(Duration::from_secs(1), "counted", || books(&server).total(|a| a.closed_by_kill) == 1);
    let grandchildren: Vec<u32> = staff.iter().flat_map(|pid| children(*pid)).map(|(pid, _)| pid).collect();
    assert_eq!(grandchildren.len(), 7);
    for pid in &staff {
        kill(*pid, Signal::KILL);
    }
    within(Duration::from_secs(1), "they die, too", || grandchildren.iter().all(|pid| is_gone(*pid)));
    within(Duration::from_secs(1), "counted", || books(&server).total(|a| a.closed_by_kill) == 8);
    drop(clients);
}
