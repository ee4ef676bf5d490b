//! The pair of namespaces every trial runs in.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use kernel::link::{LinkError, Links};
use kernel::namespace::{self, NetNs};
use kernel::netstat::{NetCounters, NetstatReader};
use kernel::sockopt::TcpState;
use kernel::sysctl;
use socket2::{Domain, Socket, Type};

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

pub(super) fn a_network_of_ones_own_is_reached_through_the_neighbour() {
    let [server, client]: [IpAddr; 2] = [1, 2].map(|last| Ipv4Addr::new(198, 18, 0, last).into());
    let network: (IpAddr, u8) = (Ipv4Addr::new(198, 18, 64, 0).into(), 26);
    let client_side = NetNs::current().expect("current");
    let server_side = namespace::new_net().expect("second namespace");
    client_side.enter().expect("enter");
    let mut links = Links::open().expect("links");
    links.set_up("lo").expect("lo");
    links.add_veth("client0", "server0", &server_side).expect("veth");
    links.add_address("client0", client, 24).expect("client address");
    links.set_up("client0").expect("client up");
    let source = Ipv4Addr::new(198, 18, 64, 63);
    let bound = || std::net::UdpSocket::bind((source, 0)).is_ok();
    assert!(!bound(), "not ours yet");
    links.add_local_network("lo", network.0, network.1).expect("a local network");
    assert!(bound(), "every address of it");
    let again = links.add_local_network("lo", network.0, network.1).expect_err("there");
    assert!(
        again.to_string().contains("routing to itself through 'lo'") && again.to_string().contains("network"),
        "{again}"
    );
    let crooked = links.add_local_network("lo", source.into(), 26).expect_err("bits beyond the prefix");
    assert!(
        matches!(crooked, LinkError::Refused { ref source, .. } if source.raw_os_error() == Some(libc::EINVAL)),
        "{crooked}"
    );

    server_side.enter().expect("enter");
    let mut links_there = Links::open().expect("links");
    links_there.add_address("server0", server, 24).expect("server address");
    links_there.set_up("server0").expect("server up");
    let beyond =
        links_there.add_route_via("server0", network, Ipv4Addr::new(203, 0, 113, 1).into()).expect_err("no neighbour");
    assert!(beyond.to_string().contains("not on this link"), "{beyond}");
    links_there.add_route_via("server0", network, client).expect("a way back");
    let listener = listener(SocketAddr::new(server, 9700), 5);
    let limit = Duration::from_secs(5);
    links_there.wait_running("server0", limit).expect("server end");
    client_side.enter().expect("enter");
    links.wait_running("client0", limit).expect("client end");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::new(source.into(), 0).into()).expect("bind");
    socket.connect_timeout(&SocketAddr::new(server, 9700).into(), limit).expect("connect");
    let (_, peer) = listener.accept().expect("accept");
    assert_eq!(peer.as_socket().map(|peer| peer.ip()), Some(source.into()));
}
