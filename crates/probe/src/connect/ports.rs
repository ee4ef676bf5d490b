//! A client's other limits: ports of its own choosing, descriptors, itself.

use std::time::Instant;

use kernel::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::{AT_ONCE, FullListener, PORT, received};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, outcome, result_name, start};

/// The sysctl of the ports that connect chooses from.
pub(super) const RANGE: &str = "net.ipv4.ip_local_port_range";

/// A range for the search: so many ports, and how often a step is timed in each part of it.
const SEARCHED: u16 = 8000;
const TIMED: usize = 200;
/// Descriptors that the search needs beside its sockets.
const SPARE: u64 = 64;

/// How often a client connects to an odd port in vain, and to an even one until it meets itself.
const ATTEMPTS: u32 = 2000;

/// The claims about these limits.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.port-parity",
        group: Group::Connect,
        notes: &[],
        facts: &["7.parity"],
        says: "connect takes ports of the parity of the range's first port as long as there are any.",
        why: "__inet_hash_connect (net/ipv4/inet_hashtables.c) searches one half of the range in steps of 2 and leaves the \
              other to bind(2)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "even-of-200", is: Is::Exactly(200.0) },
            Expect { figure: "first-half-even", is: Is::Exactly(5.0) },
            Expect { figure: "second-half-odd", is: Is::Exactly(5.0) },
        ],
        known: Verdict::Holds,
        measure: parity,
    },
    Claim {
        name: "connect.port-search-cost",
        group: Group::Connect,
        notes: &[],
        facts: &["7.search-cost"],
        says: "When half of the range is in use, each connect costs many times more: it tries that half in vain first.",
        why: "__inet_hash_connect visits every port of the first parity before one of the other (net/ipv4/inet_hashtables.c); \
              with half of 8000 ports that is 4000 visits",
        ends: Ends::Loopback,
        takes: Takes::Alone,
        expects: &[Expect { figure: "cost-ratio", is: Is::Between(10.0, 1000.0) }],
        known: Verdict::Holds,
        measure: search_cost,
    },
    Claim {
        name: "connect.no-descriptor",
        group: Group::Connect,
        notes: &[],
        facts: &["7.nofile"],
        says: "A client out of descriptors fails with EMFILE at socket(2), before there is anything to connect.",
        why: "RLIMIT_NOFILE is checked when a descriptor is allocated (fs/file.c, alloc_fd); connect(2) needs no new one",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "socket", is: Is::Text("EMFILE") },
            Expect { figure: "last-connects", is: Is::Text("ECONNREFUSED") },
        ],
        known: Verdict::Holds,
        measure: no_descriptor,
    },
    Claim {
        name: "connect.self-connect",
        group: Group::Connect,
        notes: &[],
        facts: &["7.self-connect"],
        says: "A connect to a closed port within the own range can connect to itself and read its own bytes.",
        why: "the source port chosen may be the destination port; the SYN then meets its own sender in SYN_SENT, a \
              simultaneous open (RFC 9293, 3.5), which is no passive open",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connected", is: Is::Text("to itself") },
            Expect { figure: "attempts", is: Is::Between(1.0, 200.0) },
            Expect { figure: "reads-own-byte", is: Is::Text("data") },
            Expect { figure: "server.PassiveOpens", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: self_connect,
    },
    Claim {
        name: "connect.self-connect-parity",
        group: Group::Connect,
        notes: &[],
        facts: &["7.self-connect"],
        says: "A closed port of the range's other parity is never met that way: a server port of that parity is safe.",
        why: "connect tries ports of the first parity first (__inet_hash_connect), and some of them is always free",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "self-connects", is: Is::Exactly(0.0) },
            Expect { figure: "refused", is: Is::Exactly(ATTEMPTS as f64) },
        ],
        known: Verdict::Holds,
        measure: self_connect_parity,
    },
];

/// The local port of a socket.
pub(super) fn local_port(socket: &Socket) -> Result<u16, ProbeError> {
    let address = socket.local_addr().doing("read the local address")?.as_socket();
    address.map(|address| address.port()).ok_or_else(|| ProbeError::Failed("a socket without an address".to_owned()))
}

fn parity(scene: &mut Scene) -> Result<Observed, ProbeError> {
    // Clients stay in SYN_SENT: their ports are taken all the same.
    let _full = FullListener::new(scene, PORT)?;
    let ports = |count: usize| {
        let clients = scene.connect_many(count, PORT)?;
        clients.iter().map(local_port).collect::<Result<Vec<_>, _>>()
    };
    let even = |ports: &[u16]| u32::try_from(ports.iter().filter(|port| *port % 2 == 0).count()).unwrap_or(0);
    scene.sysctl(RANGE, "40000 49999")?;
    let even_of_200 = even(&ports(200)?);
    scene.sysctl(RANGE, "40000 40009")?;
    let ten = ports(10)?;
    let (first, second) = ten.split_at(5);
    let odd = 5 - even(second);
    let did = format!(
        "range from an even port: {even_of_200} of 200 even; of ten ports {} even, then {odd} odd",
        even(first)
    );
    Ok(Observed::new()
        .number("even-of-200", even_of_200)
        .number("first-half-even", even(first))
        .number("second-half-odd", odd)
        .did(did))
}

fn search_cost(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let half = usize::from(SEARCHED / 2);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < half as u64 + TIMED as u64 + SPARE {
        return Err(ProbeError::CannotHere(format!("needs {half} descriptors, has {limit}")));
    }
    let low = 40000;
    scene.sysctl(RANGE, format!("{low} {}", low + SEARCHED - 1))?;
    let _full = FullListener::new(scene, PORT)?;
    let mut clients = Vec::with_capacity(half + TIMED);
    let mut times = Vec::with_capacity(half + TIMED);
    // The connection in the queue has a port of the first half already.
    for _ in 0..half - 1 + TIMED {
        let client = scene.client_socket()?;
        let began = Instant::now();
        start(&client, scene.address(PORT)).doing("connect")?;
        times.push(began.elapsed().as_secs_f64());
        clients.push(client);
    }
    let median = |times: &mut [f64]| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let cheap = median(&mut times[..TIMED]);
    let dear = median(&mut times[half - 1..]);
    let ratio = dear / cheap;
    let words = if ratio >= 10.0 { "more than 10 times" } else { "less than 10 times" };
    Ok(Observed::new()
        .number("first-us", cheap * 1e6)
        .number("past-half-us", dear * 1e6)
        .number("cost-ratio", ratio)
        .did(format!("past half of {SEARCHED} ports a connect costs {words} as much as the first ones")))
}

fn no_descriptor(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(SPARE), maximum: limit.maximum })
        .doing("lower RLIMIT_NOFILE")?;
    let mut clients = Vec::new();
    let error = loop {
        match Socket::new(Domain::IPV4, Type::STREAM, None) {
            Ok(client) if clients.len() as u64 <= SPARE => clients.push(client),
            other => break result_name(&other),
        }
    };
    let last = clients.last().map(|client| result_name(&client.connect(&scene.address(PORT).into())));
    drop(clients);
    setrlimit(Resource::Nofile, limit).doing("raise RLIMIT_NOFILE")?;
    let last = last.unwrap_or_default();
    let did = format!("socket gives {error}; the last socket still connects: {last}, as nobody listens");
    Ok(Observed::new().text("socket", error).text("last-connects", last).did(did))
}

/// Connects to a closed port of the own range until that connects, at most [`ATTEMPTS`] times; how often it was tried
/// and the client.
fn meet_oneself(scene: &Scene, port: u16) -> Result<(u32, Option<Socket>), ProbeError> {
    scene.sysctl(RANGE, "40000 40003")?;
    for attempt in 1..=ATTEMPTS {
        let client = scene.connect(port)?;
        if outcome(&client, AT_ONCE)? == "connected" {
            return Ok((attempt, Some(client)));
        }
    }
    Ok((ATTEMPTS, None))
}

fn self_connect(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (attempts, client) = meet_oneself(scene, 40002)?;
    let Some(client) = client else {
        return Ok(Observed::new().text("connected", "never").did(format!("{attempts} attempts, no connection")));
    };
    let peer = client.peer_addr().doing("read the peer's address")?;
    let own = client.local_addr().doing("read the local address")?;
    let connected = if peer == own { "to itself" } else { "to another" };
    let mut writer = &client;
    std::io::Write::write_all(&mut writer, b"x").doing("write to itself")?;
    let read = received(&client, AT_ONCE)?;
    let did = format!("nobody listens on an even port of the range: connected {connected}, reads its own {read}");
    Ok(Observed::new().text("connected", connected).number("attempts", attempts).text("reads-own-byte", read).did(did))
}

fn self_connect_parity(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (attempts, client) = meet_oneself(scene, 40001)?;
    let met = u32::from(client.is_some());
    let refused = attempts - met;
    Ok(Observed::new()
        .number("self-connects", met)
        .number("refused", refused)
        .did(format!("an odd port of a range from an even one: {met} self-connects, {refused} refused")))
}

/// Limits the ports of one socket.
pub(super) fn limit_ports(client: &Socket, low: u16, high: u16) -> Result<(), ProbeError> {
    sockopt::set_local_port_range(client, low, high)
        .map_err(|error| ProbeError::CannotHere(format!("IP_LOCAL_PORT_RANGE, new in Linux 6.3: {error}")))
}
