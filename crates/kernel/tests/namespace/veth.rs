//! The pair of namespaces every trial runs in.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use kernel::link::{LinkError, Links};
use kernel::namespace::{self, NetNs};
use kernel::netstat::{NetCounters, NetstatReader};
use kernel::sockopt::TcpState;
use kernel::sysctl;

use super::sockets::{client, eventually, listener, state};

pub(super) fn a_veth_pair_carries_tcp_of_both_families() {
    let addresses: [(IpAddr, IpAddr, u8); 2] = [
        (Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 18, 0, 2).into(), 15),
        (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(), 64),
    ];
    let families = if sysctl::exists("net.ipv6.conf.all.disable_ipv6") { 2 } else { 1 };
    let each_once = families as u64;
    let client_side = NetNs::current().expect("current");
    let server_side = namespace::new_net().expect("second namespace");
    let mut server_counters = NetstatReader::open().expect("open");
    client_side.enter().expect("enter");
    let mut client_counters = NetstatReader::open().expect("open");

    let mut links = Links::open().expect("links");
    links.add_veth("client0", "server0", &server_side).expect("veth");
    let again = links.add_veth("client0", "server1", &server_side).expect_err("taken");
    assert!(
        matches!(again, LinkError::Refused { ref source, .. } if source.raw_os_error() == Some(libc::EEXIST)),
        "{again}"
    );
    for (address, _, prefix) in &addresses[..families] {
        links.add_address("client0", *address, *prefix).expect("client address");
    }
    links.set_up("client0").expect("client up");
    let lonely = links.wait_running("client0", Duration::ZERO).expect_err("the other end is down");
    assert!(matches!(lonely, LinkError::NotRunning { .. }), "{lonely}");
    let absent = links.set_up("server0").expect_err("in the other namespace");
    assert!(
        matches!(absent, LinkError::Refused { ref source, .. } if source.raw_os_error() == Some(libc::ENODEV)),
        "{absent}"
    );

    server_side.enter().expect("enter");
    let mut links = Links::open().expect("links");
    links.set_up("server0").expect("server up");
    let mut listeners = Vec::new();
    for (_, address, prefix) in &addresses[..families] {
        links.add_address("server0", *address, *prefix).expect("server address");
        listeners.push(listener(SocketAddr::new(*address, 9700), 5));
    }

    let limit = Duration::from_secs(5);
    links.wait_running("server0", limit).expect("server end");
    client_side.enter().expect("enter");
    Links::open().expect("links").wait_running("client0", limit).expect("client end");
    for ((_, address, _), listener) in addresses.iter().zip(&listeners) {
        let mut client = client(SocketAddr::new(*address, 9700));
        eventually(&format!("connected across the pair to {address}"), || state(&client) == TcpState::Established);
        let (mut accepted, _) = listener.accept().expect("accept");
        accepted.write_all(b"!").expect("greet");
        client.set_nonblocking(false).expect("blocking");
        let mut byte = [0];
        client.read_exact(&mut byte).expect("greeting");
        assert_eq!(&byte, b"!");
    }
    let opens = |counters: NetCounters| (counters.active_opens, counters.passive_opens);
    assert_eq!(opens(client_counters.read().expect("read")), (each_once, 0));
    assert_eq!(opens(server_counters.read().expect("read")), (0, each_once));
}
