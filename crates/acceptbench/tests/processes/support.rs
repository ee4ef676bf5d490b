//! What the tests share: a server whose acceptors are processes of the built program, clients, and looks at `/proc`.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kernel::process::{Signal, monotonic_ns};
use rustix::process::{Pid, kill_process};
use server::opts::Workers;
use server::{Opts, Origin, Plan, Server, Snapshot};
use telemetry::namespace::Detail;

/// The built program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_acceptbench");

/// The machine: alone for what measures times, together for the rest. A test that fails poisons nobody.
pub(crate) fn machine() -> &'static Machine {
    static MACHINE: Machine = Machine(RwLock::new(()));
    &MACHINE
}

/// See [`machine`].
pub(crate) struct Machine(RwLock<()>);

impl Machine {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server of this process with pre-forked acceptors on a free port of 127.0.0.1.
pub(crate) fn start(set: impl FnOnce(&mut Opts)) -> Server {
    let mut opts = Opts {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        workers: Workers::Processes,
        acceptors: 3.try_into().expect("above 0"),
        ..Opts::default()
    };
    set(&mut opts);
    let origin = Origin { program: PROGRAM.into(), ..Origin::default() };
    let server = Server::start(&Plan::try_from(opts).expect("valid"), origin).expect("starts");
    server.begin(monotonic_ns());
    server
}

pub(crate) fn books(server: &Server) -> Snapshot {
    server.observer().snapshot(Detail::Books)
}

pub(crate) fn address(server: &Server) -> SocketAddr {
    server.observer().addresses()[0]
}

/// Stops a server that has nothing left to do.
pub(crate) fn stop(server: Server) -> Snapshot {
    assert!(server.drain(Duration::from_secs(5)), "the queues empty themselves");
    server.stop_accepting();
    assert!(server.serve_out(Duration::from_secs(5)), "what is open ends");
    server.finish(Detail::Books)
}

/// Connects and reads to the end.
pub(crate) fn visit(address: SocketAddr) -> Vec<u8> {
    let mut client = TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connects");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    let mut said = Vec::new();
    client.read_to_end(&mut said).expect("reads to the end");
    said
}

/// `count` visits by 4 clients at a time; each must be greeted.
pub(crate) fn visits(address: SocketAddr, count: usize) {
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || (client..count).step_by(4).for_each(|_| assert_eq!(visit(address), b"a")));
        }
    });
}

/// Waits until `done`, at most `limit`; how long it took.
pub(crate) fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_micros(500));
    }
    began.elapsed()
}

/// The acceptors' processes.
pub(crate) fn pids(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.acceptors.iter().map(|acceptor| acceptor.pid).collect()
}

/// Kills a process that this test started.
pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("a process of this test");
}

/// State and parent of a process; `None` when there is none.
pub(crate) fn state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Is a process gone, or only waited for by somebody else?
pub(crate) fn is_gone(pid: u32) -> bool {
    state(pid).is_none_or(|(state, _)| state == 'Z')
}

/// The children of a process, zombies included.
pub(crate) fn children(parent: u32) -> Vec<(u32, char)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter_map(|pid| Some((pid, state(pid)?)))
        .filter(|(_, (_, of))| *of == parent)
        .map(|(p, (s, _))| (p, s))
        .collect()
}

/// What the descriptors of a process are; none when it is gone.
pub(crate) fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|to| to.to_string_lossy().into_owned()).collect()
}
