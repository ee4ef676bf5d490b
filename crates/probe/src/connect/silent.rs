//! A listener that does not answer: its accept queue is full.

use std::time::{Duration, Instant};

use super::{AT_ONCE, FREED, FullListener, PORT, in_syn_sent};
use crate::claim::{Claim, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome};

/// The SYN sent again at 1 s finds room.
const SECOND_SYN: Duration = Duration::from_secs(3);

/// The claims about silence.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.silent-listener",
        group: Group::Connect,
        notes: &["1.3"],
        facts: &["0.silent-peer"],
        says: "A peer that listens but never answers the SYN is probably out of resources.",
        why: "a SYN that finds the accept queue full is dropped without an answer (net/ipv4/tcp_input.c, tcp_conn_request: \
              sk_acceptq_is_full); ListenOverflows and ListenDrops count it",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client", is: Is::Text("SYN_SENT") },
            Expect { figure: "overflows-per-syn", is: Is::Exactly(1.0) },
            Expect { figure: "drops-per-syn", is: Is::Exactly(1.0) },
            Expect { figure: "rsts", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: silent_listener,
    },
    Claim {
        name: "connect.silent-with-abort-on-overflow",
        group: Group::Connect,
        notes: &[],
        facts: &["2a.abort-not-on-syn"],
        says: "tcp_abort_on_overflow does not make that listener speak: it acts on the last ACK, not on SYNs.",
        why: "tcp_conn_request drops the SYN before there is a request that tcp_check_req could abort",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client", is: Is::Text("SYN_SENT") },
            Expect { figure: "overflows-per-syn", is: Is::Exactly(1.0) },
            Expect { figure: "rsts", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: silent_with_abort,
    },
    Claim {
        name: "connect.room-found-at-the-next-syn",
        group: Group::Connect,
        notes: &[],
        facts: &["2a.slot-freed", "2a.slot-freed-info"],
        says: "When the silent listener has room again, connect succeeds with the next SYN: 1 s late, and only the client can \
               tell.",
        why: "nothing wakes the client but its retransmission timer; its TCP_INFO shows one retransmission and a round \
              trip of whole ms (from the timestamp: Karn allows no other), the server saw a first SYN",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "connect", is: Is::Text("connected") },
            Expect { figure: "connected-s", is: Is::Between(0.98, 3.0) },
            Expect { figure: "client-total-retrans", is: Is::Exactly(1.0) },
            Expect { figure: "client-total-rto", is: Is::Exactly(1.0) },
            Expect { figure: "client-rtt-us", is: Is::Between(1000.0, 50_000.0) },
            Expect { figure: "server-total-retrans", is: Is::Exactly(0.0) },
            Expect { figure: "server.ListenOverflows", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: room_found,
    },
];

fn silent_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    silence(scene, "full accept queue")
}

fn silent_with_abort(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl("net.ipv4.tcp_abort_on_overflow", 1)?;
    silence(scene, "full accept queue, abort_on_overflow=1")
}

/// What a client of a full listener sees before its first SYN is sent again.
fn silence(scene: &Scene, what: &str) -> Result<Observed, ProbeError> {
    let _full = FullListener::new(scene, PORT)?;
    let client = scene.connect(PORT)?;
    eventually(AT_ONCE, || Ok(scene.server_counter("ListenOverflows")? > 0))?;
    let sees = outcome(&client, Duration::from_millis(200))?;
    // One, unless this machine was too busy for us to get here within a second.
    let syns = f64::from(info(&client)?.total_retrans + 1);
    let overflows = scene.server_counter("ListenOverflows")? as f64 / syns;
    let drops = scene.server_counter("ListenDrops")? as f64 / syns;
    // Read here: the queued connection draws a RST when the listener is closed.
    let rsts = scene.server_counter("OutRsts")?;
    let did = format!("{what}: {rsts} RSTs, the client stays in {sees}; ListenOverflows +{overflows} for a SYN");
    Ok(Observed::new()
        .text("client", sees)
        .number("rsts", rsts as f64)
        .number("overflows-per-syn", overflows)
        .number("drops-per-syn", drops)
        .did(did))
}

fn room_found(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let full = FullListener::new(scene, PORT)?;
    let began = Instant::now();
    let client = scene.connect(PORT)?;
    std::thread::sleep(FREED);
    if !in_syn_sent(&client)? {
        return Err(ProbeError::Failed("the full listener has answered".to_owned()));
    }
    let _first = full.free()?;
    let connect = outcome(&client, SECOND_SYN)?;
    let connected = began.elapsed().as_secs_f64();
    let ends = (info(&client)?, info(&full.free()?)?);
    let did = format!(
        "slot freed at 0.3 s: {connect} by the next SYN; total_retrans {} at the client, {} at the server",
        ends.0.total_retrans, ends.1.total_retrans
    );
    Ok(Observed::new()
        .text("connect", connect)
        .number("connected-s", connected)
        .number("client-total-retrans", ends.0.total_retrans)
        .number("client-total-rto", ends.0.total_rto)
        .number("client-rtt-us", ends.0.rtt_us)
        .number("server-total-retrans", ends.1.total_retrans)
        .did(did))
}
