//! Which pairs of options let a second socket listen where a first one is, in each state of the first.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::connect::time_wait::time_waits;
use crate::connect::{AT_ONCE, PORT, connected, received};
use crate::scene::{Scene, eventually};

/// The claims about pairs.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "bind.two-listeners",
        group: Group::Bind,
        notes: &["2.1"],
        facts: &["0.bind-reuseport"],
        says: "While the first socket listens, a second one needs SO_REUSEPORT on both; SO_REUSEADDR does not help.",
        why: "inet_bind_conflict (net/ipv4/inet_connection_sock.c): SO_REUSEADDR excuses only sockets that do not listen, \
              SO_REUSEPORT those of the same user",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(BOTH_REUSEPORT) }],
        known: Verdict::Holds,
        measure: two_listeners,
    },
    Claim {
        name: "bind.bound-only",
        group: Group::Bind,
        notes: &["2.1"],
        facts: &["0.bind-reuseaddr"],
        says: "While the first socket is bound and does not listen, SO_REUSEADDR on both, or SO_REUSEPORT on both, is enough.",
        why: "inet_bind_conflict (net/ipv4/inet_connection_sock.c) passes over a socket with SO_REUSEADDR that is not in \
              LISTEN",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(BOTH_EITHER) }],
        known: Verdict::Holds,
        measure: bound_only,
    },
    Claim {
        name: "bind.wildcard-listener",
        group: Group::Bind,
        notes: &[],
        facts: &["0.bind-wildcard"],
        says: "A listener on the wildcard address takes the port on every address: only SO_REUSEPORT on both helps.",
        why: "the wildcard equals every address (inet_rcv_saddr_equal); on BSD SO_REUSEADDR would allow this",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(BOTH_REUSEPORT) }],
        known: Verdict::Holds,
        measure: wildcard_listener,
    },
    Claim {
        name: "bind.wildcard-second",
        group: Group::Bind,
        notes: &[],
        facts: &["0.bind-wildcard"],
        says: "The other way round it is the same: a listener on one address keeps the wildcard out.",
        why: "inet_rcv_saddr_equal is symmetric for bind conflicts (match_wildcard)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(BOTH_REUSEPORT) }],
        known: Verdict::Holds,
        measure: wildcard_second,
    },
    Claim {
        name: "bind.time-wait",
        group: Group::Bind,
        notes: &[],
        facts: &["0.bind-time-wait"],
        says: "Listening again while the server's end is in TIME_WAIT needs SO_REUSEADDR on the new and on the old listener.",
        why: "the TIME_WAIT socket keeps the options of its listener (net/ipv4/inet_timewait_sock.c, inet_twsk_alloc) and \
              inet_bind_conflict asks both; SO_REUSEPORT on both serves as well",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(BOTH_EITHER) }],
        known: Verdict::Holds,
        measure: in_time_wait,
    },
    Claim {
        name: "bind.live-connection",
        group: Group::Bind,
        notes: &[],
        facts: &[],
        says: "Listening again while a connection of the old listener lives follows the same rule as in TIME_WAIT.",
        why: "an accepted socket is bound to the listener's port with the listener's options \
              (net/ipv4/inet_hashtables.c, __inet_inherit_port)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(BOTH_EITHER) }],
        known: Verdict::Holds,
        measure: live_connection,
    },
    Claim {
        name: "bind.client-closed-first",
        group: Group::Bind,
        notes: &[],
        facts: &[],
        says: "When the clients closed first the server can listen again at once, without any option.",
        why: "TIME_WAIT is at the client's end then, and on another port",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[Expect { figure: "allowed", is: Is::Text(ALL) }],
        known: Verdict::Holds,
        measure: client_closed_first,
    },
];

/// Names of the options a socket may have: none, `SO_REUSEADDR`, `SO_REUSEPORT`, both.
const OPTIONS: [(&str, bool, bool); 4] =
    [("none", false, false), ("addr", true, false), ("port", false, true), ("both", true, true)];

/// Pairs (first/second) in which both have `SO_REUSEPORT`.
const BOTH_REUSEPORT: &str = "port/port port/both both/port both/both";
/// Pairs in which both have `SO_REUSEADDR`, or both `SO_REUSEPORT`.
const BOTH_EITHER: &str = "addr/addr addr/both port/port port/both both/addr both/port both/both";
/// All pairs.
const ALL: &str = "none/none none/addr none/port none/both addr/none addr/addr addr/port addr/both \
                   port/none port/addr port/port port/both both/none both/addr both/port both/both";

/// What the first socket has come to when the second one binds.
#[derive(Clone, Copy)]
enum First {
    Bound,
    Listening,
    /// Its listener is closed; an accepted connection lives.
    Connected,
    /// Its listener is closed; an accepted connection was closed by the server first.
    TimeWait,
    /// Its listener is closed; an accepted connection was closed by the client first.
    ClientClosed,
}

/// Tries all pairs of options, each on a port of its own.
fn matrix(scene: &Scene, first: First, addresses: [Ipv4Addr; 2], what: &str) -> Result<Observed, ProbeError> {
    let mut allowed = Vec::new();
    let mut port = PORT;
    for old in OPTIONS {
        for new in OPTIONS {
            let held = first.come_to(scene, SocketAddr::from((addresses[0], port)), old)?;
            let second = with_options(scene, new)?;
            let result = second.bind(&SocketAddr::from((addresses[1], port)).into()).and_then(|()| second.listen(1));
            match result {
                Ok(()) => allowed.push(format!("{}/{}", old.0, new.0)),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                other => other.doing("bind the second socket")?,
            }
            drop(held);
            port += 1;
        }
    }
    let pairs = allowed.len();
    let allowed = allowed.join(" ");
    // All sixteen would not fit a line.
    let which = if pairs == OPTIONS.len() * OPTIONS.len() { "all" } else { &allowed };
    let did = format!("{what}: allowed (first/second) {which}");
    Ok(Observed::new().number("pairs", pairs as f64).text("allowed", allowed).did(did))
}

fn with_options(scene: &Scene, (_, address, port): (&str, bool, bool)) -> Result<Socket, ProbeError> {
    let socket = scene.socket()?;
    socket.set_reuse_address(address).doing("set SO_REUSEADDR")?;
    socket.set_reuse_port(port).doing("set SO_REUSEPORT")?;
    Ok(socket)
}

impl First {
    /// Brings a first socket there; the result keeps it so.
    fn come_to(
        self,
        scene: &Scene,
        address: SocketAddr,
        options: (&str, bool, bool),
    ) -> Result<Vec<Socket>, ProbeError> {
        let listener = with_options(scene, options)?;
        listener.bind(&address.into()).doing("bind the first socket")?;
        if matches!(self, Self::Bound) {
            return Ok(vec![listener]);
        }
        listener.listen(1).doing("listen on the first socket")?;
        if matches!(self, Self::Listening) {
            return Ok(vec![listener]);
        }
        let client = connected(scene, address.port())?;
        let (accepted, _) = listener.accept().doing("accept")?;
        drop(listener);
        match self {
            Self::TimeWait => {
                let before = time_waits()?;
                drop(accepted);
                received(&client, AT_ONCE)?;
                drop(client);
                eventually(AT_ONCE, || Ok(time_waits()? > before))?;
                Ok(Vec::new())
            }
            Self::ClientClosed => {
                drop(client);
                received(&accepted, AT_ONCE)?;
                drop(accepted);
                // Gone with the client's last ACK.
                eventually(AT_ONCE, || Ok(closing()? == 0))?;
                Ok(Vec::new())
            }
            _ => Ok(vec![client, accepted]),
        }
    }
}

/// Sockets of the server's end that wait for a last ACK; nothing else closes while a pair is tried.
fn closing() -> Result<u64, ProbeError> {
    let mut diag = kernel::sock_diag::SockDiag::open().doing("open a sock_diag socket")?;
    let states = diag.states().map_err(|error| ProbeError::Failed(error.to_string()))?;
    Ok(states.get("last_ack").copied().unwrap_or(0))
}

/// The server's address twice.
fn same(scene: &Scene) -> [Ipv4Addr; 2] {
    match scene.address(PORT) {
        SocketAddr::V4(address) => [*address.ip(); 2],
        SocketAddr::V6(_) => [Ipv4Addr::LOCALHOST; 2],
    }
}

fn two_listeners(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::Listening, same(scene), "first listens")
}

fn bound_only(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::Bound, same(scene), "first bound only")
}

fn wildcard_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::Listening, [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST], "wildcard listens, second specific")
}

fn wildcard_second(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::Listening, [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED], "specific listens, second wildcard")
}

fn in_time_wait(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::TimeWait, same(scene), "server in TIME_WAIT")
}

fn live_connection(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::Connected, same(scene), "connection lives")
}

fn client_closed_first(scene: &mut Scene) -> Result<Observed, ProbeError> {
    matrix(scene, First::ClientClosed, same(scene), "client closed first")
}
