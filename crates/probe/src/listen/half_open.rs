//! The life of a request: its SYN-ACKs, its end, and what its listener's end does to it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use kernel::sockopt::{self, TcpState};
use socket2::Socket;

use super::{PORT, SOON, SYNACK_RETRIES, SYNCOOKIES, await_state, await_syn_recv, depth, half_open, join};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, in_state};

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.request-lifetime-short",
        group: Group::Listen,
        notes: &[],
        facts: &["3.syn-recv-lifetime"],
        says: "A request lives until the timer after its last SYN-ACK: 3 s with 1 retry, 7 s with 2, SYN-ACKs at 0, 1, 3 s.",
        why: "reqsk_timer_handler doubles the time-out and drops the request when num_timeout reaches tcp_synack_retries",
        ends: Ends::Veth,
        takes: Takes::Seconds(11),
        expects: &[
            Expect { figure: "1 retry: SYN-ACKs", is: Is::Text("0 1") },
            Expect { figure: "1 retry: gone at", is: Is::Between(2.94, 3.3) },
            Expect { figure: "2 retries: SYN-ACKs", is: Is::Text("0 1 3") },
            Expect { figure: "2 retries: gone at", is: Is::Between(6.9, 7.62) },
        ],
        known: Verdict::Holds,
        measure: lifetime_short,
    },
    Claim {
        name: "listen.request-lifetime",
        group: Group::Listen,
        notes: &[],
        facts: &["3.syn-recv-lifetime", "2b.lifetime"],
        says: "By default a request lives 64 s and sends SYN-ACKs at 0, 1, 3, 7, 15 and 31 s.",
        why: "tcp_synack_retries is 5; reqsk_timer_handler doubles the time-out after each",
        ends: Ends::Veth,
        takes: Takes::Full(68),
        expects: &[
            Expect { figure: "5 retries: SYN-ACKs", is: Is::Text("0 1 3 7 15 31") },
            Expect { figure: "5 retries: gone at", is: Is::Between(62.0, 68.2) },
        ],
        known: Verdict::Holds,
        measure: lifetime_full,
    },
    Claim {
        name: "listen.crowded-requests-are-pruned",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.pruned"],
        says: "When more than half of the SYN queue is taken, the surplus goes at the third timer, 7 s; half of it stays.",
        why: "reqsk_timer_handler lowers the retries to 2 while qlen * 2 > max(8, backlog), to keep room for the young",
        ends: Ends::Veth,
        takes: Takes::Seconds(10),
        expects: &[
            Expect { figure: "backlog 128", is: Is::Text("129 64") },
            Expect { figure: "backlog 10", is: Is::Text("6 5") },
            Expect { figure: "pruned from", is: Is::Between(6.8, 7.6) },
        ],
        known: Verdict::Holds,
        measure: pruned,
    },
    Claim {
        name: "listen.requests-of-a-closed-listener",
        group: Group::Listen,
        notes: &[],
        facts: &["3.closed-listener", "3.closed-listener-silent", "3.listener-filter"],
        says: "Closing a listener sends its requests' clients nothing: they stay connected; the requests go at their next timer.",
        why: "inet_csk_listen_stop walks the accept queue only; reqsk_timer_handler drops requests of a closed listener",
        ends: Ends::Veth,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "half-open after close", is: Is::Exactly(20.0) },
            Expect { figure: "gone at", is: Is::Between(0.9, 1.2) },
            Expect { figure: "clients connected then", is: Is::Exactly(20.0) },
            Expect { figure: "RSTs", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: closed_listener,
    },
    Claim {
        name: "listen.filtered-acks-enter-later",
        group: Group::Listen,
        notes: &[],
        facts: &["3.listener-filter"],
        says: "A listener that filters bare ACKs has clients that are connected and requests; unfiltered, they all enter.",
        why: "the filter drops before the request is looked at (tcp_filter in tcp_v4_rcv); the next SYN-ACK draws another ACK",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "connected, half-open, queued", is: Is::Text("20 20 0") },
            Expect { figure: "socket drops, ListenDrops", is: Is::Text("20 0") },
            Expect { figure: "queued later", is: Is::Exactly(20.0) },
        ],
        known: Verdict::Holds,
        measure: filtered_acks,
    },
    Claim {
        name: "listen.half-open-client-closes",
        group: Group::Listen,
        notes: &[],
        facts: &["3.client-closes"],
        says: "When a half-open client's socket is closed, the next SYN-ACK draws a RST, which ends the request.",
        why: "the SYN-ACK finds no socket (tcp_v4_send_reset); tcp_check_req counts EmbryonicRsts",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "half-open before", is: Is::Exactly(4.0) },
            Expect { figure: "half-open after", is: Is::Exactly(0.0) },
            Expect { figure: "server.EmbryonicRsts", is: Is::Exactly(4.0) },
            Expect { figure: "server.AttemptFails", is: Is::Exactly(4.0) },
            Expect { figure: "client.AttemptFails", is: Is::Exactly(0.0) },
            Expect { figure: "client.OutRsts", is: Is::Exactly(4.0) },
        ],
        known: Verdict::Holds,
        measure: client_closes,
    },
];

/// A listener whose clients are connected while it only has requests: their SYNs come once.
fn deaf(scene: &Scene, port: u16, backlog: i32, count: usize) -> Result<(Socket, Vec<Socket>), ProbeError> {
    let listener = scene.listen(port, backlog)?;
    sockopt::drop_pure_acks_filter(listener.as_fd()).doing("attach a filter to the listener")?;
    let clients = scene.connect_many(count, port)?;
    await_state(&clients, TcpState::Established, count)?;
    Ok((listener, clients))
}

/// A handshake that takes so long lost a segment, which moves the timers that are looked at.
const LATE: Duration = Duration::from_millis(500);

/// Watches one request: whole seconds at which SYN-ACKs were sent, and when it was gone.
fn watch(scene: &Scene, port: u16, retries: u8, limit: Duration) -> Result<(String, f64), ProbeError> {
    scene.sysctl(SYNACK_RETRIES, retries)?;
    let before = scene.server_counter("TCPSynRetrans")?;
    let began = Instant::now();
    let (_listener, _clients) = deaf(scene, port, 16, 1)?;
    let (mut sent, mut seen) = (vec![0], before);
    let connected = began.elapsed();
    let gone = eventually(limit, || {
        let now = scene.server_counter("TCPSynRetrans")?;
        if now > seen {
            seen = now;
            // Rounded: timers are late by 3 % at most.
            sent.push(whole(began.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(20));
        Ok(scene.syn_recv(port)? == 0)
    })?;
    if !gone || connected > LATE {
        let (connected, limit) = (connected.as_secs_f64(), limit.as_secs());
        return Err(ProbeError::Failed(format!(
            "client connected after {connected:.3} s; gone within {limit} s: {gone}"
        )));
    }
    Ok((join(sent), began.elapsed().as_secs_f64()))
}

/// Seconds of the SYN-ACK grid: 15.3 is 15, 31.4 is 31.
fn whole(time: Duration) -> u64 {
    time.mul_f64(0.99).as_millis().saturating_add(150).try_into().map_or(u64::MAX, |millis: u64| millis / 1000)
}

fn lifetime_short(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let one = watch(scene, PORT, 1, Duration::from_secs(6))?;
    let two = watch(scene, PORT + 1, 2, Duration::from_secs(10))?;
    let did =
        format!("1 retry: SYN-ACKs at {} s, gone at {:.0} s; 2: at {} s, gone at {:.0} s", one.0, one.1, two.0, two.1);
    Ok(Observed::new()
        .text("1 retry: SYN-ACKs", one.0)
        .number("1 retry: gone at", one.1)
        .text("2 retries: SYN-ACKs", two.0)
        .number("2 retries: gone at", two.1)
        .did(did))
}

fn lifetime_full(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let (sent, gone) = watch(scene, PORT, 5, Duration::from_secs(75))?;
    // To the timer wheel's accuracy.
    let did = format!("SYN-ACKs at {sent} s, gone at {} s", (gone / 4.0).round() * 4.0);
    Ok(Observed::new().text("5 retries: SYN-ACKs", sent).number("5 retries: gone at", gone).did(did))
}

fn pruned(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let began = Instant::now();
    let (_large, _many) = deaf(scene, PORT, 128, 129)?;
    let (_small, _few) = deaf(scene, PORT + 1, 10, 6)?;
    let before = [scene.syn_recv(PORT)?, scene.syn_recv(PORT + 1)?];
    std::thread::sleep(Duration::from_secs(6));
    eventually(Duration::from_secs(3), || Ok(scene.syn_recv(PORT)? < before[0]))?;
    let from = began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(8500).saturating_sub(began.elapsed()));
    let large = join([before[0], scene.syn_recv(PORT)?]);
    let small = join([before[1], scene.syn_recv(PORT + 1)?]);
    let did = format!("requests before and after {from:.0} s: {large} with backlog 128, {small} with backlog 10");
    Ok(Observed::new().text("backlog 128", large).text("backlog 10", small).number("pruned from", from).did(did))
}

fn closed_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let began = Instant::now();
    let (listener, clients) = deaf(scene, PORT, 64, 20)?;
    drop(listener);
    let after_close = scene.syn_recv(PORT)?;
    eventually(Duration::from_secs(3), || Ok(scene.syn_recv(PORT)? == 0))?;
    let gone = began.elapsed().as_secs_f64();
    let connected = in_state(&clients, TcpState::Established)?;
    // Closing the clients draws some, so before that.
    let rsts = scene.server_counter("OutRsts")?;
    let did = format!(
        "{after_close} of 20 requests after close, none from {gone:.0} s on; {connected} clients still connected"
    );
    Ok(Observed::new()
        .number("half-open after close", after_close)
        .number("gone at", gone)
        .number("clients connected then", connected as f64)
        .number("RSTs", rsts as f64)
        .did(did))
}

fn filtered_acks(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let (listener, clients) = deaf(scene, PORT, 64, 20)?;
    let half = await_syn_recv(scene, PORT, 20)?;
    eventually(SOON, || Ok(super::drops(&listener)? >= 20))?;
    let connected = in_state(&clients, TcpState::Established)?;
    let states = format!("{connected} {half} {}", depth(&listener)?);
    let dropped = format!("{} {}", super::drops(&listener)?, scene.server_counter("ListenDrops")?);
    sockopt::detach_filter(&listener).doing("detach the filter")?;
    eventually(SOON, || Ok(depth(&listener)? == 20))?;
    let later = depth(&listener)?;
    let did = format!(
        "filtered: connected, half open, queued {states}, socket drops and ListenDrops {dropped}; then {later} queued"
    );
    Ok(Observed::new()
        .text("connected, half-open, queued", states)
        .text("socket drops, ListenDrops", dropped)
        .number("queued later", later)
        .did(did))
}

fn client_closes(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _listener = scene.listen(PORT, 16)?;
    let clients = half_open(scene, 4, PORT)?;
    let before = await_syn_recv(scene, PORT, 4)?;
    drop(clients);
    eventually(SOON, || Ok(scene.syn_recv(PORT)? == 0))?;
    let after = scene.syn_recv(PORT)?;
    let did = format!(
        "{before} half open; closed, {after} after the next SYN-ACK: EmbryonicRsts +{}",
        scene.server_counter("EmbryonicRsts")?
    );
    Ok(Observed::new().number("half-open before", before).number("half-open after", after).did(did))
}
