//! TCP fast open: data in the SYN, and connections that accept(2) returns before their handshake has ended.

use std::net::SocketAddr;

use kernel::sockopt;
use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, info, outcome};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// sendto(2) that also connects (`include/linux/socket.h`).
const MSG_FASTOPEN: i32 = 0x2000_0000;

/// `net.ipv4.tcp_fastopen`: both ends, and both ends without a cookie.
const WITH_COOKIE: u32 = 0x3;
const WITHOUT_COOKIE: u32 = 0x207;

/// `TCPI_OPT_SYN_DATA`.
const SYN_DATA: u8 = 32;

/// Claims about fast open.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.fast-open-off-for-servers",
        group: Group::Accept,
        notes: &[],
        facts: &["5.tfo-default"],
        says: "By default fast open works for clients only: a listener with TCP_FASTOPEN hands out no cookie.",
        why: "net.ipv4.tcp_fastopen is 1 (TFO_CLIENT_ENABLE); tcp_try_fastopen counts the request for a cookie and answers it \
              only with TFO_SERVER_ENABLE",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("EINPROGRESS") },
            Expect { figure: "second", is: Is::Text("EINPROGRESS") },
            Expect { figure: "server.TCPFastOpenCookieReqd", is: Is::Exactly(2.0) },
            Expect { figure: "server.TCPFastOpenPassive", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| twice(scene, None),
    },
    Claim {
        name: "accept.fast-open-cookie",
        group: Group::Accept,
        notes: &[],
        facts: &["5.tfo-cookie"],
        says: "With fast open on at both ends the first connection fetches a cookie; the second one's SYN carries data.",
        why: "RFC 7413; tcp_fastopen_cookie_check at the client, tcp_try_fastopen at the server",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("EINPROGRESS") },
            Expect { figure: "second", is: Is::Text("5 bytes") },
            Expect { figure: "syn-data", is: Is::Exactly(1.0) },
            Expect { figure: "server.TCPFastOpenCookieReqd", is: Is::Exactly(1.0) },
            Expect { figure: "server.TCPFastOpenPassive", is: Is::Exactly(1.0) },
            Expect { figure: "client.TCPFastOpenActive", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| twice(scene, Some(WITH_COOKIE)),
    },
    Claim {
        name: "accept.fast-open-without-cookie",
        group: Group::Accept,
        notes: &[],
        facts: &["5.tfo-no-cookie"],
        says: "With tcp_fastopen=0x207 no cookie is needed: the very first SYN carries data.",
        why: "TFO_CLIENT_NO_COOKIE (4) and TFO_SERVER_COOKIE_NOT_REQD (0x200), Documentation/networking/ip-sysctl.rst",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("5 bytes") },
            Expect { figure: "second", is: Is::Text("5 bytes") },
            Expect { figure: "server.TCPFastOpenCookieReqd", is: Is::Exactly(0.0) },
            Expect { figure: "server.TCPFastOpenPassive", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| twice(scene, Some(WITHOUT_COOKIE)),
    },
    Claim {
        name: "accept.fast-open-before-the-handshake",
        group: Group::Accept,
        notes: &[],
        facts: &["5.tfo-syn-recv"],
        says: "accept returns a fast-open connection in SYN_RECV, with data, before its handshake has ended.",
        why: "tcp_fastopen_create_child puts the child in the accept queue when the SYN comes; inet_accept lets SYN_RECV \
              pass (TCPF_SYN_RECV)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client", is: Is::Text("SYN_SENT") },
            Expect { figure: "state", is: Is::Text("SYN_RECV") },
            Expect { figure: "read", is: Is::Text("hello") },
            Expect { figure: "answer", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: before_the_handshake,
    },
    Claim {
        name: "accept.fast-open-limit",
        group: Group::Accept,
        notes: &[],
        facts: &["5.tfo-qlen"],
        says: "TCP_FASTOPEN's number bounds the fast-open handshakes that have not ended; more fall back to an ordinary one.",
        why: "tcp_fastopen_queue_check compares fastopenq.qlen with max_qlen and counts TCPFastOpenListenOverflow",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "queued", is: Is::Exactly(3.0) },
            Expect { figure: "server.TCPFastOpenListenOverflow", is: Is::Exactly(3.0) },
            Expect { figure: "server.TCPFastOpenPassive", is: Is::Exactly(3.0) },
            Expect { figure: "server.ListenOverflows", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: limit,
    },
    Claim {
        name: "accept.fast-open-full-queue",
        group: Group::Accept,
        notes: &[],
        facts: &["5.tfo-full-queue"],
        says: "A fast-open SYN that meets a full accept queue is dropped like any other.",
        why: "tcp_conn_request looks at the accept queue before fast open (sk_acceptq_is_full)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client", is: Is::Text("SYN_SENT") },
            Expect { figure: "server.ListenOverflows", is: Is::Between(1.0, 5.0) },
            Expect { figure: "server.ListenDrops", is: Is::Between(1.0, 5.0) },
            Expect { figure: "server.TCPFastOpenPassive", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: full_queue,
    },
];

/// A listener with fast open for so many at once.
fn listener(scene: &Scene, sysctl: Option<u32>, backlog: i32, pending: u16) -> Result<Socket, ProbeError> {
    if let Some(value) = sysctl {
        scene.sysctl("net.ipv4.tcp_fastopen", value)?;
    }
    let listener = scene.listen(PORT, backlog)?;
    sockopt::set_fastopen(&listener, pending).doing("set TCP_FASTOPEN")?;
    Ok(listener)
}

/// Connects with data in the SYN, if the kernel will.
fn fast_open(client: &Socket, address: SocketAddr) -> String {
    match client.send_to_with_flags(b"hello", &address.into(), MSG_FASTOPEN) {
        Ok(bytes) => format!("{bytes} bytes"),
        Err(error) => errno_name(&error),
    }
}

fn twice(scene: &mut Scene, sysctl: Option<u32>) -> Result<Observed, ProbeError> {
    let listener = listener(scene, sysctl, 8, 16)?;
    let mut results = Vec::new();
    let mut syn_data = false;
    for _ in 0..2 {
        let client = scene.client_socket()?;
        results.push(fast_open(&client, scene.address(PORT)));
        outcome(&client, SOON)?;
        talk::queued(&listener, 1)?;
        let (accepted, _) = listener.accept().doing("accept")?;
        syn_data = info(&accepted)?.options & SYN_DATA != 0;
    }
    let did =
        format!("sendto(MSG_FASTOPEN) gives {} on the first connection, {} on the second", results[0], results[1]);
    Ok(Observed::new()
        .text("first", results[0].as_str())
        .text("second", results[1].as_str())
        .number("syn-data", u8::from(syn_data))
        .did(did))
}

/// A client that never sees the SYN-ACK, so that its handshake does not end.
fn deaf_client(scene: &Scene) -> Result<Socket, ProbeError> {
    let client = scene.client_socket()?;
    sockopt::drop_all_filter(&client).doing("filter the client")?;
    fast_open(&client, scene.address(PORT));
    Ok(client)
}

fn before_the_handshake(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = listener(scene, Some(WITHOUT_COOKIE), 8, 16)?;
    let client = deaf_client(scene)?;
    talk::queued(&listener, 1)?;
    let (accepted, _) = listener.accept().doing("accept")?;
    let (client_state, state) = (talk::state(&client)?, talk::state(&accepted)?);
    let read = talk::read(&accepted, SOON)?;
    let answer = talk::try_send(&accepted);
    let did = format!(
        "the client is in {client_state}; accept returns its connection in {state}, {read:?} is read, send gives {answer}"
    );
    Ok(Observed::new()
        .text("client", client_state)
        .text("state", state)
        .text("read", read)
        .text("answer", answer)
        .did(did))
}

fn limit(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const CLIENTS: usize = 6;
    let listener = listener(scene, Some(WITHOUT_COOKIE), 8, 3)?;
    let _clients = (0..CLIENTS).map(|_| deaf_client(scene)).collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(QUIET);
    let queued = info(&listener)?.unacked;
    let fell_back = scene.server_counter("TCPFastOpenListenOverflow")?;
    let did = format!("limit 3, {CLIENTS} clients: {queued} in the accept queue, {fell_back} fall back");
    Ok(Observed::new().number("queued", queued).did(did))
}

fn full_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = listener(scene, Some(WITHOUT_COOKIE), 0, 16)?;
    let _fills = talk::queue(scene, &listener, PORT, 1)?;
    let client = scene.client_socket()?;
    let sent = fast_open(&client, scene.address(PORT));
    let state = match outcome(&client, QUIET)?.as_str() {
        "connected" if sent != "EINPROGRESS" => talk::state(&client)?,
        other => other.to_owned(),
    };
    let dropped = if scene.server_counter("ListenOverflows")? > 0 { "dropped" } else { "not dropped" };
    let did = format!("its SYN is {dropped}, the client stays in {state}");
    Ok(Observed::new().text("client", state).did(did))
}
