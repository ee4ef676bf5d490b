//! Who gets the connections: each way of sharing a listener as the kernel is known to do it (measured on Linux 6.18).

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kernel::process::pin_to_cpu;
use server::opts::{Engine, Reuseport, Workers};
use server::{Opts, Snapshot};
use telemetry::namespace::Detail;

use crate::apart::{apart, in_namespaces, start, wait_until};

fn opts(engine: Engine, reuseport: Reuseport, acceptors: u32) -> Opts {
    Opts {
        listen: "127.0.0.1:9700".parse().expect("an address"),
        acceptors: acceptors.try_into().expect("above 0"),
        engine,
        reuseport,
        ..Opts::default()
    }
}

/// One connection at a time, each greeted before the next, with a pause in which everyone goes back to sleep.
fn knock(target: SocketAddr, times: u32, pause: Duration) {
    for _ in 0..times {
        let mut client = TcpStream::connect(target).expect("connected");
        client.read_exact(&mut [0]).expect("greeted");
        drop(client);
        std::thread::sleep(pause);
    }
}

/// `times` connections to a server of these options; with `cpu` the client runs there.
fn share(opts: Opts, times: u32, pause: Duration, cpu: Option<usize>) -> Snapshot {
    apart(move || {
        let target = opts.listen.first();
        let server = start(opts);
        // Everyone waits before the first comes.
        std::thread::sleep(Duration::from_millis(50));
        // Of this thread only, which lives as long as this case: the acceptors are running already.
        cpu.map_or(Ok(()), pin_to_cpu).expect("pinned");
        knock(target, times, pause);
        let observer = server.observer();
        let all =
            wait_until(Duration::from_secs(1), || observer.snapshot(Detail::Books).accepted() == u64::from(times));
        assert!(all, "all accepted");
        server.stop_accepting();
        server.finish(Detail::Books)
    })
}

fn accepts(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.acceptors.iter().map(|acceptor| acceptor.accepts).collect()
}

fn empty_wakeups(snapshot: &Snapshot) -> u64 {
    snapshot.total(|acceptor| acceptor.wakeups_empty)
}

const SPACED: Duration = Duration::from_millis(3);

#[test]
fn idle_acceptors_share_a_listener_as_the_kernel_wakes_them() {
    in_namespaces("sharing::idle_acceptors_share_a_listener_as_the_kernel_wakes_them", || {
        for workers in [Workers::Threads, Workers::Processes] {
            let with = |engine| share(Opts { workers, ..opts(engine, Reuseport::Off, 4) }, 200, SPACED, None);

            let blocking = with(Engine::Blocking);
            println!("{workers} blocking: {:?}, empty {}", accepts(&blocking), empty_wakeups(&blocking));
            let even = accepts(&blocking).iter().all(|accepts| (49..=51).contains(accepts));
            assert!(even, "the waiters of accept4(2) are woken in turn: {:?}", accepts(&blocking));
            assert_eq!(empty_wakeups(&blocking), 0, "one waiter is woken per connection, no herd");

            let exclusive = with(Engine::EpollExclusive);
            println!("{workers} epoll-exclusive: {:?}, empty {}", accepts(&exclusive), empty_wakeups(&exclusive));
            let most = accepts(&exclusive).into_iter().max();
            assert_eq!(empty_wakeups(&exclusive), 0, "no herd");
            assert!(most >= Some(195), "the first who registered takes all when idle: {:?}", accepts(&exclusive));

            for engine in [Engine::Epoll, Engine::EpollEdge] {
                // How many come back empty-handed is a matter of who runs first: a wait that finds the queue empty again
                // before it returns counts for nothing. 12 to 139 of 200 were seen, none once on a machine that was busy
                // otherwise.
                let herd = (0..3).any(|_| {
                    let herd = with(engine);
                    println!("{workers} {engine}: {:?}, empty {}", accepts(&herd), empty_wakeups(&herd));
                    empty_wakeups(&herd) > 0
                });
                assert!(herd, "{workers} {engine}: each connection wakes several");
            }
        }
    });
}

/// Pearson's chi-squared of counts that should be equal.
fn chi_squared(counts: &[u64]) -> f64 {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|count| (*count as f64 - mean).powi(2) / mean).sum()
}

/// The upper tail of the chi-squared distribution with 3 degrees of freedom: 2 (1 - Phi(r)) + 2 r phi(r) with r the root.
fn p_of_three(chi: f64) -> f64 {
    let root = chi.sqrt();
    let density = (-chi / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    // Phi's tail by Simpson's rule: the density beyond r + 10 is below 1e-21.
    let (steps, width) = (2000, 10.0);
    let h = width / f64::from(steps);
    let f = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 = (1..steps).map(|i| f(root + h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    let tail = h / 3.0 * (f(root) + inner + f(root + width));
    2.0 * tail + 2.0 * root * density
}

#[test]
fn the_tail_of_the_chi_squared_distribution_is_right() {
    // Tables: 7.815 at 0.05, 16.266 at 0.001.
    assert!((p_of_three(7.815) - 0.05).abs() < 1e-4 && (p_of_three(16.266) - 0.001).abs() < 1e-5);
}

#[test]
fn the_hash_spreads_evenly_over_reuseport_listeners() {
    in_namespaces("sharing::the_hash_spreads_evenly_over_reuseport_listeners", || {
        // Each draw fails one time in a thousand by chance alone; both, one time in a million.
        let mut best: f64 = 0.0;
        for _ in 0..2 {
            let hash = share(opts(Engine::Epoll, Reuseport::Hash, 4), 4000, Duration::ZERO, None);
            let p = p_of_three(chi_squared(&accepts(&hash)));
            println!("hash: {:?}, p {p:.4}", accepts(&hash));
            best = best.max(p);
            if p > 0.001 {
                break;
            }
        }
        assert!(best > 0.001, "p {best}");
    });
}

#[test]
fn steering_by_cpu_is_exact() {
    in_namespaces("sharing::steering_by_cpu_is_exact", || {
        let cpus = kernel::process::allowed_cpus().expect("CPUs");
        for reuseport in [Reuseport::Cpu, Reuseport::IncomingCpu] {
            for workers in [Workers::Threads, Workers::Processes] {
                for (place, cpu) in cpus.iter().take(2).enumerate() {
                    // Over loopback the handshake runs on the client's CPU.
                    let steered = Opts { workers, ..opts(Engine::Epoll, reuseport, 2) };
                    let snapshot = share(steered, 50, Duration::ZERO, Some(*cpu));
                    println!("{workers} {reuseport}, client on CPU {cpu}: {:?}", accepts(&snapshot));
                    // The program takes the CPU's number mod listeners, SO_INCOMING_CPU the nth allowed CPU.
                    let chosen = if reuseport == Reuseport::Cpu { cpu % 2 } else { place };
                    let mut expected = vec![0, 0];
                    expected[chosen] = 50;
                    assert_eq!(accepts(&snapshot), expected, "{reuseport}, client on CPU {cpu}");
                }
            }
        }
    });
}
