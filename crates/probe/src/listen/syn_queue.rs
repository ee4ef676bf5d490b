//! A full SYN queue: how much fits, and what an honest client gets then.

use std::time::Duration;

use super::{Mark, PORT, SOON, SYNCOOKIES, await_syn_recv, drops, half_open, join};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, outcome, start};

const MAX_SYN_BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";

/// What an honest client is given to connect when it should at once.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.full-syn-queue-does-nothing",
        group: Group::Listen,
        notes: &["3.10"],
        facts: &["0.syn-queue-full"],
        says: "When the queue of unfinished handshakes is full, TCP does nothing and lets the client's SYN try again.",
        why: "with tcp_syncookies=1, the default, tcp_conn_request answers with a cookie instead (tcp_syn_flood_action)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("SYN_SENT") },
            Expect { figure: "cookies sent", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Differs,
        measure: |scene| full_syn_queue(scene, 1),
    },
    Claim {
        name: "listen.full-syn-queue-without-cookies",
        group: Group::Listen,
        notes: &[],
        facts: &["0.syn-queue-full", "3.capacity-backlog"],
        says: "With tcp_syncookies=0 a SYN that meets a full SYN queue is dropped: TCPReqQFullDrop, ListenDrops, a socket drop.",
        why: "inet_csk_reqsk_queue_is_full and no cookie wanted: tcp_conn_request drops (net/ipv4/tcp_input.c)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "half-open", is: Is::Exactly(6.0) },
            Expect { figure: "connect", is: Is::Text("SYN_SENT") },
            Expect {
                figure: "TCPReqQFullDrop, ListenDrops, ListenOverflows, TCPReqQFullDoCookies",
                is: Is::Text("1 1 0 0"),
            },
            Expect { figure: "socket drops", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| full_syn_queue(scene, 0),
    },
    Claim {
        name: "listen.full-syn-queue-sends-cookies",
        group: Group::Listen,
        notes: &[],
        facts: &["0.syn-queue-full", "3.cookies-when-full"],
        says: "By default a SYN that meets a full SYN queue gets a cookie and connects at once; no drop is counted.",
        why: "tcp_syn_flood_action counts TCPReqQFullDoCookies, cookie_init_sequence puts the request into the sequence number",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "half-open", is: Is::Exactly(6.0) },
            Expect { figure: "connect", is: Is::Text("connected") },
            Expect {
                figure: "TCPReqQFullDrop, ListenDrops, ListenOverflows, TCPReqQFullDoCookies",
                is: Is::Text("0 0 0 1"),
            },
            Expect { figure: "cookies sent", is: Is::Exactly(1.0) },
            Expect { figure: "socket drops", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| full_syn_queue(scene, 1),
    },
    Claim {
        name: "listen.syn-flood-denies-service",
        group: Group::Listen,
        notes: &["3.11"],
        facts: &["0.syn-flood"],
        says: "A SYN flood from forged addresses fills that queue and so denies service.",
        why: "cookies, on by default, need no queue: an honest client connects although it is full",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[Expect { figure: "honest client", is: Is::Text("SYN_SENT") }],
        known: Verdict::Differs,
        measure: |scene| flood(scene, &[1], "honest client"),
    },
    Claim {
        name: "listen.syn-flood-and-cookies",
        group: Group::Listen,
        notes: &[],
        facts: &["0.syn-flood", "3.half-open-transparent"],
        says: "A SYN flood from forged addresses locks an honest client out with tcp_syncookies=0, and not with 1 or 2.",
        why: "without cookies its SYN is dropped like the others (tcp_conn_request)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "syncookies 0", is: Is::Text("SYN_SENT") },
            Expect { figure: "syncookies 1", is: Is::Text("connected") },
            Expect { figure: "syncookies 2", is: Is::Text("connected") },
            Expect { figure: "half-open", is: Is::Text("65 65 0") },
        ],
        known: Verdict::Holds,
        measure: |scene| flood(scene, &[0, 1, 2], ""),
    },
    Claim {
        name: "listen.syn-queue-capacity",
        group: Group::Listen,
        notes: &[],
        facts: &["3.capacity-backlog", "3.client-filter"],
        says: "Without cookies the SYN queue holds backlog + 1 requests.",
        why: "inet_csk_reqsk_queue_is_full compares qlen with sk_max_ack_backlog, by >",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "backlog 0 5 100 128", is: Is::Text("1 6 101 129") }],
        known: Verdict::Holds,
        measure: capacity_by_backlog,
    },
    Claim {
        name: "listen.syn-queue-capacity-by-max-syn-backlog",
        group: Group::Listen,
        notes: &[],
        facts: &["3.capacity-max-syn-backlog", "3.excess-max-syn-backlog"],
        says: "Without cookies it holds at most 3/4 of tcp_max_syn_backlog, plus 1; SYNs beyond count ListenDrops only.",
        why: "tcp_conn_request keeps the last quarter for peers with metrics, and has no counter of its own for that drop",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "max_syn_backlog 64", is: Is::Text("49: 0 11 0") },
            Expect { figure: "max_syn_backlog 256", is: Is::Text("193: 0 7 0") },
        ],
        known: Verdict::Holds,
        measure: capacity_by_max_syn_backlog,
    },
    Claim {
        name: "listen.syn-queue-capacity-with-cookies",
        group: Group::Listen,
        notes: &[],
        facts: &["3.cookies-when-full"],
        says: "With tcp_syncookies=1 it holds backlog + 1 whatever tcp_max_syn_backlog says.",
        why: "tcp_conn_request looks at tcp_max_syn_backlog only with tcp_syncookies=0",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "max_syn_backlog 64, backlog 5 128 4096", is: Is::Text("6 129 400") },
            Expect { figure: "max_syn_backlog 2048, backlog 5 128 4096", is: Is::Text("6 129 400") },
        ],
        known: Verdict::Holds,
        measure: capacity_with_cookies,
    },
    Claim {
        name: "listen.cookies-always-keep-no-request",
        group: Group::Listen,
        notes: &[],
        facts: &["3.cookies-always"],
        says: "With tcp_syncookies=2 every SYN gets a cookie and no request is kept.",
        why: "tcp_conn_request asks for a cookie when the sysctl is 2, full or not, and frees the request",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "half-open", is: Is::Exactly(0.0) },
            Expect { figure: "SyncookiesSent, TCPReqQFullDoCookies, ListenDrops", is: Is::Text("20 20 0") },
        ],
        known: Verdict::Holds,
        measure: cookies_always,
    },
];

fn full_syn_queue(scene: &mut Scene, cookies: u8) -> Result<Observed, ProbeError> {
    const COUNTED: &[&str] = &["TCPReqQFullDrop", "ListenDrops", "ListenOverflows", "TCPReqQFullDoCookies"];
    scene.sysctl(SYNCOOKIES, cookies)?;
    let listener = scene.listen(PORT, 5)?;
    let _requests = half_open(scene, 6, PORT)?;
    let half = await_syn_recv(scene, PORT, 6)?;
    let mark = Mark::new(scene)?;
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, AT_ONCE)?;
    let counted = mark.server(scene, COUNTED)?;
    let cookies_sent = mark.server_one(scene, "SyncookiesSent")?;
    let did = format!("{half} half open, backlog 5: an honest client is {connect}, cookies sent {cookies_sent}");
    Ok(Observed::new()
        .number("half-open", half)
        .text("connect", connect)
        .text(&COUNTED.join(", "), counted)
        .number("cookies sent", cookies_sent as f64)
        .number("socket drops", drops(&listener)?)
        .did(did))
}

/// Floods a listener from addresses that nobody has, and lets an honest client try.
fn flood(scene: &mut Scene, settings: &[u8], only: &str) -> Result<Observed, ProbeError> {
    const FORGED: u8 = 200;
    let mut observed = Observed::new();
    let (mut halves, mut did) = (Vec::new(), Vec::new());
    for (port, cookies) in (PORT..).zip(settings) {
        scene.sysctl(SYNCOOKIES, cookies)?;
        let _listener = scene.listen(port, 64)?;
        let mut forged = Vec::new();
        for last in 0..FORGED {
            let socket = scene.client_socket()?;
            socket.set_ip_transparent_v4(true).doing("set IP_TRANSPARENT")?;
            // 198.18.0.3 and up: addresses of the link that are nobody's.
            let mut source = scene.client_address();
            if let std::net::IpAddr::V4(address) = source.ip() {
                let [a, b, c, _] = address.octets();
                source.set_ip(std::net::Ipv4Addr::new(a, b, c, last + 3).into());
            }
            socket.bind(&source.into()).doing("bind to a forged address")?;
            start(&socket, scene.address(port)).doing("connect from a forged address")?;
            forged.push(socket);
        }
        let expected = if *cookies == 2 { 0 } else { 65 };
        let half = await_syn_recv(scene, port, expected)?;
        let connect = outcome(&scene.connect(port)?, AT_ONCE)?;
        let figure = if only.is_empty() { format!("syncookies {cookies}") } else { only.to_owned() };
        did.push(format!("{half} half open, {connect} (cookies {cookies})"));
        observed = observed.text(&figure, connect);
        halves.push(half);
    }
    Ok(observed
        .text("half-open", join(halves))
        .did(format!("{FORGED} forged SYNs, an honest client: {}", did.join("; "))))
}

/// How many of `count` SYNs leave a request.
fn requests(scene: &Scene, port: u16, backlog: i32, count: usize, expected: u32) -> Result<u32, ProbeError> {
    let _listener = scene.listen(port, backlog)?;
    let _clients = half_open(scene, count, port)?;
    await_syn_recv(scene, port, expected)
}

fn capacity_by_backlog(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    scene.sysctl(MAX_SYN_BACKLOG, 2048)?;
    let mut counts = Vec::new();
    for (port, backlog) in (PORT..).zip([0u8, 5, 100, 128]) {
        let fits = u32::from(backlog) + 1;
        counts.push(requests(scene, port, backlog.into(), usize::from(backlog) + 12, fits)?);
    }
    let counts = join(counts);
    let did = format!("backlog 0, 5, 100, 128: {counts} requests");
    Ok(Observed::new().text("backlog 0 5 100 128", counts).did(did))
}

fn capacity_by_max_syn_backlog(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let mut observed = Observed::new();
    let mut did = Vec::new();
    for (port, (limit, count, fits)) in (PORT..).zip([(64, 60, 49), (256, 200, 193)]) {
        scene.sysctl(MAX_SYN_BACKLOG, limit)?;
        let mark = Mark::new(scene)?;
        let listener = scene.listen(port, 1024)?;
        let _clients = half_open(scene, count, port)?;
        eventually(SOON, || Ok(drops(&listener)? as usize >= count - fits))?;
        let counted = mark.server(scene, &["TCPReqQFullDrop", "ListenDrops", "ListenOverflows"])?;
        let result = format!("{}: {counted}", scene.syn_recv(port)?);
        did.push(format!("{result} at {limit}"));
        observed = observed.text(&format!("max_syn_backlog {limit}"), result);
    }
    Ok(observed.did(format!("requests: TCPReqQFullDrop ListenDrops ListenOverflows: {}", did.join("; "))))
}

fn capacity_with_cookies(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 1)?;
    let mut observed = Observed::new();
    let mut did = Vec::new();
    for (base, limit) in [(PORT, 64), (PORT + 10, 2048)] {
        scene.sysctl(MAX_SYN_BACKLOG, limit)?;
        let mut counts = Vec::new();
        for (port, (backlog, count, fits)) in (base..).zip([(5, 20, 6), (128, 150, 129), (4096, 400, 400)]) {
            counts.push(requests(scene, port, backlog, count, fits)?);
        }
        did.push(format!("{} at {limit}", join(&counts)));
        observed = observed.text(&format!("max_syn_backlog {limit}, backlog 5 128 4096"), join(&counts));
    }
    Ok(observed.did(format!("backlog 5, 128, 4096 and 20, 150, 400 SYNs: requests {}", did.join("; "))))
}

fn cookies_always(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 2)?;
    let _listener = scene.listen(PORT, 8)?;
    let mark = Mark::new(scene)?;
    let _clients = half_open(scene, 20, PORT)?;
    eventually(SOON, || Ok(mark.server_one(scene, "SyncookiesSent")? >= 20))?;
    let half = scene.syn_recv(PORT)?;
    let counted = mark.server(scene, &["SyncookiesSent", "TCPReqQFullDoCookies", "ListenDrops"])?;
    let did = format!("20 SYNs: {half} requests; SyncookiesSent, TCPReqQFullDoCookies, ListenDrops {counted}");
    Ok(Observed::new()
        .number("half-open", half)
        .text("SyncookiesSent, TCPReqQFullDoCookies, ListenDrops", counted)
        .did(did))
}
