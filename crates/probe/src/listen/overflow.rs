//! A full accept queue when the SYN arrives: nothing is answered, and the client's next SYN tries again.

use std::time::{Duration, Instant};

use socket2::Socket;

use super::{ABORT_ON_OVERFLOW, LINEAR_TIMEOUTS, Mark, PORT, SOON, SYNCOOKIES, depth, drops, fill, join, take};
use crate::claim::{Claim, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome};

/// What a dropped SYN might count.
const COUNTED: &[&str] = &["ListenOverflows", "ListenDrops", "OutRsts", "SyncookiesSent", "TCPReqQFullDoCookies"];

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.full-queue-drops-the-syn",
        group: Group::Listen,
        notes: &[],
        facts: &["2a.dropped-syn", "2a.abort-not-on-syn"],
        says: "A SYN that meets a full accept queue is dropped without an answer, with tcp_abort_on_overflow as without.",
        why: "tcp_conn_request drops it when sk_acceptq_is_full; tcp_abort_on_overflow is read in tcp_check_req only, at \
              the last ACK",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "syncookies 0, abort 0", is: Is::Text("SYN_SENT 1 1 0 0 0 1") },
            Expect { figure: "syncookies 0, abort 1", is: Is::Text("SYN_SENT 1 1 0 0 0 1") },
            Expect { figure: "syncookies 1, abort 0", is: Is::Text("SYN_SENT 1 1 0 0 0 1") },
            Expect { figure: "syncookies 1, abort 1", is: Is::Text("SYN_SENT 1 1 0 0 0 1") },
        ],
        known: Verdict::Holds,
        measure: |scene| full_queue(scene, &[(0, 0), (0, 1), (1, 0), (1, 1)]),
    },
    Claim {
        name: "listen.full-queue-with-cookies-always",
        group: Group::Listen,
        notes: &[],
        facts: &["2a.cookies-always"],
        says: "With tcp_syncookies=2 that SYN counts TCPReqQFullDoCookies too, and yet no cookie is sent.",
        why: "tcp_conn_request asks tcp_syn_flood_action, which counts, before it looks at the accept queue",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "syncookies 2, abort 0", is: Is::Text("SYN_SENT 1 1 0 0 1 1") },
            Expect { figure: "syncookies 2, abort 1", is: Is::Text("SYN_SENT 1 1 0 0 1 1") },
        ],
        known: Verdict::Holds,
        measure: |scene| full_queue(scene, &[(2, 0), (2, 1)]),
    },
    Claim {
        name: "listen.overflow-counts-attempts",
        group: Group::Listen,
        notes: &[],
        facts: &["2a.dropped-syn", "2a.client-counters"],
        says: "The server counts each SYN, the client one ActiveOpens; AttemptFails and TCPAbortOnTimeout come at the end.",
        why: "tcp_retransmit_timer counts TCPTimeouts at every expiry, TCPSynRetrans when a SYN is sent again",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "after 2 SYNs", is: Is::Text("2 of 1: 1 1 1 1 0 0") },
            Expect { figure: "connect", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "at the end", is: Is::Text("2 of 1: 2 1 1 1 1 1") },
        ],
        known: Verdict::Holds,
        measure: counts_attempts,
    },
    Claim {
        name: "listen.freed-slot",
        group: Group::Listen,
        notes: &[],
        facts: &["2a.slot-freed"],
        says: "Once there is room the next SYN connects: at 1 s, or 2 s; with tcp_syn_linear_timeouts=0 at 1 s, or 3 s.",
        why: "tcp_retransmit_timer doubles the time-out only after tcp_syn_linear_timeouts SYNs (Linux 6.5)",
        ends: Ends::Veth,
        takes: Takes::Seconds(7),
        expects: &[
            Expect { figure: "room at 0.3 s", is: Is::Between(0.98, 1.14) },
            Expect { figure: "room at 1.4 s", is: Is::Between(1.96, 2.22) },
            Expect { figure: "linear 0, room at 1.4 s", is: Is::Between(2.94, 3.3) },
        ],
        known: Verdict::Holds,
        measure: freed_slot,
    },
    Claim {
        name: "listen.freed-slot-in-tcp-info",
        group: Group::Listen,
        notes: &[],
        facts: &["2a.slot-freed-info"],
        says: "Connected by the second SYN, the client's TCP_INFO shows one retransmission and an rtt in whole ms; the server's none.",
        why: "a SYN sent again gives no rtt sample (Karn) but that of the timestamp, 1 ms at least (tcp_ack_update_rtt); \
              the server saw one SYN only",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "client total_retrans, total_rto, rtt", is: Is::Text("1 1 whole ms") },
            Expect { figure: "server total_retrans, total_rto", is: Is::Text("0 0") },
            Expect { figure: "client.TcpTimeoutRehash", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: freed_slot_info,
    },
];

fn full_queue(scene: &mut Scene, settings: &[(u8, u8)]) -> Result<Observed, ProbeError> {
    let mut observed = Observed::new();
    let mut did = Vec::new();
    for (port, (cookies, abort)) in (PORT..).zip(settings) {
        scene.sysctl(SYNCOOKIES, cookies)?;
        scene.sysctl(ABORT_ON_OVERFLOW, abort)?;
        let (listener, _queued) = full(scene, port)?;
        let mark = Mark::new(scene)?;
        let client = scene.connect(port)?;
        eventually(SOON, || Ok(drops(&listener)? >= 1))?;
        let connect = outcome(&client, Duration::from_millis(100))?;
        let counted = format!("{connect} {} {}", mark.server(scene, COUNTED)?, drops(&listener)?);
        observed = observed.text(&format!("syncookies {cookies}, abort {abort}"), counted.as_str());
        did.push(format!("{cookies}/{abort}: {counted}"));
    }
    Ok(observed
        .did(format!("syncookies/abort: client, overflows, drops, RSTs, cookies, asked, sk_drops: {}", short(&did))))
}

/// The whole list, or one entry and how many are like it.
fn short(entries: &[String]) -> String {
    let results: Vec<_> = entries.iter().filter_map(|entry| entry.split_once(": ")).map(|(_, result)| result).collect();
    match results.first() {
        Some(first) if results.iter().all(|result| result == first) => format!("{first} in all {}", results.len()),
        _ => entries.join("; "),
    }
}

/// A listener with one place, and the client that has it.
fn full(scene: &Scene, port: u16) -> Result<(Socket, Vec<Socket>), ProbeError> {
    let listener = scene.listen(port, 0)?;
    let queued = fill(scene, 1, port)?;
    eventually(SOON, || Ok(depth(&listener)? == 1))?;
    Ok((listener, queued))
}

fn counts_attempts(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl("net.ipv4.tcp_syn_retries", 1)?;
    scene.sysctl(LINEAR_TIMEOUTS, 0)?;
    let (_listener, _queued) = full(scene, PORT)?;
    let mark = Mark::new(scene)?;
    let client = scene.connect(PORT)?;
    let count = || {
        let overflows =
            format!("{} of {}:", mark.server_one(scene, "ListenOverflows")?, mark.client_one(scene, "ActiveOpens")?);
        let mut counted = Vec::new();
        for name in
            ["TCPTimeouts", "TCPSynRetrans", "RetransSegs", "TcpTimeoutRehash", "AttemptFails", "TCPAbortOnTimeout"]
        {
            counted.push(mark.client_one(scene, name)?);
        }
        Ok::<_, ProbeError>(format!("{overflows} {}", join(counted)))
    };
    eventually(SOON, || Ok(mark.server_one(scene, "ListenOverflows")? == 2))?;
    let second = count()?;
    let connect = outcome(&client, Duration::from_secs(4))?;
    let end = count()?;
    let did = format!("after 2 SYNs {second}; after {connect} {end} (overflows of connects: client counters)");
    Ok(Observed::new().text("after 2 SYNs", second).text("connect", connect).text("at the end", end).did(did))
}

/// Seconds from connect to connected when the only place is freed after `room`.
fn connected_after(scene: &Scene, port: u16, room: Duration) -> Result<f64, ProbeError> {
    let (listener, _queued) = full(scene, port)?;
    let began = Instant::now();
    let client = scene.connect(port)?;
    std::thread::sleep(room);
    let _taken = take(&listener, 1)?;
    match outcome(&client, Duration::from_secs(5))?.as_str() {
        "connected" => Ok(began.elapsed().as_secs_f64()),
        other => Err(ProbeError::Failed(format!("connect ended with {other}"))),
    }
}

fn freed_slot(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let early = connected_after(scene, PORT, Duration::from_millis(300))?;
    let later = connected_after(scene, PORT + 1, Duration::from_millis(1400))?;
    scene.sysctl(LINEAR_TIMEOUTS, 0)?;
    let exponential = connected_after(scene, PORT + 2, Duration::from_millis(1400))?;
    let did = format!(
        "room at 0.3 s: connected at {early:.0} s; room at 1.4 s: at {later:.0} s, with linear time-outs off at \
         {exponential:.0} s"
    );
    Ok(Observed::new()
        .number("room at 0.3 s", early)
        .number("room at 1.4 s", later)
        .number("linear 0, room at 1.4 s", exponential)
        .did(did))
}

fn freed_slot_info(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (listener, _queued) = full(scene, PORT)?;
    let client = scene.connect(PORT)?;
    std::thread::sleep(Duration::from_millis(300));
    let _taken = take(&listener, 1)?;
    outcome(&client, SOON)?;
    let client = info(&client)?;
    let (server, _) = listener.accept().map_err(|source| ProbeError::Io { doing: "accept".to_owned(), source })?;
    let server = info(&server)?;
    let rtt = match client.rtt_us {
        whole if whole > 0 && whole % 1000 == 0 => "whole ms".to_owned(),
        other => format!("{other} us"),
    };
    let client = format!("{} {} {rtt}", client.total_retrans, client.total_rto);
    let server = format!("{} {}", server.total_retrans, server.total_rto);
    let did = format!("client total_retrans, total_rto, rtt: {client}; server total_retrans, total_rto: {server}");
    Ok(Observed::new()
        .text("client total_retrans, total_rto, rtt", client)
        .text("server total_retrans, total_rto", server)
        .did(did))
}
