//! How many finished connections fit: min(backlog, somaxconn) + 1, as of the last listen(2).

use super::{Mark, PORT, SOMAXCONN, SOON, depth, drops, fill, join, limit, take};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, in_state};
use kernel::sockopt::TcpState;
use kernel::sysctl::{self, SysctlError};

/// Clients beyond what fits.
const EXCESS: u32 = 3;

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.backlog-is-the-longest-queue",
        group: Group::Listen,
        notes: &["3.1", "3.6"],
        facts: &[],
        says: "The backlog is the largest number of finished connections that wait.",
        why: "sk_acceptq_is_full is true when the queue is longer than sk_max_ack_backlog (include/net/sock.h), so one \
              more fits",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[Expect { figure: "backlog 5", is: Is::Exactly(5.0) }],
        known: Verdict::Differs,
        measure: backlog_five,
    },
    Claim {
        name: "listen.backlog-plus-one",
        group: Group::Listen,
        notes: &[],
        facts: &["0.backlog-plus-one"],
        says: "One connection more than the backlog waits.",
        why: "sk_acceptq_is_full compares with > (include/net/sock.h)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[Expect { figure: "backlog 5", is: Is::Exactly(6.0) }],
        known: Verdict::Holds,
        measure: backlog_five,
    },
    Claim {
        name: "listen.capacity",
        group: Group::Listen,
        notes: &[],
        facts: &["0.backlog-plus-one", "1.capacity", "1.somaxconn-caps"],
        says: "A listener queues min(backlog, somaxconn) + 1 connections, for backlog 0 as well.",
        why: "__sys_listen caps the backlog with somaxconn (net/socket.c), sk_acceptq_is_full lets one more in",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "somaxconn 16", is: Is::Text("1 2 6 17 17") },
            Expect { figure: "somaxconn 128", is: Is::Text("1 2 6 129 129") },
            Expect { figure: "somaxconn 4096", is: Is::Text("1 2 6 129 4097") },
        ],
        known: Verdict::Holds,
        measure: capacity,
    },
    Claim {
        name: "listen.somaxconn-bounds-the-backlog",
        group: Group::Listen,
        notes: &["3.9"],
        facts: &["1.somaxconn-caps"],
        says: "The kernel bounds the backlog: a listener that wants more needs a larger net.core.somaxconn.",
        why: "__sys_listen takes the smaller of the two (net/socket.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "limit, somaxconn 128", is: Is::Exactly(128.0) },
            Expect { figure: "limit, somaxconn 5000", is: Is::Exactly(5000.0) },
        ],
        known: Verdict::Holds,
        measure: somaxconn_bounds,
    },
    Claim {
        name: "listen.minus-one",
        group: Group::Listen,
        notes: &[],
        facts: &["0.listen-minus-one"],
        says: "listen(-1) means somaxconn.",
        why: "__sys_listen compares the backlog as unsigned (net/socket.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "limit, somaxconn 4096", is: Is::Exactly(4096.0) },
            Expect { figure: "limit, somaxconn 77", is: Is::Exactly(77.0) },
        ],
        known: Verdict::Holds,
        measure: minus_one,
    },
    Claim {
        name: "listen.no-16-bit-limit",
        group: Group::Listen,
        notes: &[],
        facts: &["1.no-u16-limit"],
        says: "A limit above 65535 is taken when somaxconn allows it; somaxconn itself ends at 2^31 - 1.",
        why: "sk_max_ack_backlog has 32 bits (include/net/sock.h); the sysctl is an int (net/core/sysctl_net_core.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "limit of 70000", is: Is::Exactly(70000.0) },
            Expect { figure: "somaxconn 2147483647", is: Is::Text("ok") },
            Expect { figure: "somaxconn 2147483648", is: Is::Text("EINVAL") },
        ],
        known: Verdict::Holds,
        measure: no_16_bit_limit,
    },
    Claim {
        name: "listen.somaxconn-read-at-listen",
        group: Group::Listen,
        notes: &[],
        facts: &["1.capped-at-listen"],
        says: "somaxconn is read when listen is called: a later change does nothing until listen is called again.",
        why: "__sys_listen is its only reader on this path",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "limits", is: Is::Text("128 128 128 4096") },
            Expect { figure: "queued", is: Is::Exactly(129.0) },
        ],
        known: Verdict::Holds,
        measure: somaxconn_read_at_listen,
    },
    Claim {
        name: "listen.again-larger",
        group: Group::Listen,
        notes: &[],
        facts: &["1.relisten"],
        says: "listen on a live listener with a larger backlog makes room at once.",
        why: "inet_listen of a socket in LISTEN only sets sk_max_ack_backlog (__inet_listen_sk)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "queued with 2", is: Is::Exactly(3.0) },
            Expect { figure: "queued with 10", is: Is::Exactly(11.0) },
        ],
        known: Verdict::Holds,
        measure: again_larger,
    },
    Claim {
        name: "listen.again-smaller",
        group: Group::Listen,
        notes: &[],
        facts: &["1.relisten"],
        says: "listen with a smaller backlog keeps what is queued, takes nothing new, and all of it can be accepted.",
        why: "only the limit changes; the queue is compared with it when the next SYN comes",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "queue/limit", is: Is::Text("11/1") },
            Expect { figure: "new", is: Is::Exactly(0.0) },
            Expect { figure: "accepted", is: Is::Exactly(11.0) },
        ],
        known: Verdict::Holds,
        measure: again_smaller,
    },
    Claim {
        name: "listen.excess-syn-counters",
        group: Group::Listen,
        notes: &[],
        facts: &["1.excess-syn", "1.passive-opens"],
        says: "A SYN beyond the capacity counts ListenOverflows, ListenDrops and a drop of the socket, once each; \
               PassiveOpens is what entered.",
        why: "tcp_conn_request drops it (tcp_listendrop); PassiveOpens counts children (tcp_create_openreq_child)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "overflows, drops, socket drops", is: Is::Text("5 5 5") },
            Expect { figure: "PassiveOpens", is: Is::Exactly(4.0) },
            Expect { figure: "SYNs", is: Is::Exactly(9.0) },
        ],
        known: Verdict::Holds,
        measure: excess_syn_counters,
    },
];

/// How many of the clients beyond a full queue are connected: `expected` fit, three more try.
fn connected(scene: &Scene, expected: u32, port: u16) -> Result<usize, ProbeError> {
    let clients = scene.connect_many((expected + EXCESS) as usize, port)?;
    let count = || in_state(&clients, TcpState::Established);
    eventually(SOON, || Ok(count()? >= expected as usize))?;
    count()
}

fn backlog_five(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 5)?;
    let _clients = scene.connect_many(9, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? >= 6))?;
    let queued = depth(&listener)?;
    Ok(Observed::new().number("backlog 5", queued).did(format!("backlog 5, 9 clients: {queued} are queued")))
}

fn capacity(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let mut observed = Observed::new();
    let mut did = Vec::new();
    for (row, somaxconn) in (0u16..).zip([16u32, 128, 4096]) {
        scene.sysctl(SOMAXCONN, somaxconn)?;
        let mut counts = Vec::new();
        for (column, backlog) in (0u16..).zip([0u32, 1, 5, 128, 5000]) {
            let port = PORT + row * 10 + column;
            let listener = scene.listen(port, i32::try_from(backlog).unwrap_or(i32::MAX))?;
            counts.push(connected(scene, backlog.min(somaxconn) + 1, port)?);
            drop(listener);
        }
        did.push(format!("{} at somaxconn {somaxconn}", join(&counts)));
        observed = observed.text(&format!("somaxconn {somaxconn}"), join(&counts));
    }
    Ok(observed.did(format!("backlog 0 1 5 128 5000: {}", did.join(", "))))
}

fn somaxconn_bounds(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let mut limits = [0; 2];
    for (limit_of, somaxconn) in limits.iter_mut().zip([128, 5000]) {
        scene.sysctl(SOMAXCONN, somaxconn)?;
        *limit_of = limit(&scene.listen(PORT, 5000)?)?;
    }
    let did = format!("listen(5000): limit {} with somaxconn 128, {} with 5000", limits[0], limits[1]);
    Ok(Observed::new().number("limit, somaxconn 128", limits[0]).number("limit, somaxconn 5000", limits[1]).did(did))
}

fn minus_one(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let mut limits = [0; 2];
    for (limit_of, somaxconn) in limits.iter_mut().zip([4096, 77]) {
        scene.sysctl(SOMAXCONN, somaxconn)?;
        *limit_of = limit(&scene.listen(PORT, -1)?)?;
    }
    let did = format!("listen(-1): limit {} with somaxconn 4096, {} with 77", limits[0], limits[1]);
    Ok(Observed::new().number("limit, somaxconn 4096", limits[0]).number("limit, somaxconn 77", limits[1]).did(did))
}

fn no_16_bit_limit(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SOMAXCONN, 100_000)?;
    let large = limit(&scene.listen(PORT, 70_000)?)?;
    let write = |value: &str| match sysctl::write(SOMAXCONN, value) {
        Ok(_) => "ok".to_owned(),
        Err(SysctlError::Value { source, .. }) => errno_name(&source),
        Err(error) => error.to_string(),
    };
    let (most, beyond) = (write("2147483647"), write("2147483648"));
    let did = format!("listen(70000): limit {large}; somaxconn 2^31 - 1: {most}, 2^31: {beyond}");
    Ok(Observed::new()
        .number("limit of 70000", large)
        .text("somaxconn 2147483647", most)
        .text("somaxconn 2147483648", beyond)
        .did(did))
}

fn somaxconn_read_at_listen(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SOMAXCONN, 128)?;
    let listener = scene.listen(PORT, 5000)?;
    let mut limits = vec![limit(&listener)?];
    for somaxconn in [16, 4096] {
        scene.sysctl(SOMAXCONN, somaxconn)?;
        limits.push(limit(&listener)?);
    }
    let queued = connected(scene, 129, PORT)?;
    listener.listen(5000).doing("listen again")?;
    limits.push(limit(&listener)?);
    let limits = join(limits);
    let did = format!(
        "listen(5000), then somaxconn 128, 16, 4096, listen again: limit {limits}; {queued} queued before that"
    );
    Ok(Observed::new().text("limits", limits).number("queued", queued as f64).did(did))
}

fn again_larger(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 2)?;
    let _first = scene.connect_many(5, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? >= 3))?;
    let before = depth(&listener)?;
    listener.listen(10).doing("listen again")?;
    let _more = scene.connect_many(10, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? >= 11))?;
    let after = depth(&listener)?;
    let did = format!("backlog 2: {before} queued; listen(10): {after}");
    Ok(Observed::new().number("queued with 2", before).number("queued with 10", after).did(did))
}

fn again_smaller(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 10)?;
    let _queued = fill(scene, 11, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 11))?;
    listener.listen(1).doing("listen again")?;
    let late = scene.connect_many(3, PORT)?;
    let overflows = || scene.server_counter("ListenOverflows");
    eventually(SOON, || Ok(overflows()? >= 3))?;
    let new = in_state(&late, TcpState::Established)?;
    let queue = format!("{}/{}", depth(&listener)?, limit(&listener)?);
    drop(late);
    let accepted = take(&listener, 11)?.len();
    let did = format!("11 queued, listen(1): queue/limit {queue}, {new} of 3 new connect, {accepted} accepted");
    Ok(Observed::new()
        .text("queue/limit", queue)
        .number("new", new as f64)
        .number("accepted", accepted as f64)
        .did(did))
}

fn excess_syn_counters(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 3)?;
    let mark = Mark::new(scene)?;
    let _clients = scene.connect_many(9, PORT)?;
    eventually(SOON, || Ok(mark.server_one(scene, "ListenOverflows")? >= 5 && depth(&listener)? == 4))?;
    let counted = mark.server(scene, &["ListenOverflows", "ListenDrops"])?;
    let counted = format!("{counted} {}", drops(&listener)?);
    let (entered, sent) = (mark.server_one(scene, "PassiveOpens")?, mark.client_one(scene, "ActiveOpens")?);
    let did =
        format!("9 clients, 4 fit: ListenOverflows, ListenDrops and socket drops {counted}; PassiveOpens {entered}");
    Ok(Observed::new()
        .text("overflows, drops, socket drops", counted)
        .number("PassiveOpens", entered as f64)
        .number("SYNs", sent as f64)
        .did(did))
}
