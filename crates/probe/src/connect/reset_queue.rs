//! Causes of a RST that the notes leave out: they lie with the listener and its queues.

use std::io::Write;
use std::time::Duration;

use kernel::sockopt;
use socket2::{SockFilter, Socket, TcpKeepalive};

use super::{AT_ONCE, PORT, connected, pair, received};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome};

/// Connections in the queue of a listener that goes away.
const QUEUED: u16 = 5;
/// The keepalive probe after 1 s is answered by then.
const AFTER_A_SECOND: Duration = Duration::from_secs(4);

/// The claims about causes at the listener.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.rst-by-abort-on-overflow",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-more-causes"],
        says: "With tcp_abort_on_overflow a last ACK that finds the accept queue full is answered by a RST: ECONNRESET, never \
               ECONNREFUSED.",
        why: "tcp_check_req (net/ipv4/tcp_minisocks.c) resets instead of keeping the request, and counts EmbryonicRsts; the \
              client has left SYN_SENT with the SYN-ACK",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "read", is: Is::Text("ECONNRESET") },
            Expect { figure: "server.EmbryonicRsts", is: Is::Exactly(1.0) },
            Expect { figure: "rsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: abort_on_overflow,
    },
    Claim {
        name: "connect.rst-by-closed-listener",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-more-causes"],
        says: "Closing a listener resets every connection in its queue: connected clients read ECONNRESET.",
        why: "inet_csk_listen_stop (net/ipv4/inet_connection_sock.c) disconnects each queued child, which sends a RST and \
              counts no TCPAbort counter",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "reset", is: Is::Exactly(QUEUED as f64) },
            Expect { figure: "later", is: Is::Text("ECONNREFUSED") },
            // And one for the connect that comes later.
            Expect { figure: "server.OutRsts", is: Is::Exactly(QUEUED as f64 + 1.0) },
            Expect { figure: "server.TCPAbortOnData", is: Is::Exactly(0.0) },
            Expect { figure: "server.TCPAbortOnClose", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: closed_listener,
    },
    Claim {
        name: "connect.rst-by-shut-down-listener",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-more-causes"],
        says: "shutdown(SHUT_RD) on a listener resets its queue like close, and new clients are refused.",
        why: "inet_shutdown (net/ipv4/af_inet.c) disconnects a socket in LISTEN; it is bound but no longer listens",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "reset", is: Is::Exactly(QUEUED as f64) },
            Expect { figure: "later", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "server.OutRsts", is: Is::Exactly(QUEUED as f64 + 1.0) },
        ],
        known: Verdict::Holds,
        measure: shut_down_listener,
    },
    Claim {
        name: "connect.rst-for-invalid-cookie",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-more-causes"],
        says: "An ACK without a valid SYN cookie, to a listener that knows no such connection, is answered by a RST.",
        why: "the listener's ACK goes to cookie_v4_check (net/ipv4/syncookies.c), which counts SyncookiesFailed; here a \
              keepalive probe, whose number is one too low, of a client whose last ACK was lost",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "before", is: Is::Text("established") },
            Expect { figure: "read", is: Is::Text("ECONNRESET") },
            Expect { figure: "server.SyncookiesFailed", is: Is::Exactly(1.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: invalid_cookie,
    },
    Claim {
        name: "connect.rst-by-client",
        group: Group::Connect,
        notes: &[],
        facts: &[],
        says: "A client's RST, too, ends an accepted connection at once: the server reads ECONNRESET.",
        why: "a RST is not tied to a side; tcp_reset sets ECONNRESET in ESTABLISHED",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "server-reads", is: Is::Text("ECONNRESET") },
            Expect { figure: "client.OutRsts", is: Is::Exactly(1.0) },
            Expect { figure: "client.TCPAbortOnData", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: client_resets,
    },
];

fn abort_on_overflow(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl("net.ipv4.tcp_syncookies", 0)?;
    scene.sysctl("net.ipv4.tcp_abort_on_overflow", 1)?;
    let listener = scene.listen(PORT, 1)?;
    // Its last ACK is lost; meanwhile two others fill the queue, and its first byte brings the ACK again.
    let late = lost_ack(scene, &listener)?;
    let _queued = [connected(scene, PORT)?, connected(scene, PORT)?];
    eventually(AT_ONCE, || Ok(info(&listener)?.unacked == 2))?;
    let mut writer = &late;
    writer.write_all(b"x").doing("write")?;
    let sees = received(&late, AT_ONCE)?;
    // Read here: what is queued draws RSTs when the listener is closed.
    let rsts = scene.server_counter("OutRsts")?;
    let did = format!("abort_on_overflow=1, last ACK on a full queue: the client reads {sees}");
    Ok(Observed::new().text("read", sees).number("rsts", rsts as f64).did(did))
}

/// Clients in the queue of a listener.
fn queue(scene: &Scene, listener: &Socket) -> Result<Vec<Socket>, ProbeError> {
    let clients = (0..QUEUED).map(|_| connected(scene, PORT)).collect::<Result<Vec<_>, _>>()?;
    eventually(AT_ONCE, || Ok(info(listener)?.unacked == u32::from(QUEUED)))?;
    Ok(clients)
}

/// How many of the queue were reset, and what the next client gets.
fn aftermath(scene: &Scene, clients: &[Socket], what: &str) -> Result<Observed, ProbeError> {
    let mut reset = 0u32;
    for client in clients {
        reset += u32::from(received(client, AT_ONCE)? == "ECONNRESET");
    }
    let later = outcome(&scene.connect(PORT)?, AT_ONCE)?;
    let did = format!("{what} with {QUEUED} queued: {reset} read ECONNRESET, the next connect gives {later}");
    Ok(Observed::new().number("reset", reset).text("later", later).did(did))
}

fn closed_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let clients = queue(scene, &listener)?;
    drop(listener);
    aftermath(scene, &clients, "close")
}

fn shut_down_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let clients = queue(scene, &listener)?;
    listener.shutdown(std::net::Shutdown::Read).doing("shut the listener down")?;
    aftermath(scene, &clients, "shutdown(SHUT_RD)")
}

/// Lets a listener see SYNs only: the last ACK of a handshake is lost.
fn lose_acks(listener: &Socket) -> Result<(), ProbeError> {
    // The flags are byte 13 of the TCP header; SYN is 2. BPF_LD|BPF_B|BPF_ABS, BPF_JMP|BPF_JSET|BPF_K, BPF_RET|BPF_K.
    let program = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x45, 0, 1, 2),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ];
    listener.attach_filter(&program).doing("attach a socket filter")
}

/// A connected client whose last ACK the listener did not see.
fn lost_ack(scene: &Scene, listener: &Socket) -> Result<Socket, ProbeError> {
    lose_acks(listener)?;
    let drops = || sockopt::socket_drops(listener).doing("read the listener's drops");
    let before = drops()?;
    let client = connected(scene, PORT)?;
    if !eventually(AT_ONCE, || Ok(drops()? > before))? {
        return Err(ProbeError::Failed("the last ACK is not lost".to_owned()));
    }
    listener.detach_filter().doing("detach the socket filter")?;
    Ok(client)
}

fn invalid_cookie(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl("net.ipv4.tcp_syncookies", 2)?;
    let listener = scene.listen(PORT, 8)?;
    let client = lost_ack(scene, &listener)?;
    let before = info(&client)?.state.name();
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
    client.set_tcp_keepalive(&keepalive).doing("set SO_KEEPALIVE")?;
    let read = received(&client, AFTER_A_SECOND)?;
    let failed = scene.server_counter("SyncookiesFailed")?;
    let did = format!("client {before}, keepalive probe answered: read gives {read}; SyncookiesFailed +{failed}");
    Ok(Observed::new().text("before", before).text("read", read).did(did))
}

fn client_resets(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = pair(scene, &listener, PORT)?;
    super::reset::abort(client)?;
    let reads = received(&accepted, AT_ONCE)?;
    let state = info(&accepted)?.state.name();
    let did = format!("client closes with linger 0: the server reads {reads} and is in {state}");
    Ok(Observed::new().text("server-reads", reads).did(did))
}
