//! Where a RST comes from, and what the peer of a connection sees of it: the notes' three causes.

use std::io::Write;
use std::time::Duration;

use kernel::sockopt;
use socket2::Socket;

use super::{AT_ONCE, PORT, pair, received};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, outcome, result_name};

/// The claims about the notes' causes.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.three-causes-of-rst",
        group: Group::Connect,
        notes: &["1.5"],
        facts: &["0.rst-causes"],
        says: "A RST has three causes: no listener on the port; TCP wants to abort a connection; a segment for a connection \
               that does not exist.",
        why: "RFC 9293, 3.10.7; net/ipv4/tcp_ipv4.c answers what finds no socket, net/ipv4/tcp.c sends one for an aborting \
              close. These are the three; what aborts a connection, and who sees which error, is told apart below",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "no-listener", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "abort", is: Is::Text("ECONNRESET") },
            Expect { figure: "unknown-connection", is: Is::Text("ECONNRESET") },
            // The third needs a connection that was aborted without the client's knowledge.
            Expect { figure: "server.OutRsts", is: Is::Exactly(4.0) },
        ],
        known: Verdict::Holds,
        measure: three_causes,
    },
    Claim {
        name: "connect.rst-by-linger-0",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-causes", "0.estab-resets"],
        says: "SO_LINGER with time 0 makes close send a RST: the peer reads ECONNRESET, then writes EPIPE; each end counts \
               EstabResets.",
        why: "with a linger time of 0 tcp_close calls tcp_disconnect, which sends a RST and counts TCPAbortOnData; both \
              ends leave ESTABLISHED for CLOSE, where EstabResets counts (tcp_set_state)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "read", is: Is::Text("ECONNRESET") },
            Expect { figure: "write", is: Is::Text("EPIPE") },
            Expect { figure: "server.TCPAbortOnData", is: Is::Exactly(1.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
            Expect { figure: "server.EstabResets", is: Is::Exactly(1.0) },
            Expect { figure: "client.EstabResets", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: linger_zero,
    },
    Claim {
        name: "connect.rst-by-unread-data",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-causes"],
        says: "close with received data unread sends a RST instead of a FIN: the peer reads ECONNRESET, then writes EPIPE.",
        why: "data that nobody will read is lost, which a FIN would hide (RFC 2525, 2.17); tcp_close counts \
              TCPAbortOnClose",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "read", is: Is::Text("ECONNRESET") },
            Expect { figure: "write", is: Is::Text("EPIPE") },
            Expect { figure: "server.TCPAbortOnClose", is: Is::Exactly(1.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: unread_data,
    },
    Claim {
        name: "connect.rst-for-unknown-connection",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-causes"],
        says: "A segment for a connection that the peer has forgotten is answered by a RST: ECONNRESET, not ECONNREFUSED.",
        why: "tcp_v4_rcv finds neither connection nor listener for an ACK and sends a RST; outside SYN_SENT tcp_reset makes \
              it ECONNRESET, or EPIPE in CLOSE_WAIT",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "before", is: Is::Text("nothing") },
            Expect { figure: "first-write", is: Is::Text("ok") },
            Expect { figure: "read", is: Is::Text("ECONNRESET") },
            Expect { figure: "write", is: Is::Text("EPIPE") },
            Expect { figure: "server.OutRsts", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: unknown_connection,
    },
    Claim {
        name: "connect.rst-after-close",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-causes"],
        says: "Data sent to a peer that has closed draws a RST: the first write succeeds, the second gives EPIPE.",
        why: "after close nobody can read what arrives: the socket, or what TIME_WAIT keeps of it, answers with a RST \
              (tcp_rcv_state_process, tcp_timewait_state_process); in CLOSE_WAIT a RST is EPIPE (tcp_reset)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "read", is: Is::Text("end") },
            Expect { figure: "writes", is: Is::Text("ok, EPIPE") },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: after_close,
    },
];

/// The next read and the write after it.
fn read_and_write(client: &Socket) -> Result<(String, String), ProbeError> {
    let read = received(client, AT_ONCE)?;
    Ok((read, write(client)))
}

fn write(client: &Socket) -> String {
    let mut writer = client;
    result_name(&writer.write(b"x"))
}

/// Closes with a RST (`SO_LINGER` with time 0).
pub(super) fn abort(socket: Socket) -> Result<(), ProbeError> {
    socket.set_linger(Some(Duration::ZERO)).doing("set SO_LINGER")?;
    drop(socket);
    Ok(())
}

/// A connection that the server has aborted and the client has not: the RST was lost in a socket filter.
fn forgotten(scene: &Scene, listener: &Socket) -> Result<Socket, ProbeError> {
    let (client, accepted) = pair(scene, listener, PORT)?;
    sockopt::drop_all_filter(&client).doing("attach a socket filter")?;
    let before = scene.server_counter("OutRsts")?;
    abort(accepted)?;
    if !crate::scene::eventually(AT_ONCE, || Ok(scene.server_counter("OutRsts")? > before))? {
        return Err(ProbeError::Failed("no RST was sent".to_owned()));
    }
    // It is in the client's backlog at most as long as the client is in a system call.
    sockopt::detach_filter(&client).doing("detach the socket filter")?;
    Ok(client)
}

fn three_causes(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let no_listener = outcome(&scene.connect(PORT + 1)?, AT_ONCE)?;
    let (client, accepted) = pair(scene, &listener, PORT)?;
    abort(accepted)?;
    let aborted = received(&client, AT_ONCE)?;
    let client = forgotten(scene, &listener)?;
    write(&client);
    let unknown = received(&client, AT_ONCE)?;
    let did = format!("no listener {no_listener}, abort {aborted}, unknown connection {unknown}: a RST each");
    Ok(Observed::new()
        .text("no-listener", no_listener)
        .text("abort", aborted)
        .text("unknown-connection", unknown)
        .did(did))
}

fn linger_zero(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = pair(scene, &listener, PORT)?;
    abort(accepted)?;
    let (read, write) = read_and_write(&client)?;
    let resets = (scene.server_counter("EstabResets")?, scene.client_counter("EstabResets")?);
    let did = format!(
        "close with linger 0: read gives {read}, then write {write}; EstabResets +{} at the server, +{} at the client",
        resets.0, resets.1
    );
    Ok(Observed::new().text("read", read).text("write", write).did(did))
}

fn unread_data(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = pair(scene, &listener, PORT)?;
    write(&client);
    super::arrived(&accepted)?;
    drop(accepted);
    let (read, write) = read_and_write(&client)?;
    let did = format!("close with a byte unread: read gives {read}, then write {write}");
    Ok(Observed::new().text("read", read).text("write", write).did(did))
}

fn unknown_connection(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let client = forgotten(scene, &listener)?;
    let before = received(&client, Duration::from_millis(50))?;
    let first = write(&client);
    let (read, second) = read_and_write(&client)?;
    let did = format!("the server forgot the connection: write {first}, read gives {read}, then write {second}");
    Ok(Observed::new()
        .text("before", before)
        .text("first-write", first)
        .text("read", read)
        .text("write", second)
        .did(did))
}

fn after_close(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = pair(scene, &listener, PORT)?;
    drop(accepted);
    let read = received(&client, AT_ONCE)?;
    let first = write(&client);
    crate::scene::eventually(AT_ONCE, || Ok(scene.client_counter("EstabResets")? > 0))?;
    let writes = format!("{first}, {}", write(&client));
    let did = format!("the server closed: read gives the {read}; writes give {writes}");
    Ok(Observed::new().text("read", read).text("writes", writes).did(did))
}
