//! Acceptors killed under load: the ledger still balances, and replacements come at once but not in floods.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernel::process::{Signal, monotonic_ns};
use rerun::{Own, in_namespaces};
use server::opts::{Engine, Reuseport};
use server::{Observer, Server, Snapshot};
use telemetry::namespace::Detail;

use crate::support::{address, books, is_gone, kill, machine, pids, start, within};

/// Kills per server.
const KILLS: u64 = 20;

/// Nothing else runs while this measures.
fn private_network(name: &str, body: impl FnOnce()) {
    let _machine = machine().write();
    in_namespaces(name, Own::Network, body);
}

#[test]
fn killed_epoll_acceptors_cost_the_books_at_most_one_connection_each() {
    let name = "killed::killed_epoll_acceptors_cost_the_books_at_most_one_connection_each";
    private_network(name, || kill_under_load(Engine::Epoll, Reuseport::Hash));
}

#[test]
fn killed_edge_triggered_acceptors_strand_nobody() {
    let name = "killed::killed_edge_triggered_acceptors_strand_nobody";
    private_network(name, || kill_under_load(Engine::EpollEdge, Reuseport::Off));
}

#[test]
fn killed_exclusive_acceptors_strand_nobody() {
    let name = "killed::killed_exclusive_acceptors_strand_nobody";
    private_network(name, || kill_under_load(Engine::EpollExclusive, Reuseport::Off));
}

#[test]
fn killed_blocking_acceptors_strand_nobody() {
    let name = "killed::killed_blocking_acceptors_strand_nobody";
    private_network(name, || kill_under_load(Engine::Blocking, Reuseport::Off));
}

#[test]
fn killed_io_uring_acceptors_strand_nobody() {
    let name = "killed::killed_io_uring_acceptors_strand_nobody";
    private_network(name, || kill_under_load(Engine::IoUring, Reuseport::Off));
}

#[test]
fn killed_tokio_acceptors_strand_nobody() {
    let name = "killed::killed_tokio_acceptors_strand_nobody";
    private_network(name, || kill_under_load(Engine::TokioLocal, Reuseport::Hash));
}

fn kill_under_load(engine: Engine, reuseport: Reuseport) {
    let server = start(|opts| (opts.engine, opts.reuseport, opts.backlog) = (engine, reuseport, 512));
    let opts = loadgen::Opts {
        target: address(&server).into(),
        rate: "1500/s".parse().expect("a rate"),
        duration: "5s".parse().expect("a time"),
        workers: "1".parse().expect("a count"),
        ..loadgen::Opts::default()
    };
    let plan = loadgen::Plan::new(opts, &loadgen::Machine::read()).expect("valid");
    let generator = loadgen::Generator::prepare(plan).expect("prepared");
    generator.begin(monotonic_ns());
    let over = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        let watch = scope.spawn(|| never_goes_down(&server.observer(), &over));
        let stop_watching = Finally(&over);
        let times: Vec<_> = (0..KILLS).map(|kill| kill_one(&server, kill)).collect();
        assert!(generator.wait(Duration::from_secs(15)), "attempts end");
        drop(stop_watching);
        eprintln!("measured: {} readings, none went down", watch.join().expect("readings"));
        times
    });
    let client = generator.finish(Detail::Books).expect("finishes");
    assert!(server.drain(Duration::from_secs(2)));
    server.stop_accepting();
    server.serve_out(Duration::from_secs(2));
    // Final FINs and RSTs are on their way.
    std::thread::sleep(Duration::from_millis(100));
    let snapshot = server.finish(Detail::Books);
    let ledger = study::ledger::balance(&snapshot, &client, study::results::Topology::Loopback);
    let slowest = times.iter().max().expect("kills");
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("few");
    eprintln!(
        "measured: {engine} {reuseport}: accepted {}, killed {KILLS}, lost {}, replaced after {mean:?} on average, {slowest:?} at most",
        snapshot.accepted(),
        ledger.terms.lost
    );
    assert!(ledger.balances(), "{engine} {reuseport}: {:#?}", ledger.lines);
    assert!(ledger.terms.lost <= KILLS, "{ledger:?}");
    let counts = |count: fn(&server::AcceptorCounts) -> u64| snapshot.total(count);
    assert_eq!([counts(|a| a.deaths), counts(|a| a.restarts), counts(|a| a.lost_at_most)], [KILLS; 3]);
    assert!(snapshot.accepted() > 5000, "{}", snapshot.accepted());
    assert_eq!(counts(server::AcceptorCounts::open), 0);
    assert!(*slowest < Duration::from_millis(100), "{times:?}");
}

/// Sets a flag when dropped: a test that fails must not wait for the thread that looks at it.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills one acceptor and says how long it took until another one sat in its place. Both it, where the listener is its own,
/// and the server go on accepting.
fn kill_one(server: &Server, number: u64) -> Duration {
    std::thread::sleep(Duration::from_millis(150));
    let before = books(server);
    let index = usize::try_from(number).expect("few") % before.acceptors.len();
    let pid = before.acceptors[index].pid;
    kill(pid, Signal::KILL);
    let mut at_last = before.clone();
    let replaced = within(Duration::from_secs(1), "another process sits there", || {
        at_last = books(server);
        let now = at_last.acceptors[index].pid;
        now != 0 && now != pid
    });
    let own = before.opts.reuseport != Reuseport::Off;
    let accepts = |now: &Snapshot| if own { now.acceptors[index].accepts } else { now.accepted() };
    within(Duration::from_secs(2), "it accepts", || accepts(&books(server)) > accepts(&at_last));
    assert!(is_gone(pid));
    replaced
}

/// Reads every few milliseconds until `over`; how often.
fn never_goes_down(observer: &Observer, over: &AtomicBool) -> u64 {
    let totals = |snapshot: &Snapshot| {
        [
            snapshot.accepted(),
            snapshot.batch.sum,
            snapshot.batch.count,
            snapshot.wait.count,
            snapshot.total(|a| a.greetings),
            snapshot.total(|a| a.closed_by_server),
            snapshot.total(|a| a.closed_by_kill),
            snapshot.total(|a| a.deaths),
            snapshot.total(|a| a.restarts),
        ]
    };
    let (mut last, mut readings) = ([0; 9], 0);
    while !over.load(Ordering::Relaxed) {
        let now = totals(&observer.snapshot(Detail::Books));
        assert!(now.iter().zip(last).all(|(now, last)| *now >= last), "{last:?}, then {now:?}");
        last = now;
        readings += 1;
        std::thread::sleep(Duration::from_millis(3));
    }
    readings
}

#[test]
fn acceptors_that_die_at_once_are_no_fork_bomb() {
    let _machine = machine().write();
    let server = start(|opts| opts.acceptors = 1.try_into().expect("above 0"));
    let began = Instant::now();
    let mut victims = Vec::new();
    while began.elapsed() < Duration::from_secs(3) {
        let pid = pids(&books(&server))[0];
        if pid != 0 && victims.last() != Some(&pid) {
            kill(pid, Signal::KILL);
            victims.push(pid);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let restarts = books(&server).acceptors[0].restarts;
    eprintln!("measured: {} killed, {restarts} replaced in 3 s", victims.len());
    assert!((5..=12).contains(&restarts), "{restarts}");
    // In between nobody sits there, and stopping does not wait for the next one.
    within(Duration::from_secs(2), "one more", || pids(&books(&server))[0] != 0);
    kill(pids(&books(&server))[0], Signal::KILL);
    within(Duration::from_secs(1), "nobody", || pids(&books(&server))[0] == 0);
    let began = Instant::now();
    server.stop_accepting();
    let snapshot = server.finish(Detail::Books);
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(snapshot.acceptors[0].deaths, u64::try_from(victims.len()).expect("few") + 1);
}
