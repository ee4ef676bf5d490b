//! The queue limit follows somaxconn, or does not, as the option says: checked in a network namespace of its own, for
//! which the test runs itself again under unshare(1).

use std::time::{Duration, Instant};

use kernel::process::monotonic_ns;
use kernel::sysctl;
use rerun::{Own, in_namespaces};
use server::opts::{Engine, Relisten, Reuseport};
use server::{Opts, Origin, Plan, Server, Snapshot};
use telemetry::namespace::Detail;

const SOMAXCONN: &str = "net.core.somaxconn";

#[test]
fn the_limit_follows_somaxconn_only_when_asked_to() {
    // Inside, these are the namespace's own, and nobody looks at them afterwards.
    let before = sysctl::read(SOMAXCONN).expect("the host's somaxconn");
    let name = "the_limit_follows_somaxconn_only_when_asked_to";
    in_namespaces(name, Own::Network, || {
        inside();
        sysctl::write(SOMAXCONN, &before).expect("put back for the look below");
    });
    assert_eq!(sysctl::read(SOMAXCONN).expect("the host's somaxconn"), before, "the host keeps its own");
}

fn start(relisten: Relisten, engine: Engine, port: u16) -> Server {
    let opts = Opts {
        listen: std::net::SocketAddr::from(([0, 0, 0, 0], port)).into(),
        backlog: 300,
        acceptors: 3.try_into().expect("above 0"),
        reuseport: Reuseport::Hash,
        engine,
        relisten,
        ..Opts::default()
    };
    let server = Server::start(&Plan::try_from(opts).expect("valid"), Origin::default()).expect("listens");
    server.begin(monotonic_ns());
    server
}

fn limits(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.listeners.iter().map(|listener| listener.limit).collect()
}

fn relistens(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.listeners.iter().map(|listener| listener.relistens).collect()
}

/// Every limit becomes `limit` within a second.
fn becomes(server: &Server, limit: u32) -> Snapshot {
    let began = Instant::now();
    loop {
        let snapshot = server.observer().snapshot(Detail::Books);
        if limits(&snapshot) == [limit; 3] {
            return snapshot;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}, not {limit}", limits(&snapshot));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn inside() {
    sysctl::write(SOMAXCONN, "16").expect("somaxconn of this namespace");
    for (engine, port) in [(Engine::Epoll, 9700), (Engine::Blocking, 9800)] {
        let never = start(Relisten::Never, engine, port);
        let on_change = start(Relisten::OnChange, engine, port + 1);
        assert_eq!(becomes(&on_change, 16).warnings[0].code, "backlog-capped");
        sysctl::write(SOMAXCONN, "64").expect("raised");
        assert_eq!(relistens(&becomes(&on_change, 64)), [1; 3]);
        sysctl::write(SOMAXCONN, "4096").expect("raised");
        let snapshot = becomes(&on_change, 300);
        assert_eq!(relistens(&snapshot), [2; 3]);
        assert!(snapshot.warnings.is_empty(), "{:?}", snapshot.warnings);
        sysctl::write(SOMAXCONN, "16").expect("lowered");
        assert_eq!(relistens(&becomes(&on_change, 16)), [3; 3]);

        let untouched = never.observer().snapshot(Detail::Books);
        assert_eq!((limits(&untouched), relistens(&untouched)), (vec![16; 3], vec![0; 3]));
        sysctl::write(SOMAXCONN, "128").expect("raised");
        becomes(&on_change, 128);
        assert_eq!(limits(&never.observer().snapshot(Detail::Books)), [16; 3], "capped at listen(2), for good");
        sysctl::write(SOMAXCONN, "16").expect("lowered");
        becomes(&on_change, 16);
    }
}
