//! Tests in user namespaces, cases in network namespaces, and a server and a load in one of them.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kernel::link::Links;
use kernel::namespace;
use kernel::process::monotonic_ns;
use loadgen::Generator;
use rerun::Own;
use server::{Origin, Plan, Server};
use study::ledger::{Ledger, balance};
use study::results::Topology;
use telemetry::namespace::Detail;

/// Runs the test `name` again in namespaces, where `inside` is called. One at a time: some of them measure.
pub(crate) fn in_namespaces(name: &str, inside: fn()) {
    static MACHINE: Mutex<()> = Mutex::new(());
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    rerun::in_namespaces(name, Own::Network, inside);
}

/// Runs `case` in a thread with a fresh network namespace whose loopback is up. Threads and processes that it starts are
/// in that namespace, too.
pub(crate) fn apart<T: Send + 'static>(case: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        // The namespace lives as long as the thread and what it started.
        drop(namespace::new_net().expect("a network namespace"));
        Links::open().and_then(|mut links| links.set_up("lo")).expect("loopback");
        case()
    });
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// A server with these options that is already accepting; its processes descend from the built program.
pub(crate) fn start(opts: server::Opts) -> Server {
    let plan = Plan::try_from(opts).expect("valid options");
    let origin = Origin { program: env!("CARGO_BIN_EXE_acceptbench").into(), inherited: Vec::new() };
    let server = Server::start(&plan, origin).expect("a server");
    server.begin(monotonic_ns());
    server
}

/// Waits until `done`, at most `limit`.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// What a whole run came to.
pub(crate) struct Outcome {
    pub(crate) server: server::Snapshot,
    pub(crate) loadgen: loadgen::Snapshot,
    pub(crate) ledger: Ledger,
}

impl Outcome {
    /// The lines of the ledger that do not balance.
    pub(crate) fn imbalances(&self) -> Vec<String> {
        let off = self.ledger.lines.iter().filter(|line| !line.balances());
        off.map(|line| format!("{} (residual {})", line.equation, line.residual)).collect()
    }
}

/// Starts a server, aims a load at it, waits until both are done, and settles the books. In a namespace of its own.
pub(crate) fn run(server_opts: server::Opts, loadgen_opts: &loadgen::Opts, target: SocketAddr) -> Outcome {
    let server = start(server_opts);
    let loadgen_opts = loadgen::Opts { target: target.into(), ..loadgen_opts.clone() };
    let plan = loadgen::Plan::new(loadgen_opts, &loadgen::Machine::read()).expect("a valid load");
    let generator = Generator::prepare(plan).expect("a generator");
    generator.begin(monotonic_ns());
    assert!(generator.wait(Duration::from_secs(20)), "the generator ends by itself");
    let loadgen = generator.finish(Detail::Books).expect("the generator's books");
    // What the clients have left must reach the server: no handshake under way, no queue, nothing open.
    let observer = server.observer();
    let quiet = || {
        let books = observer.snapshot(Detail::Books);
        let entered = books.accepted() + books.depth();
        books.syn_recv == 0 && books.depth() == 0 && entered >= books.kernel.net.passive_opens
    };
    wait_until(Duration::from_secs(2), quiet);
    server.stop_accepting();
    server.serve_out(Duration::from_secs(2));
    let server = server.finish(Detail::Books);
    // The generator's counters may have been read before its last segments: on loopback both read the same ones.
    let mut loadgen = loadgen;
    loadgen.kernel.net = server.kernel.net;
    let ledger = balance(&server, &loadgen, Topology::Loopback);
    Outcome { server, loadgen, ledger }
}
