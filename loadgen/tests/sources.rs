//! Attempts come from the addresses and ports they are told to come from, in turn.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use kernel::process::monotonic_ns;
use loadgen::opts::Confirm;
use loadgen::{Generator, Machine, Opts, Plan, Snapshot, Verdict};
use telemetry::namespace::Detail;

/// Runs a load of 60 attempts at a listener of the test's own, and returns the books and where the attempts came from.
fn peers(set: impl FnOnce(&mut Opts)) -> (Snapshot, Vec<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mut opts = Opts {
        target: listener.local_addr().expect("its address").into(),
        rate: "600".parse().expect("a rate"),
        duration: "100ms".parse().expect("a time"),
        confirm: Confirm::None,
        workers: "2".parse().expect("a count"),
        ..Opts::default()
    };
    set(&mut opts);
    let plan = Plan::new(opts, &Machine::read()).expect("a valid load");
    let generator = Generator::prepare(plan).expect("a generator");
    generator.begin(monotonic_ns());
    let peers = (0..60).map(|_| listener.accept().expect("a connection").1).collect();
    assert!(generator.wait(Duration::from_secs(10)), "it ends by itself");
    (generator.finish(Detail::Books).expect("its books"), peers)
}

fn by_address(peers: &[SocketAddr]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for peer in peers {
        *counts.entry(peer.ip()).or_default() += 1;
    }
    counts
}

#[test]
fn sources_take_turns() {
    let (books, peers) = peers(|opts| opts.sources = "127.0.0.8/29".parse().ok());
    assert_eq!(books.measured.verdict(Verdict::Connected), 60);
    let expected: BTreeMap<IpAddr, usize> = (9..15).map(|last| (IpAddr::from([127, 0, 0, last]), 10)).collect();
    assert_eq!(by_address(&peers), expected);
}

#[test]
fn ports_come_from_the_range() {
    let (books, peers) = peers(|opts| {
        opts.sources = "127.0.0.2,127.0.0.3".parse().ok();
        opts.source_ports = "41000-41099".parse().ok();
    });
    assert_eq!(books.measured.verdict(Verdict::Connected), 60);
    assert!(peers.iter().all(|peer| (41_000..41_100).contains(&peer.port())), "{peers:?}");
    let odd = peers.iter().filter(|peer| peer.port() % 2 == 1).count();
    assert!(odd > 0 && odd < 60, "both parities, not the range's lower one first: {odd} of 60 are odd");
    assert_eq!(by_address(&peers).into_values().collect::<Vec<_>>(), [30, 30]);
}

#[test]
fn a_shard_issues_its_part_from_its_part_of_the_sources() {
    let (books, peers) = peers(|opts| {
        opts.rate = "1200".parse().expect("a rate");
        opts.shard = "2/2".parse().ok();
        opts.sources = "127.0.0.4/30,127.0.0.9,127.0.0.10".parse().ok();
    });
    assert_eq!(books.measured.planned, 60);
    // The odd attempts come from every other source.
    let used: Vec<String> = by_address(&peers).into_keys().map(|address| address.to_string()).collect();
    assert_eq!(used, ["127.0.0.6", "127.0.0.10"]);
}

#[test]
fn sources_that_cannot_be_used_are_named_before_the_start() {
    let refused = |set: fn(&mut Opts)| {
        let mut opts = Opts::default();
        set(&mut opts);
        Plan::new(opts, &Machine::read()).expect_err("refused").to_string()
    };
    let error = refused(|opts| opts.sources = "203.0.113.7".parse().ok());
    assert!(error.contains("sources: 203.0.113.7 cannot be used") && error.contains("an interface"), "{error}");
    let error = refused(|opts| opts.sources = "::1".parse().ok());
    assert!(error.contains("sources ::1 cannot reach 127.0.0.1:9700"), "{error}");
    let error = refused(|opts| opts.source_ports = "100-200".parse().ok());
    assert!(error.contains("outside net.ipv4.ip_local_port_range"), "{error}");
}
