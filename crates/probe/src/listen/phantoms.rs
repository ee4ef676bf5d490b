//! Phantoms: the SYN was taken while there was room, the last ACK meets a full queue. The client is connected and the
//! server has nothing to accept.
//!
//! The scene of these claims: backlog 8, 6 queued, 12 clients connect at once and hold their last ACKs back, as a long
//! way would. Then the ACKs come in.

use std::time::{Duration, Instant};

use kernel::sockopt::TcpState;
use rustix::event::PollFlags;
use socket2::Socket;

use super::{
    ABORT_ON_OVERFLOW, HELD, Mark, PORT, SOON, SYNCOOKIES, await_state, depth, drops, fill, holding_many, join, release,
};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, in_state, info, outcome, result_name, wait};

const CLIENTS: usize = 12;
const QUEUED: usize = 6;

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.phantom",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.cookies-off", "2c.drops-identity"],
        says: "A last ACK that meets a full queue is dropped, at two drops of the socket: connected there, SYN_RECV here.",
        why: "tcp_v4_syn_recv_sock counts the overflow and makes no child, tcp_v4_rcv drops the segment; the request stays",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "connected, SYN_SENT", is: Is::Text("9 3") },
            Expect { figure: "ListenOverflows, ListenDrops, TCPReqQFullDrop", is: Is::Text("6 9 3") },
            Expect { figure: "socket drops", is: Is::Exactly(15.0) },
            Expect { figure: "half-open", is: Is::Exactly(6.0) },
            Expect { figure: "socket drops - ListenDrops", is: Is::Exactly(6.0) },
        ],
        known: Verdict::Holds,
        measure: request_phantoms,
    },
    Claim {
        name: "listen.phantom-looks-connected",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.same-tcp-info"],
        says: "TCP_INFO of a phantom and of a real connection are the same at the client.",
        why: "the client's handshake is over with the SYN-ACK; nothing tells it that its ACK was dropped",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "real", is: Is::Text("established segs_in 1 segs_out 2 bytes_acked 1 retrans 0") },
            Expect {
                figure: "request phantom",
                is: Is::Text("established segs_in 1 segs_out 2 bytes_acked 1 retrans 0"),
            },
            Expect {
                figure: "cookie phantom",
                is: Is::Text("established segs_in 1 segs_out 2 bytes_acked 1 retrans 0"),
            },
        ],
        known: Verdict::Holds,
        measure: looks_connected,
    },
    Claim {
        name: "listen.abort-on-overflow",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.abort-reset"],
        says: "tcp_abort_on_overflow=1 resets it after connect succeeded: ECONNRESET on read, EmbryonicRsts at the server.",
        why: "tcp_check_req: listen_overflow with the sysctl goes on to embryonic_reset, which sends a RST",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "connect", is: Is::Text("connected 9, SYN_SENT 3") },
            Expect { figure: "read", is: Is::Text("ECONNRESET 6") },
            Expect { figure: "ListenOverflows, ListenDrops, EmbryonicRsts, OutRsts", is: Is::Text("6 9 6 6") },
            Expect { figure: "socket drops", is: Is::Exactly(15.0) },
            Expect { figure: "EstabResets", is: Is::Exactly(6.0) },
            Expect { figure: "half-open", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: abort,
    },
    Claim {
        name: "listen.abort-on-overflow-over-loopback",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.abort-loopback"],
        says: "Where the RST comes right after the SYN-ACK, as over loopback, connect itself gives ECONNRESET, not ECONNREFUSED.",
        why: "the client is ESTABLISHED when the RST comes (tcp_reset: ECONNREFUSED is for SYN_SENT); connect reports sk_err",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[Expect { figure: "connect", is: Is::Text("ECONNRESET") }],
        known: Verdict::Holds,
        measure: abort_in_connect,
    },
    Claim {
        name: "listen.cookie-phantom",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.cookie-phantom", "2b.detect-first-byte"],
        says: "A cookie's last ACK leaves nothing behind: no request, no RST with abort_on_overflow, no SYN-ACK later.",
        why: "cookie_v4_check finds the queue full and frees the request; only the client knows of the connection",
        ends: Ends::Veth,
        takes: Takes::Seconds(5),
        expects: &[
            Expect { figure: "abort 0", is: Is::Text("connected 12, half-open 0: 12 12 9 9 12 0, socket drops 9") },
            Expect { figure: "abort 1", is: Is::Text("connected 12, half-open 0: 12 12 9 9 12 0, socket drops 9") },
            Expect { figure: "abort 0, queue drained", is: Is::Text("9 wait, 0 enter") },
            Expect { figure: "abort 1, queue drained", is: Is::Text("9 wait, 0 enter") },
        ],
        known: Verdict::Holds,
        measure: cookie_phantoms,
    },
];

/// The scene of the module's text: the listener, the clients queued before, the twelve.
fn overrun(scene: &Scene, port: u16) -> Result<(Socket, Vec<Socket>, Vec<Socket>), ProbeError> {
    let listener = scene.listen(port, 8)?;
    let queued = fill(scene, QUEUED, port)?;
    eventually(SOON, || Ok(depth(&listener)? as usize == QUEUED))?;
    let clients = holding_many(scene, CLIENTS, port)?;
    Ok((listener, queued, clients))
}

/// Waits until the ACKs have come in, which is later than the clients hold them.
fn acks_in(listener: &Socket) -> Result<(), ProbeError> {
    std::thread::sleep(HELD + Duration::from_millis(100));
    eventually(SOON, || Ok(depth(listener)? == 9)).map(drop)
}

fn request_phantoms(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    let (listener, _queued, clients) = overrun(scene, PORT)?;
    acks_in(&listener)?;
    let counted = scene.counters()?.0;
    let count = |name: &str| counted.get(name).copied().unwrap_or(0);
    let counts = join(["ListenOverflows", "ListenDrops", "TCPReqQFullDrop"].map(count));
    let dropped = drops(&listener)?;
    let half = scene.syn_recv(PORT)?;
    let states = join([in_state(&clients, TcpState::Established)?, in_state(&clients, TcpState::SynSent)?]);
    let at_ack = u64::from(dropped).saturating_sub(count("ListenDrops"));
    let did = format!(
        "clients connected and in SYN_SENT {states}; {half} of them half open; overflows, drops, TCPReqQFullDrop {counts}; \
         sk_drops {dropped}"
    );
    Ok(Observed::new()
        .text("connected, SYN_SENT", states)
        .text("ListenOverflows, ListenDrops, TCPReqQFullDrop", counts)
        .number("socket drops", dropped)
        .number("half-open", half)
        .number("socket drops - ListenDrops", at_ack as f64)
        .did(did))
}

fn looks_connected(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let look = |client: &Socket| {
        let info = info(client)?;
        Ok::<_, ProbeError>(format!(
            "{} segs_in {} segs_out {} bytes_acked {} retrans {}",
            info.state.name(),
            info.segs_in,
            info.segs_out,
            info.bytes_acked,
            info.total_retrans
        ))
    };
    scene.sysctl(SYNCOOKIES, 0)?;
    let request = super::phantom(scene, PORT)?;
    scene.sysctl(SYNCOOKIES, 2)?;
    let cookie = super::phantom(scene, PORT + 1)?;
    let (real, request, cookie) = (look(&request.real)?, look(&request.client)?, look(&cookie.client)?);
    let same = if real == request && real == cookie { "all three" } else { "real; not so the phantoms" };
    let did = format!("{real}: {same}");
    Ok(Observed::new().text("real", real).text("request phantom", request).text("cookie phantom", cookie).did(did))
}

fn abort(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    scene.sysctl(ABORT_ON_OVERFLOW, 1)?;
    let (listener, _queued, clients) = overrun(scene, PORT)?;
    await_state(&clients, TcpState::Established, 9)?;
    let waiting = in_state(&clients, TcpState::SynSent)?;
    let connect = format!("connected {}, SYN_SENT {waiting}", clients.len() - waiting);
    acks_in(&listener)?;
    let mut resets = 0;
    for client in &clients {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        resets += u32::from(result_name(&client.recv(&mut byte)) == "ECONNRESET");
    }
    let (server, client) = scene.counters()?;
    let counts = join(
        ["ListenOverflows", "ListenDrops", "EmbryonicRsts", "OutRsts"]
            .map(|name| server.get(name).copied().unwrap_or(0)),
    );
    let estab_resets = client.get("EstabResets").copied().unwrap_or(0);
    let did =
        format!("{connect}; then {resets} reads give ECONNRESET; overflows, drops, EmbryonicRsts, OutRsts {counts}");
    Ok(Observed::new()
        .text("connect", connect)
        .text("read", format!("ECONNRESET {resets}"))
        .text("ListenOverflows, ListenDrops, EmbryonicRsts, OutRsts", counts)
        .number("socket drops", drops(&listener)?)
        .number("EstabResets", estab_resets as f64)
        .number("half-open", scene.syn_recv(PORT)?)
        .did(did))
}

/// Nobody holds ACKs back here: the SYN-ACK is dropped at the client until the queue is full, and sent again a second
/// later.
fn abort_in_connect(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    scene.sysctl(ABORT_ON_OVERFLOW, 1)?;
    let listener = scene.listen(PORT, 1)?;
    let clients = super::half_open(scene, 1, PORT)?;
    super::await_syn_recv(scene, PORT, 1)?;
    let _queued = fill(scene, 1, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 1))?;
    listener.listen(0).doing("listen again")?;
    kernel::sockopt::detach_filter(&clients[0]).doing("detach the filter")?;
    await_state(&clients, TcpState::Close, 1)?;
    let connect = outcome(&clients[0], SOON)?;
    Ok(Observed::new().text("connect", connect.as_str()).did(format!("connect ends with {connect}")))
}

fn cookie_phantoms(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const COUNTED: &[&str] =
        &["SyncookiesSent", "SyncookiesRecv", "ListenOverflows", "ListenDrops", "TCPReqQFullDoCookies", "OutRsts"];
    scene.sysctl(SYNCOOKIES, 2)?;
    let mut observed = Observed::new();
    let mut did = Vec::new();
    for (port, setting) in [(PORT, 0), (PORT + 1, 1)] {
        scene.sysctl(ABORT_ON_OVERFLOW, setting)?;
        let listener = scene.listen(port, 8)?;
        let queued = fill(scene, QUEUED, port)?;
        eventually(SOON, || Ok(depth(&listener)? as usize == QUEUED))?;
        let mark = Mark::new(scene)?;
        let clients = holding_many(scene, CLIENTS, port)?;
        await_state(&clients, TcpState::Established, CLIENTS)?;
        release(&clients)?;
        acks_in(&listener)?;
        let counted = format!(
            "connected {}, half-open {}: {}, socket drops {}",
            in_state(&clients, TcpState::Established)?,
            scene.syn_recv(port)?,
            mark.server(scene, COUNTED)?,
            drops(&listener)?
        );
        // Room for all: a request would be admitted by the SYN-ACK of the first second.
        let taken = super::take(&listener, 9)?;
        let until = Instant::now() + Duration::from_millis(1500);
        let entered = u32::from(!wait(&listener, PollFlags::IN, until - Instant::now())?.is_empty());
        // Accepted sockets are still open, so nobody but a phantom has nothing to read for another reason.
        let waiting = in_state(&clients, TcpState::Established)? + queued.len() - taken.len();
        let drained = format!("{waiting} wait, {entered} enter");
        observed = observed.text(&format!("abort {setting}"), counted.as_str());
        observed = observed.text(&format!("abort {setting}, queue drained"), drained.as_str());
        did.push(format!("{counted}; drained: {drained}"));
    }
    let same =
        if did[0] == did[1] { "; the same with abort_on_overflow" } else { "; otherwise with abort_on_overflow" };
    Ok(observed.did(format!("{}{same}", did[0])))
}
