//! Several listeners on one port: who gets what.

use std::time::Duration;

use kernel::{namespace, process, sockopt, sysctl};
use rustix::net::sockopt::set_socket_incoming_cpu;
use socket2::Socket;

use super::{PORT, SOMAXCONN, SOON, depth, join};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, outcome, result_name};

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.several-listeners-one-port",
        group: Group::Listen,
        notes: &["3.8"],
        facts: &["0.many-processes"],
        says: "Several processes may listen on one address and port and accept different connections.",
        why: "with SO_REUSEPORT on all, each is a listener of a group (reuseport_select_sock); without, bind gives EADDRINUSE",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "without SO_REUSEPORT", is: Is::Text("EADDRINUSE") },
            Expect { figure: "with SO_REUSEPORT", is: Is::Text("ok") },
            Expect { figure: "both take some, all of 100", is: Is::Text("yes") },
        ],
        known: Verdict::Holds,
        measure: several_listeners,
    },
    Claim {
        name: "listen.reuseport-spreads-evenly",
        group: Group::Listen,
        notes: &[],
        facts: &["5.reuseport-uniform"],
        says: "Connections of one client are spread evenly over the listeners of a SO_REUSEPORT group.",
        why: "reuseport_select_sock scales a hash of the four addresses and ports (reciprocal_scale)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "queued", is: Is::Exactly(4000.0) },
            // Chance alone exceeds 21.1 once in ten thousand times.
            Expect { figure: "chi-squared of 4 listeners", is: Is::Between(0.0, 21.1) },
        ],
        known: Verdict::Holds,
        measure: spreads_evenly,
    },
    Claim {
        name: "listen.reuseport-spreads-few-unevenly",
        group: Group::Listen,
        notes: &[],
        facts: &["5.reuseport-small"],
        says: "Of 100 connections the busiest of four listeners gets about a sixth more than its share, as chance has it.",
        why: "each connection is hashed by itself; nobody looks at the queues",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "busiest / mean, median of 31", is: Is::Between(1.07, 1.3) }],
        known: Verdict::Holds,
        measure: spreads_few_unevenly,
    },
    Claim {
        name: "listen.reuseport-full-listener",
        group: Group::Listen,
        notes: &[],
        facts: &["5.reuseport-full"],
        says: "A full listener of a group drops SYNs while its siblings have room, and drops their retransmissions too.",
        why: "the hash of the same four addresses and ports chooses the same listener again, full or not",
        ends: Ends::Loopback,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "siblings have room", is: Is::Text("yes") },
            Expect { figure: "connect, after 3 SYNs", is: Is::Text("SYN_SENT") },
            Expect { figure: "server.ListenOverflows", is: Is::Exactly(3.0) },
        ],
        known: Verdict::Holds,
        measure: full_listener,
    },
    Claim {
        name: "listen.reuseport-by-cpu",
        group: Group::Listen,
        notes: &[],
        facts: &["5.reuseport-cpu", "5.loopback-billing"],
        says: "A classic BPF program of CPU mod 2, or SO_INCOMING_CPU, gives a listener the connections of one client CPU.",
        why: "over loopback the SYN is handled on the CPU of the client that sends it",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "program", is: Is::Text("50 0, 0 50") },
            Expect { figure: "SO_INCOMING_CPU", is: Is::Text("50 0, 0 50") },
        ],
        known: Verdict::Holds,
        measure: by_cpu,
    },
    Claim {
        name: "listen.child-hash-scales-the-syn-backlog",
        group: Group::Listen,
        notes: &[],
        facts: &["11.child-ehash"],
        says: "tcp_child_ehash_entries=1024 gives the next namespace a hash of its own, and tcp_max_syn_backlog 128 with it.",
        why: "tcp_set_hashinfo sizes the hash, sysctl_max_syn_backlog and tw_buckets from the creator's value (net/ipv4/tcp_ipv4.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "tcp_max_syn_backlog", is: Is::Text("128") },
            Expect { figure: "tcp_max_tw_buckets", is: Is::Text("512") },
            Expect { figure: "tcp_child_ehash_entries", is: Is::Text("0") },
        ],
        known: Verdict::Holds,
        measure: child_hash,
    },
];

/// A listener of a `SO_REUSEPORT` group.
pub(super) fn member(scene: &Scene, port: u16, backlog: i32) -> Result<Socket, ProbeError> {
    let socket = scene.socket()?;
    socket.set_reuse_port(true).doing("set SO_REUSEPORT")?;
    socket.bind(&scene.address(port).into()).doing("bind a listener of a group")?;
    socket.listen(backlog).doing("listen")?;
    Ok(socket)
}

/// Their queues, once there are so many connections in all.
pub(super) fn depths(listeners: &[Socket], in_all: usize) -> Result<Vec<u32>, ProbeError> {
    let now = || listeners.iter().map(depth).collect::<Result<Vec<_>, _>>();
    eventually(SOON, || Ok(now()?.iter().sum::<u32>() as usize >= in_all))?;
    now()
}

fn group(scene: &Scene, port: u16, members: usize, backlog: i32) -> Result<Vec<Socket>, ProbeError> {
    (0..members).map(|_| member(scene, port, backlog)).collect()
}

fn several_listeners(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let alone = scene.listen(PORT, 8)?;
    let second = scene.socket()?;
    second.set_reuse_address(true).doing("set SO_REUSEADDR")?;
    let refused = result_name(&second.bind(&scene.address(PORT).into()).and_then(|()| second.listen(8)));
    drop((alone, second));
    let first = member(scene, PORT + 1, 128)?;
    let other = member(scene, PORT + 1, 128);
    let joined = if other.is_ok() { "ok" } else { "refused" };
    let listeners = [first, other?];
    let _clients = scene.connect_many(100, PORT + 1)?;
    let queues = depths(&listeners, 100)?;
    let shared = queues.iter().all(|queue| *queue > 0) && queues.iter().sum::<u32>() == 100;
    let shared = if shared { "yes" } else { "no" };
    let did = format!(
        "second listener: {refused} without SO_REUSEPORT, {joined} with; both take some of 100 clients: {shared}"
    );
    Ok(Observed::new()
        .text("without SO_REUSEPORT", refused)
        .text("with SO_REUSEPORT", joined)
        .text("both take some, all of 100", shared)
        .did(did))
}

fn spreads_evenly(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const COUNT: u32 = 4000;
    scene.sysctl(SOMAXCONN, 4096)?;
    let listeners = group(scene, PORT, 4, 4096)?;
    let _clients = scene.connect_many(COUNT as usize, PORT)?;
    let queues = depths(&listeners, COUNT as usize)?;
    let mean = f64::from(COUNT) / 4.0;
    let chi_squared: f64 = queues.iter().map(|queue| (f64::from(*queue) - mean).powi(2) / mean).sum();
    let even = if chi_squared <= 21.1 { "evenly but for chance" } else { "unevenly" };
    Ok(Observed::new()
        .number("queued", queues.iter().sum::<u32>())
        .number("chi-squared of 4 listeners", chi_squared)
        .did(format!("{COUNT} connections over 4 listeners: {even}")))
}

fn spreads_few_unevenly(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const ROUNDS: u16 = 31;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let listeners = group(scene, PORT + round, 4, 128)?;
        let _clients = scene.connect_many(100, PORT + round)?;
        let queues = depths(&listeners, 100)?;
        ratios.push(f64::from(queues.into_iter().max().unwrap_or(0)) / 25.0);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let did = if median > 1.07 { "the busiest gets clearly more than its share" } else { "all get their share" };
    Ok(Observed::new()
        .number("busiest / mean, median of 31", median)
        .did(format!("100 connections, 4 listeners: {did}")))
}

fn full_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const CAPACITY: u32 = 200;
    let listeners = group(scene, PORT, 4, 199)?;
    let mut clients = Vec::new();
    // One by one until the first is dropped: over loopback a SYN that is taken is answered before connect(2) returns.
    let refused = loop {
        let client = scene.connect(PORT)?;
        let overflowed = eventually(SOON, || {
            let queues = listeners.iter().map(depth).sum::<Result<u32, _>>()? as usize;
            Ok(queues > clients.len() || scene.server_counter("ListenOverflows")? > 0)
        })?;
        if !overflowed || scene.server_counter("ListenOverflows")? > 0 {
            break client;
        }
        clients.push(client);
    };
    let room = 4 * CAPACITY - u32::try_from(clients.len()).unwrap_or(u32::MAX).min(4 * CAPACITY);
    eventually(Duration::from_secs(3), || Ok(scene.server_counter("ListenOverflows")? >= 3))?;
    let connect = outcome(&refused, Duration::from_millis(100))?;
    let room = if room > 0 { "yes" } else { "no" };
    let did = format!("first dropped client: siblings have room: {room}; after SYNs at 0, 1, 2 s it is {connect}");
    Ok(Observed::new().text("siblings have room", room).text("connect, after 3 SYNs", connect).did(did))
}

fn by_cpu(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let cpus = process::allowed_cpus().doing("read the CPUs")?;
    // The program takes CPU mod 2, so one even and one odd.
    let (Some(even), Some(odd)) = (cpus.iter().find(|cpu| *cpu % 2 == 0), cpus.iter().find(|cpu| *cpu % 2 == 1)) else {
        return Err(ProbeError::CannotHere("needs an even and an odd CPU".to_owned()));
    };
    let mut results = Vec::new();
    for (port, program) in [(PORT, true), (PORT + 10, false)] {
        let mut counts = Vec::new();
        for (port, cpu) in [(port, *even), (port + 1, *odd)] {
            let listeners = group(scene, port, 2, 128)?;
            if program {
                sockopt::steer_by_cpu(&listeners[0], 2).doing("attach a program")?;
            } else {
                for (listener, cpu) in listeners.iter().zip([*even, *odd]) {
                    let cpu = u32::try_from(cpu).unwrap_or(u32::MAX);
                    set_socket_incoming_cpu(listener, cpu).doing("set SO_INCOMING_CPU")?;
                }
            }
            process::pin_to_cpu(cpu).doing("pin the client")?;
            let _clients = scene.connect_many(50, port)?;
            counts.push(join(depths(&listeners, 50)?));
        }
        results.push(counts.join(", "));
    }
    let did = format!(
        "50 clients on an even CPU, 50 on an odd one: {} by program, {} by SO_INCOMING_CPU",
        results[0], results[1]
    );
    Ok(Observed::new().text("program", results[0].as_str()).text("SO_INCOMING_CPU", results[1].as_str()).did(did))
}

fn child_hash(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const NAMES: [&str; 3] =
        ["net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_max_tw_buckets", "net.ipv4.tcp_child_ehash_entries"];
    scene.sysctl(NAMES[2], 1024)?;
    // A thread of its own: it stays in the namespace it makes.
    let values = std::thread::spawn(|| {
        namespace::new_net().map_err(|error| ProbeError::CannotHere(error.to_string()))?;
        NAMES
            .iter()
            .map(|name| sysctl::read(name).map_err(|error| ProbeError::CannotHere(error.to_string())))
            .collect::<Result<Vec<_>, _>>()
    });
    let values = values.join().map_err(|_| ProbeError::Failed("a thread panicked".to_owned()))??;
    let mut observed = Observed::new();
    for (name, value) in NAMES.iter().zip(&values) {
        observed = observed.text(name.trim_start_matches("net.ipv4."), value.as_str());
    }
    let did = format!("tcp_max_syn_backlog, tcp_max_tw_buckets, tcp_child_ehash_entries there: {}", values.join(", "));
    Ok(observed.did(did))
}
