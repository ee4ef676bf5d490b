//! What the crate claims about the kernel, checked in namespaces made for the purpose.
//!
//! Not libtest: unshare(2) with a user namespace needs a single-threaded process, so this program runs itself once per
//! case and privilege: as it is, and, when that is root, also as an ordinary user in a user namespace. All traffic
//! stays inside the case's own namespaces. A case that cannot run here says why; `ACCEPTBENCH_REQUIRE_NETNS=1` makes
//! that a failure.
#![expect(clippy::print_stdout, reason = "this is its own test runner")]

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

use kernel::link::Links;
use kernel::namespace::{NamespaceError, NetNs, Privilege};
use kernel::netstat::{NetCounters, NetstatReader};
use kernel::process::ExitSummary;
use kernel::sock_diag::SockDiag;
use kernel::sockopt::{self, TcpState};
use kernel::sysctl::{self, SysctlError};
use kernel::{namespace, process};
use socket2::{Domain, Socket, Type};

use sockets::{client, clients, connect, eventually, in_state, listener, loopback, state};

#[path = "namespace/runner.rs"]
mod runner;
#[path = "namespace/sockets.rs"]
mod sockets;
#[path = "namespace/veth.rs"]
mod veth;

const CASES: &[(&str, fn())] = &[
    ("counters_of_a_fresh_namespace_are_zero", counters_of_a_fresh_namespace_are_zero),
    ("a_reader_stays_with_the_namespace_it_was_opened_in", a_reader_stays_with_the_namespace_it_was_opened_in),
    ("a_veth_pair_carries_tcp_of_both_families", veth::a_veth_pair_carries_tcp_of_both_families),
    (
        "a_network_of_ones_own_is_reached_through_the_neighbour",
        veth::a_network_of_ones_own_is_reached_through_the_neighbour,
    ),
    ("capacity_is_the_queue_limit_plus_one", capacity_is_the_queue_limit_plus_one),
    ("half_open_requests_are_counted_by_port", half_open_requests_are_counted_by_port),
    ("a_filtered_listener_takes_nothing_more", a_filtered_listener_takes_nothing_more),
    ("closing_clients_are_counted_by_peer_port", closing_clients_are_counted_by_peer_port),
    ("a_sysctl_is_read_back_and_a_bad_value_refused", a_sysctl_is_read_back_and_a_bad_value_refused),
    ("settings_called_private_are_writable_here", settings_called_private_are_writable_here),
    ("the_next_child_is_pid_one", the_next_child_is_pid_one),
];

/// Names the case in a child's environment.
const CASE: &str = "KERNEL_TEST_CASE";
/// The privilege in a child's environment: `root` or `user`.
const PRIVILEGE: &str = "KERNEL_TEST_PRIVILEGE";
/// The case that is not in the list: what runs as pid 1.
const PID_ONE: &str = "pid-one";
/// Exit code of a case that cannot run here.
const SKIPPED: i32 = 77;

fn main() -> ExitCode {
    match std::env::var(CASE) {
        Ok(name) => run_case(&name),
        Err(_) => runner::run_all(CASES),
    }
}

fn run_case(name: &str) -> ExitCode {
    if name == PID_ONE {
        pid_one();
        return ExitCode::SUCCESS;
    }
    let parent = std::os::unix::process::parent_id();
    process::die_with_parent(Some(parent)).expect("parent");
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).expect("case");
    let privilege = match std::env::var(PRIVILEGE).as_deref() {
        Ok("root") => Privilege::Root,
        _ => Privilege::UserNamespace,
    };
    assert_eq!(namespace::privilege(), privilege, "the privilege this case was started with");
    match namespace::unshare_for_trial(privilege) {
        Ok(()) => {}
        Err(error @ NamespaceError::NoUserNamespaces { .. }) => skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(rustix::process::geteuid().as_raw(), 0, "root, at least in here");
    Links::open().expect("links").set_up("lo").expect("loopback");
    case();
    ExitCode::SUCCESS
}

fn skip(reason: &str) -> ! {
    println!("{reason}");
    std::process::exit(SKIPPED)
}

fn counters_of_a_fresh_namespace_are_zero() {
    assert_eq!(NetstatReader::open().expect("open").read().expect("read"), NetCounters::default());
    let states = SockDiag::open().expect("open").states().expect("states");
    assert_eq!(states.values().sum::<u64>(), 0, "{states:?}");
}

fn a_reader_stays_with_the_namespace_it_was_opened_in() {
    let first = NetNs::current().expect("current");
    let mut reader = NetstatReader::open().expect("open");
    let second = namespace::new_net().expect("second");
    assert_ne!(first.inode().expect("inode"), second.inode().expect("inode"));
    assert_eq!(NetNs::current().expect("current").inode().expect("inode"), second.inode().expect("inode"));
    Links::open().expect("links").set_up("lo").expect("loopback");

    let listener = listener(loopback(9700), 5);
    let client = client(loopback(9700));
    eventually("connected", || state(&client) == TcpState::Established);
    assert_eq!(NetstatReader::open().expect("open").read().expect("read").passive_opens, 1);
    assert_eq!(reader.read().expect("read"), NetCounters::default());

    NetNs::from(OwnedFd::from(first)).enter().expect("back");
    assert_eq!(NetstatReader::open().expect("open").read().expect("read"), NetCounters::default());
    drop(listener);
}

fn capacity_is_the_queue_limit_plus_one() {
    const EXCESS: u32 = 3;
    let has_somaxconn = sysctl::exists("net.core.somaxconn");
    if has_somaxconn {
        sysctl::write("net.core.somaxconn", "16").expect("somaxconn");
    }
    let mut counters = NetstatReader::open().expect("open");
    let mut expected_overflows = 0;
    for (port, backlog) in [(9700, 0u32), (9701, 1), (9702, 5), (9703, 16), (9704, 100)] {
        if !has_somaxconn && backlog > 16 {
            continue;
        }
        let limit = backlog.min(16);
        let capacity = limit + 1;
        let listener = listener(loopback(port), backlog.cast_signed());
        let clients = clients(capacity + EXCESS, loopback(port));
        eventually("the queue fills", || in_state(&clients, TcpState::Established) == capacity);
        assert_eq!(in_state(&clients, TcpState::SynSent), EXCESS);

        let info = sockopt::tcp_info(&listener).expect("TCP_INFO");
        assert_eq!((info.state, info.unacked, info.sacked), (TcpState::Listen, capacity, limit));
        assert_eq!(sockopt::socket_drops(&listener).expect("drops"), EXCESS);
        let entries = SockDiag::open().expect("open").listeners().expect("listeners");
        let entry = entries.iter().find(|entry| entry.local == loopback(port)).expect("our listener");
        assert_eq!((entry.depth, entry.limit, entry.drops), (info.unacked, limit, Some(EXCESS)));

        expected_overflows += u64::from(EXCESS);
        let read = counters.read().expect("read");
        assert_eq!((read.listen_overflows, read.listen_drops), (expected_overflows, expected_overflows));
    }
}

fn half_open_requests_are_counted_by_port() {
    const HALF_OPEN: u32 = 5;
    let _listeners = [listener(loopback(9700), 16), listener(loopback(9701), 16)];
    let clients: Vec<Socket> = (0..HALF_OPEN)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            sockopt::drop_all_filter(&socket).expect("filter");
            connect(&socket, loopback(9700));
            socket
        })
        .collect();
    let mut diag = SockDiag::open().expect("open");
    eventually("requests appear", || diag.syn_recv(9700).expect("dump") == HALF_OPEN);
    assert_eq!(diag.syn_recv(9701).expect("dump"), 0);
    assert_eq!(diag.syn_recv_of(&[9701, 9700]).expect("dump"), u64::from(HALF_OPEN));
    assert_eq!(diag.syn_recv_of(&[9701, 9702]).expect("dump"), 0);
    assert_eq!(diag.states_and_syn_recv(&[9701, 9700]).expect("dump").1, u64::from(HALF_OPEN));
    let states = diag.states().expect("states");
    assert_eq!((states["syn_recv"], states["syn_sent"], states["listen"]), (5, 5, 2), "{states:?}");
    assert_eq!(in_state(&clients, TcpState::SynSent), HALF_OPEN);
    assert_eq!(NetstatReader::open().expect("open").read().expect("read").passive_opens, 0);
}

fn a_filtered_listener_takes_nothing_more() {
    let listener = listener(loopback(9700), 16);
    let before = clients(2, loopback(9700));
    eventually("connected", || in_state(&before, TcpState::Established) == 2);
    sockopt::drop_all_filter(&listener).expect("filter");
    let during = clients(3, loopback(9700));
    eventually("three SYNs are dropped", || sockopt::socket_drops(&listener).expect("drops") == 3);
    assert_eq!(sockopt::tcp_info(&listener).expect("TCP_INFO").unacked, 2);
    assert_eq!(in_state(&during, TcpState::SynSent), 3);
    sockopt::detach_filter(&listener).expect("detach");
    let after = clients(1, loopback(9700));
    eventually("open again", || in_state(&after, TcpState::Established) == 1);
    assert_eq!(sockopt::tcp_info(&listener).expect("TCP_INFO").unacked, 3);
}

fn closing_clients_are_counted_by_peer_port() {
    let listener = listener(loopback(9700), 16);
    let client = client(loopback(9700));
    eventually("connected", || state(&client) == TcpState::Established);
    let (accepted, _) = listener.accept().expect("accept");
    let mut diag = SockDiag::open().expect("open");
    assert_eq!(diag.client_closing(9700).expect("dump"), 0);
    // The server's side never sees the FIN, so it is never acknowledged.
    sockopt::drop_all_filter(&accepted).expect("filter");
    drop(client);
    eventually("FIN_WAIT1", || diag.client_closing(9700).expect("dump") == 1);
    assert_eq!(diag.client_closing(9701).expect("dump"), 0);
}

fn a_sysctl_is_read_back_and_a_bad_value_refused() {
    const NAME: &str = "net.ipv4.tcp_max_syn_backlog";
    assert_eq!(sysctl::write(NAME, "77").expect("write"), "77");
    assert_eq!(sysctl::read(NAME).expect("read"), "77");
    assert_eq!(sysctl::recorded()[NAME], "77");
    assert_eq!(sysctl::write("net.ipv4.ip_local_port_range", "40000 40010").expect("write"), "40000 40010");
    for (name, value) in [(NAME, "many"), ("net.ipv4.tcp_congestion_control", "no-such-algorithm")] {
        let error = sysctl::write(name, value).expect_err("refused");
        assert!(matches!(error, SysctlError::Value { .. }), "{error}");
    }
    let error = sysctl::write("net.ipv4.no_such_setting", "1").expect_err("missing");
    assert!(matches!(error, SysctlError::Missing { .. }), "{error}");
    // Another namespace has the defaults again.
    namespace::new_net().expect("second namespace");
    assert_ne!(sysctl::read(NAME).expect("read"), "77");
}

/// The list of global settings is hand-written: whatever it calls private must not be hidden or read-only here. Of the
/// settings that this project is about; others (a multicast flag) are read-only for other reasons.
fn settings_called_private_are_writable_here() {
    let mut checked = 0;
    for (directory, prefix) in [("net/core", ""), ("net/ipv4", "tcp_")] {
        for entry in std::fs::read_dir(format!("/proc/sys/{directory}")).expect("directory") {
            let entry = entry.expect("entry");
            let leaf = entry.file_name().into_string().expect("UTF-8");
            let name = format!("{directory}/{leaf}");
            if leaf.starts_with(prefix) && sysctl::classify(&name).is_ok() {
                let mode = entry.metadata().expect("metadata").permissions().mode();
                assert_ne!(mode & 0o200, 0, "{name} is called private, but is read-only here");
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "{checked}");
}

fn the_next_child_is_pid_one() {
    let program = std::env::current_exe().expect("own path");
    let mut child = Command::new(program).env(CASE, PID_ONE).spawn().expect("spawn");
    let mut ended = None;
    eventually("the child ends", || {
        ended = process::reap_any().expect("reap");
        ended.is_some()
    });
    let outside_pid = i32::try_from(child.id()).expect("pid");
    assert_eq!(ended, Some((outside_pid, ExitSummary::Code(0))));
    assert_eq!(process::reap_any().expect("no children"), None);
    child.wait().expect_err("reaped already");
}

fn pid_one() {
    assert_eq!(std::process::id(), 1);
    process::die_with_parent(None).expect("PDEATHSIG");
    process::die_with_parent(Some(4242)).expect_err("the parent has no number here");
    // /proc is still the outer namespace's.
    let stats = process::stats().expect("stats");
    assert!(stats.open_fds >= 3 && stats.resident_bytes > 0, "{stats:?}");
    NetstatReader::open().expect("open").read().expect("read");
}
