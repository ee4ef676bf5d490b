//! Who pays for `TIME_WAIT`: when a client's port can be used again.

use std::time::{Duration, Instant};

use kernel::sock_diag::SockDiag;
use socket2::Socket;

use super::ports::RANGE;
use super::reset::abort;
use super::schedule::{Schedule, Seen};
use super::{AT_ONCE, PORT, pair, received};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, start};

const REUSE: &str = "net.ipv4.tcp_tw_reuse";
const DELAY: &str = "net.ipv4.tcp_tw_reuse_delay";

/// How long a port is watched that is not expected back.
const LONG: Duration = Duration::from_millis(2500);
/// How often it is tried.
const STEP: Duration = Duration::from_millis(5);

/// The claims about `TIME_WAIT`.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.time-wait-on-loopback",
        group: Group::Connect,
        notes: &[],
        facts: &["7.tw-loopback"],
        says: "A client that closes first has its port back after 1 s over loopback, by default.",
        why: "tcp_tw_reuse=2 lets connect take a port in TIME_WAIT over loopback once tcp_tw_reuse_delay has passed \
              (net/ipv4/tcp_ipv4.c, tcp_twsk_unique); TWRecycled counts it",
        ends: Ends::Loopback,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "first-error", is: Is::Text("EADDRNOTAVAIL") },
            Expect { figure: "free-after-s", is: Is::Text("1") },
            Expect { figure: "client.TWRecycled", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: on_loopback,
    },
    Claim {
        name: "connect.time-wait-reuse-delay",
        group: Group::Connect,
        notes: &[],
        facts: &["7.tw-delay"],
        says: "tcp_tw_reuse_delay=200 makes it 0.2 s.",
        why: "tcp_twsk_unique compares the time since TIME_WAIT began with the sysctl; Linux 6.14 and later",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "free-after-s", is: Is::Text("0.2") },
            Expect { figure: "client.TWRecycled", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: reuse_delay,
    },
    Claim {
        name: "connect.time-wait-on-a-link",
        group: Group::Connect,
        notes: &[],
        facts: &["7.tw-veth"],
        says: "Over a real link the default does not give the port back within 2.5 s.",
        why: "tcp_tw_reuse=2 is for loopback addresses and devices only (tcp_twsk_unique); TIME_WAIT itself lasts 60 s",
        ends: Ends::Veth,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "first-error", is: Is::Text("EADDRNOTAVAIL") },
            Expect { figure: "free", is: Is::Text("no") },
            Expect { figure: "client.TWRecycled", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: on_a_link,
    },
    Claim {
        name: "connect.time-wait-reuse-1",
        group: Group::Connect,
        notes: &[],
        facts: &["7.tw-veth"],
        says: "tcp_tw_reuse=1 gives it back after 1 s over a real link, too.",
        why: "1 means everywhere; timestamps make it safe (net/ipv4/tcp_ipv4.c, tcp_twsk_unique)",
        ends: Ends::Veth,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "free-after-s", is: Is::Text("1") },
            Expect { figure: "client.TWRecycled", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: reuse_everywhere,
    },
    Claim {
        name: "connect.time-wait-reuse-0",
        group: Group::Connect,
        notes: &[],
        facts: &["7.tw-never"],
        says: "With tcp_tw_reuse=0 the port is not back within 2.5 s even over loopback.",
        why: "tcp_twsk_unique then never agrees; the port is free when TIME_WAIT ends after 60 s",
        ends: Ends::Loopback,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "first-error", is: Is::Text("EADDRNOTAVAIL") },
            Expect { figure: "free", is: Is::Text("no") },
            Expect { figure: "client.TWRecycled", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: reuse_never,
    },
    Claim {
        name: "connect.time-wait-of-the-server",
        group: Group::Connect,
        notes: &[],
        facts: &["7.server-first"],
        says: "A server that closes first keeps TIME_WAIT to itself: 60 connections in a row through ten ports.",
        why: "TIME_WAIT stays with the end that closed first (RFC 9293); there a SYN with a later timestamp or number \
              reopens the connection (net/ipv4/tcp_minisocks.c, tcp_timewait_state_process)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connections", is: Is::Exactly(ROUNDS as f64) },
            Expect { figure: "client-time-waits", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: server_closes_first,
    },
    Claim {
        name: "connect.time-wait-avoided-by-rst",
        group: Group::Connect,
        notes: &[],
        facts: &["7.server-first"],
        says: "A client that closes with a RST leaves no TIME_WAIT: 60 connections in a row through ten ports.",
        why: "a RST forgets the connection at both ends at once (tcp_disconnect, tcp_reset)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connections", is: Is::Exactly(ROUNDS as f64) },
            Expect { figure: "client-time-waits", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: client_resets,
    },
];

/// Connections in a row.
const ROUNDS: u32 = 60;

/// Sockets in `TIME_WAIT` at the client's end (over loopback at both).
fn client_time_waits(scene: &Scene) -> Result<u64, ProbeError> {
    scene.on_client(time_waits)?
}

/// Sockets in `TIME_WAIT` in the calling thread's namespace.
pub(crate) fn time_waits() -> Result<u64, ProbeError> {
    let mut diag = SockDiag::open().doing("open a sock_diag socket")?;
    let states = diag.states().map_err(|error| ProbeError::Failed(error.to_string()))?;
    Ok(states.get("time_wait").copied().unwrap_or(0))
}

/// Leaves the client's only port in `TIME_WAIT` and tries to use it again for [`LONG`]; it is due after `due` seconds.
fn used_again(scene: &Scene, setting: &str, due: f64) -> Result<Observed, ProbeError> {
    scene.sysctl(RANGE, "40000 40000")?;
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = pair(scene, &listener, PORT)?;
    drop(client);
    received(&accepted, AT_ONCE)?;
    // It begins between these two.
    let earliest = Instant::now();
    drop(accepted);
    if !eventually(AT_ONCE, || Ok(client_time_waits(scene)? == 1))? {
        return Err(ProbeError::Failed("the client's end is not in TIME_WAIT".to_owned()));
    }
    let latest = Instant::now();
    let (mut first_error, mut after) = (None, 0.0);
    let mut tried = 0.0;
    // The last try begins after that time, however seldom this process runs.
    while tried < LONG.as_secs_f64() {
        tried = latest.elapsed().as_secs_f64();
        match try_port(scene)? {
            None => {
                let seen = Seen { after, by: earliest.elapsed().as_secs_f64() };
                let free = Schedule::rounded(seen, Some(&due));
                let did = format!("{setting}: the only port in TIME_WAIT is used again after {free} s");
                let first_error = first_error.unwrap_or_else(|| "none".to_owned());
                return Ok(Observed::new()
                    .text("free", "yes")
                    .text("free-after-s", free)
                    .text("first-error", first_error)
                    .did(did));
            }
            Some(error) => (first_error, after) = (first_error.or(Some(error)), tried),
        }
        std::thread::sleep(STEP);
    }
    let error = first_error.unwrap_or_default();
    let did = format!("{setting}: the only port is in TIME_WAIT: {error} for 2.5 s");
    Ok(Observed::new().text("free", "no").text("first-error", error).did(did))
}

/// Does a client find a port? If not, the errno's name.
fn try_port(scene: &Scene) -> Result<Option<String>, ProbeError> {
    let client: Socket = scene.client_socket()?;
    Ok(start(&client, scene.address(PORT)).err().map(|error| errno_name(&error)))
}

fn on_loopback(scene: &mut Scene) -> Result<Observed, ProbeError> {
    used_again(scene, "loopback, tw_reuse=2", 1.0)
}

fn reuse_delay(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(DELAY, 200)?;
    used_again(scene, "loopback, tw_reuse_delay=200", 0.2)
}

fn on_a_link(scene: &mut Scene) -> Result<Observed, ProbeError> {
    used_again(scene, "veth, tw_reuse=2", 1.0)
}

fn reuse_everywhere(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(REUSE, 1)?;
    used_again(scene, "veth, tw_reuse=1", 1.0)
}

fn reuse_never(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(REUSE, 0)?;
    used_again(scene, "loopback, tw_reuse=0", 1.0)
}

/// Connects [`ROUNDS`] times through ten ports, each connection ended by `end`.
fn in_a_row(
    scene: &Scene,
    how: &str,
    end: impl Fn(Socket, Socket) -> Result<(), ProbeError>,
) -> Result<Observed, ProbeError> {
    scene.sysctl(RANGE, "40000 40009")?;
    let listener = scene.listen(PORT, 8)?;
    let mut connections = 0u32;
    for _ in 0..ROUNDS {
        let Ok((client, accepted)) = pair(scene, &listener, PORT) else { break };
        end(client, accepted)?;
        connections += 1;
    }
    let waits = client_time_waits(scene)?;
    let did =
        format!("{how}: {connections} of {ROUNDS} connect through ten ports; client sockets in TIME_WAIT: {waits}");
    Ok(Observed::new().number("connections", connections).number("client-time-waits", waits as f64).did(did))
}

fn server_closes_first(scene: &mut Scene) -> Result<Observed, ProbeError> {
    in_a_row(scene, "server closes first", |client, accepted| {
        drop(accepted);
        received(&client, AT_ONCE).map(drop)
    })
}

fn client_resets(scene: &mut Scene) -> Result<Observed, ProbeError> {
    in_a_row(scene, "client closes with a RST", |client, accepted| {
        abort(client)?;
        received(&accepted, AT_ONCE).map(drop)
    })
}
