//! close(2) and shutdown(2) of a connection: who sends a FIN, and when.

pub(crate) mod listener;
pub(crate) mod reset;

use std::net::Shutdown;

use kernel::sock_diag::SockDiag;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// The claims of this group about FINs.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "close.sends-no-fin",
        group: Group::Close,
        notes: &["7.1"],
        facts: &["0.close-last"],
        says: "close lowers the reference count and sends no FIN by itself, so it starts no four-way close.",
        why: "true only while another reference is left: the last one's close calls tcp_close, which sends the FIN",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("nothing") },
            Expect { figure: "client-state", is: Is::Text("ESTABLISHED") },
        ],
        known: Verdict::Differs,
        measure: close_alone,
    },
    Claim {
        name: "close.last-one-sends-fin",
        group: Group::Close,
        notes: &[],
        facts: &["0.close-last"],
        says: "close of the last descriptor sends a FIN at once and starts the four-way close.",
        why: "the last fput calls inet_release and tcp_close, which sends a FIN (tcp_send_fin) when no data is unread",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("EOF") },
            Expect { figure: "client-state", is: Is::Text("CLOSE_WAIT") },
            Expect { figure: "server-fin-wait2", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: close_alone,
    },
    Claim {
        name: "close.no-fin-while-copied",
        group: Group::Close,
        notes: &[],
        facts: &["0.close-last"],
        says: "While a child holds a copy, close sends no FIN; the FIN goes out when the child's copy is closed.",
        why: "close drops one reference of the open file; the socket is released with the last (fput)",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "after-close", is: Is::Text("nothing") },
            Expect { figure: "client-state", is: Is::Text("ESTABLISHED") },
            Expect { figure: "after-the-child-ended", is: Is::Text("EOF") },
        ],
        known: Verdict::Holds,
        measure: no_fin_while_copied,
    },
    Claim {
        name: "close.needs-shutdown",
        group: Group::Close,
        notes: &["7.3"],
        facts: &["0.close-last"],
        says: "To really start the four-way close, use shutdown: close alone does not.",
        why: "both send the FIN; shutdown is needed only when others hold copies, or to go on reading",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "after-close", is: Is::Text("nothing") },
            Expect { figure: "after-shutdown", is: Is::Text("EOF") },
        ],
        known: Verdict::Differs,
        measure: needs_shutdown,
    },
    Claim {
        name: "close.shutdown-ignores-copies",
        group: Group::Close,
        notes: &[],
        facts: &["0.shutdown-fin"],
        says: "shutdown(SHUT_WR) sends the FIN at once, whoever else holds a copy.",
        why: "inet_shutdown calls tcp_shutdown on the socket; references do not matter",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("EOF") },
            Expect { figure: "server-state", is: Is::Text("FIN_WAIT2") },
        ],
        known: Verdict::Holds,
        measure: shutdown_ignores_copies,
    },
    Claim {
        name: "close.shutdown-closes-half",
        group: Group::Close,
        notes: &[],
        facts: &["0.shutdown-fin"],
        says: "After shutdown(SHUT_WR) the other direction goes on: the client sends, and the server reads.",
        why: "a FIN ends one direction; in FIN_WAIT2 data is still received (RFC 9293, 3.6)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("EOF") },
            Expect { figure: "server-reads", is: Is::Text("hello") },
            Expect { figure: "server-sends", is: Is::Text("EPIPE") },
        ],
        known: Verdict::Holds,
        measure: shutdown_closes_half,
    },
    Claim {
        name: "close.shut-rd-sends-nothing",
        group: Group::Close,
        notes: &[],
        facts: &[],
        says: "shutdown(SHUT_RD) on a connection sends nothing: reads give EOF here, and the client notices nothing.",
        why: "tcp_shutdown returns at once without SEND_SHUTDOWN; RCV_SHUTDOWN only makes recv return 0",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "server-reads", is: Is::Text("EOF") },
            Expect { figure: "client-reads", is: Is::Text("nothing") },
            Expect { figure: "client-state", is: Is::Text("ESTABLISHED") },
            Expect { figure: "client-sends", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: shut_rd_sends_nothing,
    },
    Claim {
        name: "close.first-one-waits",
        group: Group::Close,
        notes: &[],
        facts: &[],
        says: "TIME_WAIT stays at the end that closes first, be it server or client; the other end keeps nothing.",
        why: "the end whose FIN is acknowledged before it gets the peer's becomes TIME_WAIT (tcp_fin, tcp_time_wait)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "server-first", is: Is::Text("server 1, client 0") },
            Expect { figure: "client-first", is: Is::Text("server 0, client 1") },
        ],
        known: Verdict::Holds,
        measure: first_one_waits,
    },
];

fn close_alone(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    drop(accepted);
    // Long enough that "nothing" means nothing.
    let reads = talk::read(&client, SOON)?;
    let state = talk::state(&client)?;
    let mut diag = SockDiag::open().doing("open a sock_diag socket")?;
    let mut waiting = || count(&mut diag, "fin_wait2");
    eventually(SOON, || Ok(reads != "EOF" || waiting()? == 1))?;
    let waiting = waiting()?;
    let did = format!("the only descriptor is closed: the client reads {reads} and is in {state}");
    Ok(Observed::new()
        .text("client-reads", reads)
        .text("client-state", state)
        .number("server-fin-wait2", waiting as f64)
        .did(did))
}

/// Sockets in a state in the namespace `diag` was opened in.
fn count(diag: &mut SockDiag, state: &str) -> Result<u64, ProbeError> {
    let states = diag.states().map_err(|error| ProbeError::Failed(error.to_string()))?;
    Ok(states.get(state).copied().unwrap_or(0))
}

fn no_fin_while_copied(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    let child = scene.hold(&accepted)?;
    drop(accepted);
    let reads = talk::read(&client, QUIET)?;
    let state = talk::state(&client)?;
    drop(child);
    let then = talk::read(&client, SOON)?;
    let did =
        format!("after close the client reads {reads} and is in {state}; when the child's copy goes it reads {then}");
    Ok(Observed::new()
        .text("after-close", reads)
        .text("client-state", state)
        .text("after-the-child-ended", then)
        .did(did))
}

fn needs_shutdown(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (closed_client, closed) = talk::pair(scene, &listener, PORT)?;
    let (shut_client, shut) = talk::pair(scene, &listener, PORT)?;
    drop(closed);
    let after_close = talk::read(&closed_client, SOON)?;
    shut.shutdown(Shutdown::Write).doing("shutdown")?;
    let after_shutdown = talk::read(&shut_client, SOON)?;
    let did = format!("after close the client reads {after_close}, after shutdown {after_shutdown}");
    Ok(Observed::new().text("after-close", after_close).text("after-shutdown", after_shutdown).did(did))
}

fn shutdown_ignores_copies(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    let _duplicate = accepted.try_clone().doing("duplicate the descriptor")?;
    let _child = scene.hold(&accepted)?;
    accepted.shutdown(Shutdown::Write).doing("shutdown")?;
    let reads = talk::read(&client, SOON)?;
    let state = talk::becomes(&accepted, "FIN_WAIT2")?;
    let did = format!("with two more copies open the client reads {reads}; the server is in {state}");
    Ok(Observed::new().text("client-reads", reads).text("server-state", state).did(did))
}

fn shutdown_closes_half(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    accepted.shutdown(Shutdown::Write).doing("shutdown")?;
    let client_reads = talk::read(&client, SOON)?;
    talk::send(&client, "hello")?;
    let server_reads = talk::read(&accepted, SOON)?;
    let server_sends = talk::try_send(&accepted);
    let did = format!(
        "client reads {client_reads} and sends; server reads {server_reads:?}, its own send gives {server_sends}"
    );
    Ok(Observed::new()
        .text("client-reads", client_reads)
        .text("server-reads", server_reads)
        .text("server-sends", server_sends)
        .did(did))
}

fn shut_rd_sends_nothing(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    accepted.shutdown(Shutdown::Read).doing("shutdown")?;
    let server_reads = talk::read(&accepted, SOON)?;
    let client_reads = talk::read(&client, QUIET)?;
    let state = talk::state(&client)?;
    let client_sends = talk::try_send(&client);
    let did = format!(
        "server reads {server_reads}; client reads {client_reads}, is in {state}, its send gives {client_sends}"
    );
    Ok(Observed::new()
        .text("server-reads", server_reads)
        .text("client-reads", client_reads)
        .text("client-state", state)
        .text("client-sends", client_sends)
        .did(did))
}

fn first_one_waits(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let mut server_diag = SockDiag::open().doing("open a sock_diag socket")?;
    let mut client_diag = scene.on_client(SockDiag::open)?.doing("open a sock_diag socket")?;
    let mut observed = Observed::new();
    let mut before = [0, 0];
    let mut told = Vec::new();
    for figure in ["server-first", "client-first"] {
        let (client, accepted) = talk::pair(scene, &listener, PORT)?;
        let (first, last) = if figure == "server-first" { (accepted, client) } else { (client, accepted) };
        drop(first);
        talk::read(&last, SOON)?;
        drop(last);
        let mut waits = || Ok([count(&mut server_diag, "time_wait")?, count(&mut client_diag, "time_wait")?]);
        eventually(SOON, || Ok(waits()?.iter().sum::<u64>() > before.iter().sum::<u64>()))?;
        let now: [u64; 2] = waits()?;
        let text = format!("server {}, client {}", now[0] - before[0], now[1] - before[1]);
        told.push(text.clone());
        observed = observed.text(figure, text);
        before = now;
    }
    Ok(observed.did(format!("TIME_WAIT: {} when the server closes first, {} when the client does", told[0], told[1])))
}
