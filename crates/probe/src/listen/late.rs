//! What becomes of phantoms: some enter the queue late, some expire, and some enter it dead.

use std::time::{Duration, Instant};

use kernel::sockopt::TcpState;
use rustix::event::PollFlags;
use socket2::Socket;

use super::{
    Mark, PORT, Phantom, SOON, SYNACK_RETRIES, SYNCOOKIES, await_state, depth, drops, fill, holding_many, join,
    phantom, release, take,
};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, info, wait};

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.phantom-reader-enters-late",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.drained-reader"],
        says: "A phantom that waits enters with the first SYN-ACK resent after there is room: at 1 s, 3 s, 7 s.",
        why: "reqsk_timer_handler resends the SYN-ACK; the client answers a SYN-ACK in ESTABLISHED with a challenge ACK \
              (tcp_validate_incoming), which is a last ACK again",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "first byte at", is: Is::Between(2.94, 3.3) },
            Expect { figure: "server TCPTimeouts, TCPSynRetrans, RetransSegs", is: Is::Text("12 12 12") },
            Expect { figure: "client TCPChallengeACK, TCPSYNChallenge, InErrs", is: Is::Text("12 12 12") },
            Expect { figure: "served", is: Is::Exactly(6.0) },
        ],
        known: Verdict::Holds,
        measure: reader_enters_late,
    },
    Claim {
        name: "listen.phantom-sender-tries-again",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.drained-sender"],
        says: "Each data segment of a phantom is another last ACK: dropped while the queue is full, on the data's retry grid.",
        why: "data carries the ACK too (tcp_check_req); the client's RTO is 0.2 s and doubles, not the SYN's second",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "overflows per segment", is: Is::Exactly(1.0) },
            Expect { figure: "socket drops per overflow", is: Is::Exactly(2.0) },
            Expect { figure: "resent within 0.9 s", is: Is::Between(2.0, 4.0) },
            Expect { figure: "after room", is: Is::Text("accepted with its byte") },
        ],
        known: Verdict::Holds,
        measure: sender_tries_again,
    },
    Claim {
        name: "listen.cookie-phantom-sender-tries-again",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.cookie-phantom-sends"],
        says: "Each data segment of a cookie phantom is another valid cookie: SyncookiesRecv passes SyncookiesSent; one enters.",
        why: "the cookie is the acknowledged sequence number, which data repeats (cookie_v4_check)",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "cookies sent", is: Is::Exactly(2.0) },
            Expect { figure: "cookies received per segment", is: Is::Exactly(1.0) },
            Expect { figure: "received more than sent", is: Is::Text("yes") },
            Expect { figure: "after room", is: Is::Text("accepted with its byte") },
        ],
        known: Verdict::Holds,
        measure: cookie_sender_tries_again,
    },
    Claim {
        name: "listen.dead-client-enters",
        group: Group::Listen,
        notes: &[],
        facts: &["11.fin-cookie"],
        says: "The resent FIN of a cookie phantom that was closed makes a connection: its server accepts a dead client.",
        why: "a FIN acknowledges the cookie as data does (cookie_v4_check)",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "accepted", is: Is::Text("CLOSE_WAIT, end of file") },
            Expect { figure: "after", is: Is::Between(0.0, 1.5) },
        ],
        known: Verdict::Holds,
        measure: dead_client_enters,
    },
    Claim {
        name: "listen.late-admission-shows-at-the-server",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.late-admission", "10.phantom-clock"],
        says: "The server sees a late admission in TCP_INFO: a retransmission, an rtt of a second; its wait counts from then.",
        why: "total_retrans and the rtt are the SYN-ACK's (tcp_create_openreq_child, tcp_synack_rtt_meas); the child is \
              made by the late ACK",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "on time: total_retrans, total_rto", is: Is::Text("0 0") },
            Expect { figure: "late: total_retrans, total_rto", is: Is::Text("1 1") },
            Expect { figure: "late: total_rto_time", is: Is::Between(0.98, 1.14) },
            Expect { figure: "late: rtt", is: Is::Between(0.98, 1.14) },
            Expect { figure: "late: last_data_sent after 0.2 s in the queue", is: Is::Between(0.19, 0.28) },
        ],
        known: Verdict::Holds,
        measure: late_admission,
    },
    Claim {
        name: "listen.phantom-expires-silently",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.after-expiry"],
        says: "When the request expires nobody tells the client: it stays connected, and what it writes later is reset.",
        why: "reqsk_timer_handler drops the request without a segment; a later one finds only the listener, which answers RST",
        ends: Ends::Veth,
        takes: Takes::Seconds(5),
        expects: &[
            Expect { figure: "expired at", is: Is::Between(2.94, 3.3) },
            Expect { figure: "a second later", is: Is::Text("established, heard nothing") },
            Expect { figure: "after a write", is: Is::Text("ECONNRESET") },
        ],
        known: Verdict::Holds,
        measure: expires_silently,
    },
];

fn reader_enters_late(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let listener = scene.listen(PORT, 8)?;
    let queued = fill(scene, 6, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 6))?;
    let mark = Mark::new(scene)?;
    let began = Instant::now();
    let clients = holding_many(scene, 9, PORT)?;
    await_state(&clients, TcpState::Established, 9)?;
    release(&clients)?;
    eventually(SOON, || Ok(mark.server_one(scene, "ListenOverflows")? == 6))?;
    // Room comes between the SYN-ACKs of 1 s and 3 s.
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(began.elapsed()));
    let on_time = take(&listener, 9)?;
    let mut late = Vec::new();
    while late.len() < 6 && !wait(&listener, PollFlags::IN, Duration::from_secs(4))?.is_empty() {
        late.push(listener.accept().doing("accept")?.0);
    }
    for socket in &late {
        socket.send(b"+").doing("send")?;
    }
    let mut reached = 0;
    eventually(SOON, || {
        reached = 0;
        for client in &clients {
            reached += u32::from(!wait(client, PollFlags::IN, Duration::ZERO)?.is_empty());
        }
        Ok(reached >= 6)
    })?;
    let first_byte = began.elapsed().as_secs_f64();
    let server = mark.server(scene, &["TCPTimeouts", "TCPSynRetrans", "RetransSegs"])?;
    let mut client = Vec::new();
    for name in ["TCPChallengeACK", "TCPSYNChallenge", "InErrs"] {
        client.push(mark.client_one(scene, name)?);
    }
    let client = join(client);
    drop((queued, on_time));
    let did = format!(
        "room at 1.5 s: {reached} of 6 phantoms served at {first_byte:.0} s; server SYN-ACK retransmissions {server}; \
         client challenge ACKs {client}"
    );
    Ok(Observed::new()
        .number("first byte at", first_byte)
        .text("server TCPTimeouts, TCPSynRetrans, RetransSegs", server)
        .text("client TCPChallengeACK, TCPSYNChallenge, InErrs", client)
        .number("served", reached)
        .did(did))
}

/// Sends a byte and waits until it was resent at least twice, which it is before the SYN-ACK's second is over. How many
/// data segments that were, and the growth of a counter for them.
fn resent(client: &Socket, counter: impl Fn() -> Result<u64, ProbeError>) -> Result<(u32, u64), ProbeError> {
    client.send(b"x").doing("send")?;
    eventually(SOON, || Ok(info(client)?.total_retrans >= 2))?;
    let mut seen = (0, 0);
    // Between two reads of the same number nothing was sent, so the counter belongs to it.
    eventually(SOON, || {
        let before = info(client)?.total_retrans;
        std::thread::sleep(Duration::from_millis(5));
        seen = (before + 1, counter()?);
        std::thread::sleep(Duration::from_millis(5));
        Ok(info(client)?.total_retrans == before)
    })?;
    Ok(seen)
}

/// Makes room and waits for the phantom: is it accepted with the byte it sent?
fn enters_with_byte(phantom: &Phantom) -> Result<String, ProbeError> {
    let _real = take(&phantom.listener, 1)?;
    if wait(&phantom.listener, PollFlags::IN, Duration::from_secs(4))?.is_empty() {
        return Ok("not accepted".to_owned());
    }
    let (socket, _) = phantom.listener.accept().doing("accept")?;
    let byte = wait(&socket, PollFlags::IN, SOON)?;
    Ok(if byte.is_empty() { "accepted without its byte" } else { "accepted with its byte" }.to_owned())
}

fn sender_tries_again(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let phantom = phantom(scene, PORT)?;
    let overflows = || scene.server_counter("ListenOverflows");
    eventually(SOON, || Ok(overflows()? == 1))?;
    let (sent, counted) = resent(&phantom.client, overflows)?;
    let dropped = drops(&phantom.listener)?;
    let per_segment = (counted as f64 - 1.0) / f64::from(sent);
    let per_overflow = f64::from(dropped) / counted as f64;
    let enters = enters_with_byte(&phantom)?;
    let did = format!("{per_segment} overflow a data segment, {per_overflow} sk_drops each; after room: {enters}");
    Ok(Observed::new()
        .number("overflows per segment", per_segment)
        .number("socket drops per overflow", per_overflow)
        .number("resent within 0.9 s", sent - 1)
        .text("after room", enters)
        .did(did))
}

fn cookie_sender_tries_again(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 2)?;
    let phantom = phantom(scene, PORT)?;
    let received = || scene.server_counter("SyncookiesRecv");
    // That of the client that is queued, and the phantom's bare one.
    eventually(SOON, || Ok(received()? == 2))?;
    let (segments, counted) = resent(&phantom.client, received)?;
    let sent = scene.server_counter("SyncookiesSent")?;
    let per_segment = (counted as f64 - 2.0) / f64::from(segments);
    let more = if counted > sent { "yes" } else { "no" };
    let enters = enters_with_byte(&phantom)?;
    let did = format!("{sent} cookies sent; {per_segment} received a data segment; after room: {enters}");
    Ok(Observed::new()
        .number("cookies sent", sent as f64)
        .number("cookies received per segment", per_segment)
        .text("received more than sent", more)
        .text("after room", enters)
        .did(did))
}

fn dead_client_enters(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 2)?;
    let Phantom { listener, real, client } = phantom(scene, PORT)?;
    eventually(SOON, || scene.server_counter("ListenOverflows").map(|count| count == 1))?;
    drop(client);
    eventually(SOON, || scene.server_counter("ListenOverflows").map(|count| count >= 2))?;
    let began = Instant::now();
    let _real = take(&listener, 1)?;
    let mut accepted = "nothing".to_owned();
    if !wait(&listener, PollFlags::IN, Duration::from_secs(3))?.is_empty() {
        let (socket, _) = listener.accept().doing("accept")?;
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let read = socket.recv(&mut byte).doing("read")?;
        let state = if info(&socket)?.state == TcpState::CloseWait { "CLOSE_WAIT" } else { "another state" };
        accepted = format!("{state}, {}", if read == 0 { "end of file" } else { "data" });
    }
    let after = began.elapsed().as_secs_f64();
    drop(real);
    let did = format!("client closed, then room: accept gives {accepted}");
    Ok(Observed::new().text("accepted", accepted).number("after", after).did(did))
}

fn late_admission(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let phantom = phantom(scene, PORT)?;
    eventually(SOON, || scene.server_counter("ListenOverflows").map(|count| count == 1))?;
    let on_time = take(&phantom.listener, 1)?;
    let on_time = info(&on_time[0].0)?;
    wait(&phantom.listener, PollFlags::IN, SOON)?;
    std::thread::sleep(Duration::from_millis(200));
    let late = take(&phantom.listener, 1)?;
    let late = info(&late[0].0)?;
    let (on_time, counts) =
        (join([on_time.total_retrans, on_time.total_rto.into()]), join([late.total_retrans, late.total_rto.into()]));
    let (waited, rtt) = (f64::from(late.total_rto_time_ms) / 1e3, f64::from(late.rtt_us) / 1e6);
    let queued = f64::from(late.last_data_sent_ms) / 1e3;
    let did = format!(
        "total_retrans and total_rto {on_time} on time, {counts} late: rtt {rtt:.0} s; last_data_sent {queued:.1} s after \
         0.2 s in the queue"
    );
    Ok(Observed::new()
        .text("on time: total_retrans, total_rto", on_time)
        .text("late: total_retrans, total_rto", counts)
        .number("late: total_rto_time", waited)
        .number("late: rtt", rtt)
        .number("late: last_data_sent after 0.2 s in the queue", queued)
        .did(did))
}

fn expires_silently(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    scene.sysctl(SYNACK_RETRIES, 1)?;
    let began = Instant::now();
    let phantom = phantom(scene, PORT)?;
    std::thread::sleep(Duration::from_millis(2500).saturating_sub(began.elapsed()));
    eventually(Duration::from_secs(3), || Ok(scene.syn_recv(PORT)? == 0))?;
    let expired = began.elapsed().as_secs_f64();
    let heard = info(&phantom.client)?.segs_in;
    std::thread::sleep(Duration::from_secs(1));
    let later = info(&phantom.client)?;
    let silent = if later.segs_in == heard { "heard nothing" } else { "heard something" };
    let later = format!("{}, {silent}", later.state.name());
    phantom.client.send(b"x").doing("send")?;
    wait(&phantom.client, PollFlags::IN, SOON)?;
    let error = phantom.client.take_error().doing("read SO_ERROR")?;
    let error = error.map_or_else(|| "no error".to_owned(), |error| errno_name(&error));
    let did = format!("synack_retries 1: expired at {expired:.0} s; a second later {later}; a write draws {error}");
    Ok(Observed::new()
        .number("expired at", expired)
        .text("a second later", later)
        .text("after a write", error)
        .did(did))
}
