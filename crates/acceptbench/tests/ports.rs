//! A minute of FIN at 20 000/s over a veth pair: what many sources are for, and what the budget says of one.
//!
//! Ignored, because a minute under load is too long and too loud for every run of the tests:
//!
//! ```sh
//! cargo test --release -p acceptbench --test ports -- --ignored --nocapture
//! ```
#![expect(clippy::print_stdout, reason = "what is measured is shown")]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use kernel::link::Links;
use kernel::namespace::{self, NetNs};
use kernel::process::monotonic_ns;
use kernel::sysctl;
use loadgen::opts::{Close, Confirm};
use loadgen::{Generator, Machine, Opts, Plan, Snapshot, Verdict};
use rerun::Own;
use server::opts::{Cpus, OnAccept, Reuseport};
use server::{Origin, Server};
use telemetry::histogram::HistogramSnapshot;
use telemetry::namespace::Detail;

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 2));
/// 126 addresses with 28 232 ports each. A minute at 20 000/s needs 43 of them, and 86 to stay within the ports of one parity,
/// which connect(2) tries first: beyond them it searches for 0.2 ms and more.
const NETWORK: (IpAddr, u8) = (IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 64, 0)), 25);

/// Length of a window whose latency is shown.
const WINDOW: Duration = Duration::from_secs(10);

/// Makes a namespace each for client and server, joins them by a veth pair, and leaves the thread in the client's.
fn two_namespaces() -> NetNs {
    // A table of its own for what it is connected to, and large: in the host's, which others share, a million sockets in
    // TIME_WAIT are a chain of five or more in each bucket, and every connect(2) and packet walks one.
    sysctl::write("net.ipv4.tcp_child_ehash_entries", "4194304").expect("a sysctl");
    let client = namespace::new_net().expect("the client's namespace");
    let server = namespace::new_net().expect("the server's namespace");
    sysctl::write("net.ipv4.ip_forward", "0").expect("no router");
    client.enter().expect("back");
    sysctl::write("net.ipv4.ip_forward", "0").expect("no router");
    let mut links = Links::open().expect("links");
    links.add_veth("client0", "server0", &server).expect("a veth pair");
    links.add_address("client0", CLIENT, 24).expect("the client's address");
    links.set_up("client0").expect("client0");
    links.add_local_network("lo", NETWORK.0, NETWORK.1).expect("the client's network");
    server.enter().expect("the server's namespace");
    let mut links_there = Links::open().expect("links");
    links_there.set_up("lo").expect("lo");
    links_there.add_address("server0", SERVER, 24).expect("the server's address");
    links_there.set_up("server0").expect("server0");
    links_there.add_route_via("server0", NETWORK, CLIENT).expect("the way back");
    links_there.wait_running("server0", Duration::from_secs(5)).expect("a link");
    client.enter().expect("back");
    links.wait_running("client0", Duration::from_secs(5)).expect("a link");
    server
}

/// A server that waits for its clients to close, and a listener on each CPU: what is looked at is the client's search for a
/// port. Its threads are in `namespace`, which this thread leaves again.
fn start_server(namespace: &NetNs) -> Server {
    let client = NetNs::current().expect("the client's namespace");
    namespace.enter().expect("the server's namespace");
    let opts = server::Opts {
        listen: SocketAddr::new(SERVER, 9700).into(),
        backlog: 4096,
        acceptors: NonZeroU32::new(u32::try_from(cpus().len()).expect("a number of CPUs")).expect("one at least"),
        reuseport: Reuseport::IncomingCpu,
        cpus: Cpus::Auto,
        on_accept: OnAccept::Hold,
        hold: "5s".parse().expect("a time"),
        close: server::opts::Close::Wait,
        ..server::Opts::default()
    };
    let plan = server::Plan::try_from(opts).expect("valid options");
    let server = Server::start(&plan, Origin::default()).expect("a server");
    server.begin(monotonic_ns());
    client.enter().expect("back");
    server
}

/// A load with FIN.
fn load(rate: &str, duration: &str, sources: Option<&str>) -> Plan {
    let opts = Opts {
        target: SocketAddr::new(SERVER, 9700).into(),
        rate: rate.parse().expect("a rate"),
        duration: duration.parse().expect("a time"),
        // The server is in this process and needs as many descriptors.
        max_in_flight: "8000".parse().expect("a count"),
        close: Close::Fin,
        confirm: Confirm::None,
        cpus: Cpus::Auto,
        sources: sources.and_then(|text| text.parse().ok()),
        ..Opts::default()
    };
    let plan = Plan::new(opts, &Machine::read()).expect("a valid load");
    for warning in plan.warnings() {
        println!("warning: {}: {warning}", warning.code);
    }
    plan
}

fn cpus() -> Vec<usize> {
    kernel::process::allowed_cpus().expect("CPUs")
}

/// Sockets in `TIME_WAIT` in this thread's namespace: a number the kernel keeps, where a dump would walk through them all.
fn time_waits() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat").expect("sockstat");
    let line = text.lines().find(|line| line.starts_with("TCP:")).expect("a line of TCP");
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).find(|pair| pair[0] == "tw").map_or(0, |pair| pair[1].parse().expect("a number"))
}

fn ms(histogram: &HistogramSnapshot, q: f64) -> f64 {
    histogram.quantile(q).unwrap_or(0) as f64 / 1e6
}

/// Connect latency from the planned instant, and from connect(2), which alone knows what the search for a port costs.
fn latencies(books: &Snapshot) -> [HistogramSnapshot; 2] {
    let mut service = HistogramSnapshot::default();
    books.measured.connect_service.iter().for_each(|class| service.merge(class));
    [books.measured.connect_latency.clone(), service]
}

/// Runs a load and shows each window; the last books.
fn run(plan: Plan, windows: u32, window: Duration) -> Snapshot {
    let generator = Generator::prepare(plan).expect("a generator");
    let observer = generator.observer();
    let mut last = latencies(&observer.snapshot(Detail::Books));
    let begins = monotonic_ns() + 1_000_000;
    generator.begin(begins);
    println!("window   connected   TIME_WAIT    connect from planned p50 / p99   from issued p50 / p99 / max");
    let mut p99s = Vec::new();
    for number in 1..=windows {
        let ends = Duration::from_nanos(begins) + window * number;
        std::thread::sleep(ends.saturating_sub(Duration::from_nanos(monotonic_ns())));
        let books = observer.snapshot(Detail::Books);
        let now = latencies(&books);
        let [planned, issued] = [now[0].since(&last[0]), now[1].since(&last[1])];
        println!(
            "{:>4} s  {:>9}  {:>10}  {:>15.3} / {:.3} ms  {:>15.3} / {:.3} / {:.3} ms",
            (window * number).as_secs(),
            books.measured.verdict(Verdict::Connected),
            time_waits(),
            ms(&planned, 0.5),
            ms(&planned, 0.99),
            ms(&issued, 0.5),
            ms(&issued, 0.99),
            ms(&issued, 1.0),
        );
        p99s.push(ms(&issued, 0.99));
        last = now;
    }
    let best = p99s.iter().copied().fold(f64::MAX, f64::min);
    let worst = p99s.iter().copied().fold(0.0, f64::max);
    println!("p99 from issued: {best:.3} to {worst:.3} ms, the worst window {:.1} times the best", worst / best);
    assert!(generator.wait(Duration::from_secs(50)), "it ends by itself");
    let books = generator.finish(Detail::Books).expect("its books");
    let net = &books.kernel.net;
    println!("TCPTimeWaitOverflow {}  verdicts {:?}", net.time_wait_overflows, books.measured.verdicts);
    books
}

#[test]
#[ignore = "a minute under load: cargo test --release -p acceptbench --test ports -- --ignored --nocapture"]
fn a_minute_of_fin_from_a_network_finds_a_port_for_every_attempt() {
    rerun::in_namespaces("a_minute_of_fin_from_a_network_finds_a_port_for_every_attempt", Own::Network, || {
        let namespace = two_namespaces();
        sysctl::write("net.ipv4.tcp_max_tw_buckets", "2000000").expect("a sysctl");
        let _server = start_server(&namespace);
        let plan = load("20000", "60s", Some("198.18.64.0/25"));
        assert_eq!(plan.budget().no_ports_expected, Some(0), "{:?}", plan.budget());
        assert_eq!(plan.budget().time_wait_overflows_after, None, "{:?}", plan.budget());
        let books = run(plan, 6, WINDOW);
        assert_eq!(books.measured.planned, 1_200_000);
        assert_eq!(books.measured.verdict(Verdict::NoPorts), 0, "{:?}", books.measured.verdicts);
        assert_eq!(books.kernel.net.time_wait_overflows, 0);
    });
}

#[test]
#[ignore = "half a minute under load: cargo test --release -p acceptbench --test ports -- --ignored --nocapture"]
fn all_the_ports_of_one_source_run_out_as_foretold() {
    rerun::in_namespaces("all_the_ports_of_one_source_run_out_as_foretold", Own::Network, || {
        let namespace = two_namespaces();
        let _server = start_server(&namespace);
        // A connect that finds no port has looked at all 28 232 of them, for 6 ms: more failures than these few would take
        // longer than TIME_WAIT lasts.
        let plan = load("5000", "5900ms", None);
        let expected = plan.budget().no_ports_expected.expect("an open loop with an end");
        let books = run(plan, 3, Duration::from_secs(2));
        let none = books.measured.verdict(Verdict::NoPorts);
        println!("no-ports {none} of {}, the budget said {expected}", books.measured.planned);
        assert!(none.abs_diff(expected) <= books.measured.planned / 50, "{none} no-ports, {expected} expected");
    });
}
