//! close(2) that aborts: a RST instead of a FIN.

use std::time::Duration;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::Scene;
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// Claims about aborts.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "close.data-then-fin",
        group: Group::Close,
        notes: &[],
        facts: &["0.close-last"],
        says: "What was sent before close still arrives: the client reads the data, then EOF.",
        why: "tcp_close leaves the send queue to the kernel; the FIN stands behind the last byte",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first-read", is: Is::Text("hello") },
            Expect { figure: "second-read", is: Is::Text("EOF") },
        ],
        known: Verdict::Holds,
        measure: data_then_fin,
    },
    Claim {
        name: "close.unread-data-resets",
        group: Group::Close,
        notes: &[],
        facts: &["0.rst-causes"],
        says: "close with unread data sends a RST instead of a FIN; the client gets ECONNRESET.",
        why: "tcp_close finds data in the receive queue: RFC 2525, 2.17; it counts TCPAbortOnClose",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("ECONNRESET") },
            Expect { figure: "server.TCPAbortOnClose", is: Is::Exactly(1.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: unread_data_resets,
    },
    Claim {
        name: "close.linger-zero-resets",
        group: Group::Close,
        notes: &[],
        facts: &["0.rst-causes"],
        says: "close with SO_LINGER at 0 s sends a RST instead of a FIN; the client gets ECONNRESET.",
        why: "tcp_close calls tcp_disconnect for SOCK_LINGER without time; it counts TCPAbortOnData",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("ECONNRESET") },
            Expect { figure: "server.TCPAbortOnData", is: Is::Exactly(1.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: linger_zero_resets,
    },
    Claim {
        name: "close.linger-zero-waits-for-copies",
        group: Group::Close,
        notes: &[],
        facts: &[],
        says: "SO_LINGER at 0 s resets at the last close only: while a child holds a copy nothing is sent.",
        why: "SO_LINGER is looked at in inet_release, which the last fput calls",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "after-close", is: Is::Text("nothing") },
            Expect { figure: "after-the-child-ended", is: Is::Text("ECONNRESET") },
        ],
        known: Verdict::Holds,
        measure: linger_zero_waits_for_copies,
    },
];

fn data_then_fin(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    talk::send(&accepted, "hello")?;
    drop(accepted);
    let first = talk::read(&client, SOON)?;
    let second = talk::read(&client, SOON)?;
    let did = format!("the client reads {first:?}, then {second}");
    Ok(Observed::new().text("first-read", first).text("second-read", second).did(did))
}

fn unread_data_resets(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    talk::send(&client, "hello")?;
    talk::wait_for_bytes(&accepted, 5)?;
    drop(accepted);
    let reads = talk::read(&client, SOON)?;
    let did = format!("close with 5 bytes unread: the client reads {reads}");
    Ok(Observed::new().text("client-reads", reads).did(did))
}

fn linger_zero_resets(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    accepted.set_linger(Some(Duration::ZERO)).doing("set SO_LINGER")?;
    drop(accepted);
    let reads = talk::read(&client, SOON)?;
    let did = format!("close with SO_LINGER at 0: the client reads {reads}");
    Ok(Observed::new().text("client-reads", reads).did(did))
}

fn linger_zero_waits_for_copies(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    accepted.set_linger(Some(Duration::ZERO)).doing("set SO_LINGER")?;
    let child = scene.hold(&accepted)?;
    drop(accepted);
    let reads = talk::read(&client, QUIET)?;
    drop(child);
    let then = talk::read(&client, SOON)?;
    let did = format!("the client reads {reads} after the first close, {then} when the child's copy goes");
    Ok(Observed::new().text("after-close", reads).text("after-the-child-ended", then).did(did))
}
