//! The budget's rules against the kernel, in network namespaces of the test's own.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use kernel::link::Links;
use kernel::process::monotonic_ns;
use kernel::sysctl;
use loadgen::budget::{Budget, Rest};
use loadgen::opts::{Close, Confirm};
use loadgen::{Generator, Machine, Opts, Plan, Verdict};
use rerun::Own;
use telemetry::namespace::Detail;

/// An address of this host's that is no loopback address, though packets to it take the loopback device.
const OWN: [u8; 4] = [198, 18, 64, 1];

/// A server on `address` that closes each connection after its client has.
fn serve(address: impl Into<IpAddr>) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(address.into(), 9700)).expect("a listener");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.expect("a connection").read(&mut [0]);
        }
    });
    address
}

/// 120 connections in 0.6 s that the client closes first; the budget, and how many found no port.
fn run(target: SocketAddr, set: impl FnOnce(&mut Opts)) -> (Budget, u64) {
    let mut opts = Opts {
        target: target.into(),
        rate: "200".parse().expect("a rate"),
        duration: "600ms".parse().expect("a time"),
        deadline: "1s".parse().expect("a time"),
        confirm: Confirm::None,
        close: Close::Fin,
        ..Opts::default()
    };
    set(&mut opts);
    let plan = Plan::new(opts, &Machine::read()).expect("a valid load");
    let budget = plan.budget().clone();
    let generator = Generator::prepare(plan).expect("a generator");
    generator.begin(monotonic_ns());
    assert!(generator.wait(Duration::from_secs(10)), "it ends by itself");
    let books = generator.finish(Detail::Books).expect("its books");
    assert_eq!(books.budget.as_ref(), Some(&budget), "it is kept with the books");
    let none = books.measured.verdict(Verdict::NoPorts);
    assert_eq!(none + books.measured.verdict(Verdict::Connected), 120, "{:?}", books.measured.verdicts);
    (budget, none)
}

fn ten_ports() {
    sysctl::write("net.ipv4.ip_local_port_range", "40000 40009").expect("a sysctl");
}

#[test]
fn an_address_of_ones_own_is_no_loopback_address() {
    rerun::in_namespaces("an_address_of_ones_own_is_no_loopback_address", Own::Network, || {
        ten_ports();
        Links::open().and_then(|mut links| links.add_local_network("lo", OWN.into(), 32)).expect("an address");
        let target = serve(OWN);
        let (budget, none) = run(target, |_| ());
        assert_eq!((budget.rest, budget.ports), (Rest::TimeWait, Some(10)));
        assert_eq!((budget.no_ports_expected, none), (Some(110), 110));
        // The next run finds what this one left.
        let (budget, none) = run(target, |_| ());
        assert_eq!((budget.leftover, budget.no_ports_expected, none), (10, Some(120), 120));
        // From a loopback address the port comes back, as it does to one.
        let (budget, none) = run(target, |opts| opts.sources = "127.0.0.9".parse().ok());
        assert_eq!(budget.rest, Rest::Reused);
        assert_eq!(none, 110, "not within the first second");
        std::thread::sleep(Duration::from_millis(1100));
        let (_, none) = run(target, |opts| opts.sources = "127.0.0.9".parse().ok());
        assert_eq!(none, 110, "ten came back");
    });
}

#[test]
fn reserved_ports_and_time_stamps_count() {
    rerun::in_namespaces("reserved_ports_and_time_stamps_count", Own::Network, || {
        ten_ports();
        sysctl::write("net.ipv4.ip_local_reserved_ports", "40003-40005").expect("a sysctl");
        sysctl::write("net.ipv4.tcp_timestamps", "0").expect("a sysctl");
        let target = serve([127, 0, 0, 1]);
        let (budget, none) = run(target, |_| ());
        assert_eq!((budget.ports, budget.rest), (Some(7), Rest::TimeWait), "no reuse without time stamps");
        assert_eq!((budget.no_ports_expected, none), (Some(113), 113));
        std::thread::sleep(Duration::from_millis(1100));
        let (budget, none) = run(target, |_| ());
        assert_eq!((budget.leftover, none), (7, 120), "nor later");
    });
}
