//! `TCP_DEFER_ACCEPT`: connections that stay out of the accept queue until they have data.

use std::time::{Duration, Instant};

use kernel::sockopt;
use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, info, outcome};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range; the next one is used too.
const PORT: u16 = 9700;

/// Silent clients in the claims about the SYN queue, and the backlog they meet.
const SILENT: usize = 20;
const BACKLOG: i32 = 5;

/// Claims about `TCP_DEFER_ACCEPT`.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.defer-rounds-up",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-rounding"],
        says: "TCP_DEFER_ACCEPT rounds its seconds up to the end of a SYN-ACK retry: 1, 2, 3, 10 and 31 read back 1, 3, 3, 15 and 31.",
        why: "it is kept as a number of SYN-ACK retransmissions (secs_to_retrans) and read back as their time (retrans_to_secs)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "read-back", is: Is::Text("1, 3, 3, 15, 31") }],
        known: Verdict::Holds,
        measure: rounds_up,
    },
    Claim {
        name: "accept.defer-silent-client",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-silent", "5.defer-counters"],
        says: "With TCP_DEFER_ACCEPT a silent client is connected but half open for the server, and enters the queue when the time is up.",
        why: "tcp_check_req drops the bare ACK while num_timeout < rskq_defer_accept; the SYN-ACK sent after that time draws \
              another ACK, which is taken",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "connect", is: Is::Text("connected") },
            Expect { figure: "half-open", is: Is::Exactly(1.0) },
            Expect { figure: "one-second-enters-at", is: Is::Between(0.92, 1.14) },
            Expect { figure: "three-seconds-enters-at", is: Is::Between(2.76, 3.3) },
            Expect { figure: "server.TCPDeferAcceptDrop", is: Is::Exactly(2.0) },
            Expect { figure: "drops", is: Is::Exactly(1.0) },
            Expect { figure: "server.TCPSynRetrans", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: silent_client,
    },
    Claim {
        name: "accept.defer-silent-client-ten-seconds",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-silent"],
        says: "With TCP_DEFER_ACCEPT at 10 s a silent client enters the queue after 15 s.",
        why: "10 s become 4 SYN-ACK time-outs: 1 + 2 + 4 + 8 s",
        ends: Ends::Veth,
        takes: Takes::Full(17),
        expects: &[Expect { figure: "enters-at", is: Is::Between(14.5, 16.2) }],
        known: Verdict::Holds,
        measure: silent_client_ten_seconds,
    },
    Claim {
        name: "accept.defer-talking-client",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-silent"],
        says: "With TCP_DEFER_ACCEPT a client enters the queue with its first data.",
        why: "an ACK that carries data is not bare: tcp_check_req makes the socket",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "queued-silent", is: Is::Exactly(0.0) },
            Expect { figure: "queued-with-data", is: Is::Exactly(1.0) },
            Expect { figure: "first-read", is: Is::Text("hello") },
        ],
        known: Verdict::Holds,
        measure: talking_client,
    },
    Claim {
        name: "accept.defer-fills-the-syn-queue",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-syn-queue"],
        says: "Deferred clients take the SYN queue's room: without cookies, backlog + 1 silent ones keep all others out.",
        why: "a deferred handshake stays a request socket, counted in the listener's qlen (inet_csk_reqsk_queue_is_full)",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "connected", is: Is::Exactly(6.0) },
            Expect { figure: "syn-sent", is: Is::Exactly(14.0) },
            Expect { figure: "half-open", is: Is::Exactly(6.0) },
            Expect { figure: "queued", is: Is::Exactly(0.0) },
            Expect { figure: "drops-per-refused-syn", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| silent_crowd(scene, 0),
    },
    Claim {
        name: "accept.cookies-bypass-defer",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-cookies"],
        says: "Once silent clients fill the SYN queue, the next ones get cookies and enter the accept queue without data.",
        why: "a cookie's ACK makes the socket at once (cookie_v4_check): there is no request that could be deferred",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "half-open", is: Is::Exactly(6.0) },
            Expect { figure: "queued", is: Is::Exactly(6.0) },
            Expect { figure: "connected", is: Is::Exactly(12.0) },
            Expect { figure: "syn-sent", is: Is::Exactly(8.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| silent_crowd(scene, 1),
    },
    Claim {
        name: "accept.cookies-only-disable-defer",
        group: Group::Accept,
        notes: &[],
        facts: &["5.defer-cookies"],
        says: "tcp_syncookies=2 disables TCP_DEFER_ACCEPT: silent clients enter the accept queue at once.",
        why: "every SYN is answered by a cookie, and a cookie's ACK makes the socket at once (cookie_v4_check)",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "half-open", is: Is::Exactly(0.0) },
            Expect { figure: "queued", is: Is::Exactly(6.0) },
            Expect { figure: "server.TCPDeferAcceptDrop", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| silent_crowd(scene, 2),
    },
];

fn rounds_up(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let mut read_back = Vec::new();
    for seconds in [1, 2, 3, 10, 31] {
        read_back.push(sockopt::set_defer_accept(&listener, seconds).doing("set TCP_DEFER_ACCEPT")?.to_string());
    }
    let read_back = read_back.join(", ");
    let did = format!("1, 2, 3, 10, 31 s read back as {read_back} s");
    Ok(Observed::new().text("read-back", read_back).did(did))
}

/// A listener that defers for so many seconds.
fn deferring(scene: &Scene, port: u16, backlog: i32, seconds: u16) -> Result<Socket, ProbeError> {
    let listener = scene.listen(port, backlog)?;
    sockopt::set_defer_accept(&listener, seconds).doing("set TCP_DEFER_ACCEPT")?;
    Ok(listener)
}

/// When the next connection enters the listener's queue, in seconds since `began`.
fn enters(listener: &Socket, began: Instant) -> Result<f64, ProbeError> {
    let (accepted, _) = listener.accept().doing("accept")?;
    talk::entered(&accepted, began)
}

fn silent_client(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let one = deferring(scene, PORT, 8, 1)?;
    let three = deferring(scene, PORT + 1, 8, 3)?;
    let began = Instant::now();
    let first = scene.connect(PORT)?;
    let _second = scene.connect(PORT + 1)?;
    let connect = outcome(&first, SOON)?;
    let half_open = scene.syn_recv(PORT + 1)?;
    let one_at = enters(&one, began)?;
    let three_at = enters(&three, began)?;
    let drops = sockopt::socket_drops(&three).doing("read SO_MEMINFO")?;
    let did =
        format!("{connect} at once, SYN_RECV at the server; enters the queue at {one_at:.0} s and {three_at:.0} s");
    Ok(Observed::new()
        .text("connect", connect)
        .number("half-open", half_open)
        .number("drops", drops)
        .number("one-second-enters-at", one_at)
        .number("three-seconds-enters-at", three_at)
        .did(did))
}

fn silent_client_ten_seconds(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = deferring(scene, PORT, 8, 10)?;
    let began = Instant::now();
    let _client = scene.connect(PORT)?;
    let at = enters(&listener, began)?;
    Ok(Observed::new().number("enters-at", at).did("a silent client enters the queue 15 s after its SYN"))
}

fn talking_client(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = deferring(scene, PORT, 8, 10)?;
    let client = scene.connect(PORT)?;
    outcome(&client, SOON)?;
    std::thread::sleep(QUIET);
    let silent = info(&listener)?.unacked;
    talk::send(&client, "hello")?;
    talk::queued(&listener, 1)?;
    let (accepted, _) = listener.accept().doing("accept")?;
    let read = talk::read(&accepted, SOON)?;
    let did = format!("{silent} queued while it is silent; with its first data it is accepted and {read:?} is there");
    Ok(Observed::new().number("queued-silent", silent).number("queued-with-data", 1).text("first-read", read).did(did))
}

fn silent_crowd(scene: &mut Scene, cookies: u8) -> Result<Observed, ProbeError> {
    scene.sysctl("net.ipv4.tcp_syncookies", cookies)?;
    let listener = deferring(scene, PORT, BACKLOG, 10)?;
    let clients = scene.connect_many(SILENT, PORT)?;
    std::thread::sleep(QUIET);
    let (mut connected, mut syn_sent) = (0, 0u64);
    for client in &clients {
        match outcome(client, Duration::ZERO)?.as_str() {
            "connected" => connected += 1,
            "SYN_SENT" => syn_sent += 1,
            _ => {}
        }
    }
    let half_open = scene.syn_recv(PORT)?;
    let queued = info(&listener)?.unacked;
    // SYNs of those that wait, sent again on a slow machine.
    let refused = syn_sent + scene.client_counter("TCPSynRetrans")?;
    let drops = scene.server_counter("TCPReqQFullDrop")? as f64 / refused.max(1) as f64;
    let did = format!(
        "of {SILENT} silent clients {connected} connect and {syn_sent} do not; {half_open} in SYN_RECV, {queued} in the accept queue"
    );
    Ok(Observed::new()
        .number("drops-per-refused-syn", drops)
        .number("connected", connected)
        .number("syn-sent", syn_sent as f64)
        .number("half-open", half_open)
        .number("queued", queued)
        .did(did))
}
