//! bind(2): when an address is in use, and what `SO_REUSEADDR` and `SO_REUSEPORT` change about it.

pub(crate) mod matrix;
pub(crate) mod users;

use std::net::{Ipv4Addr, SocketAddr};

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::connect::PORT;
use crate::scene::{Scene, result_name};

/// An address that no interface of the scene has (RFC 5737, for documentation).
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Another address of the loopback interface, which has all of 127/8.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The claims about bind itself.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "bind.in-use",
        group: Group::Bind,
        notes: &["2.1"],
        facts: &[],
        says: "bind's usual error is EADDRINUSE: a second socket on an address and port, without options.",
        why: "inet_csk_get_port (net/ipv4/inet_connection_sock.c) finds the port's bucket taken and \
              inet_csk_bind_conflict finds no exception",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "while-bound", is: Is::Text("EADDRINUSE") },
            Expect { figure: "while-listening", is: Is::Text("EADDRINUSE") },
            Expect { figure: "after-close", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: in_use,
    },
    Claim {
        name: "bind.addresses-are-apart",
        group: Group::Bind,
        notes: &[],
        facts: &[],
        says: "Two sockets may listen on one port at two addresses, without any option.",
        why: "sockets conflict only if their addresses are equal or one of them is the wildcard \
              (net/ipv4/inet_connection_sock.c, inet_rcv_saddr_equal)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "second-address", is: Is::Text("ok") }],
        known: Verdict::Holds,
        measure: addresses_are_apart,
    },
    Claim {
        name: "bind.other-errors",
        group: Group::Bind,
        notes: &[],
        facts: &[],
        says: "A foreign address gives EADDRNOTAVAIL, a second bind of one socket EINVAL.",
        why: "__inet_bind (net/ipv4/af_inet.c) wants a local address unless IP_FREEBIND is set, and a socket without a port",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "foreign", is: Is::Text("EADDRNOTAVAIL") },
            Expect { figure: "twice", is: Is::Text("EINVAL") },
        ],
        known: Verdict::Holds,
        measure: other_errors,
    },
    Claim {
        name: "bind.listen-may-fail",
        group: Group::Bind,
        notes: &[],
        facts: &["0.bind-reuseaddr"],
        says: "With SO_REUSEADDR two sockets bind one port; the first to listen wins, the other's listen gives EADDRINUSE.",
        why: "inet_csk_listen_start calls get_port once more, now that the other listens",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "second-bind", is: Is::Text("ok") },
            Expect { figure: "second-listen", is: Is::Text("ok") },
            Expect { figure: "first-listen", is: Is::Text("EADDRINUSE") },
        ],
        known: Verdict::Holds,
        measure: listen_may_fail,
    },
];

fn in_use(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let address = scene.address(PORT).into();
    let bind = || -> Result<String, ProbeError> { Ok(result_name(&scene.socket()?.bind(&address))) };
    let first = scene.socket()?;
    first.bind(&address).doing("bind")?;
    let bound = bind()?;
    first.listen(1).doing("listen")?;
    let listening = bind()?;
    drop(first);
    let after = bind()?;
    let did = format!("the second bind gives {bound}, while the first listens {listening}, after its close {after}");
    Ok(Observed::new()
        .text("while-bound", bound)
        .text("while-listening", listening)
        .text("after-close", after)
        .did(did))
}

fn addresses_are_apart(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (first, second) = (scene.socket()?, scene.socket()?);
    first.bind(&scene.address(PORT).into()).doing("bind")?;
    first.listen(1).doing("listen")?;
    let bound = second.bind(&SocketAddr::from((OTHER, PORT)).into()).and_then(|()| second.listen(1));
    let result = result_name(&bound);
    let did = format!("127.0.0.1 listens; bind and listen on 127.0.0.2 with the same port: {result}");
    Ok(Observed::new().text("second-address", result).did(did))
}

fn other_errors(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let foreign = result_name(&scene.socket()?.bind(&SocketAddr::from((FOREIGN, PORT)).into()));
    let socket = scene.socket()?;
    socket.bind(&scene.address(PORT).into()).doing("bind")?;
    let twice = result_name(&socket.bind(&scene.address(PORT + 1).into()));
    let did = format!("a foreign address gives {foreign}, a second bind of one socket {twice}");
    Ok(Observed::new().text("foreign", foreign).text("twice", twice).did(did))
}

fn listen_may_fail(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let address = scene.address(PORT).into();
    let (first, second) = (scene.socket()?, scene.socket()?);
    first.set_reuse_address(true).doing("set SO_REUSEADDR")?;
    second.set_reuse_address(true).doing("set SO_REUSEADDR")?;
    first.bind(&address).doing("bind")?;
    let bind = result_name(&second.bind(&address));
    let listen = result_name(&second.listen(1));
    let late = result_name(&first.listen(1));
    let did = format!("both bind; the second listens: {listen}; then listen on the first gives {late}");
    Ok(Observed::new().text("second-bind", bind).text("second-listen", listen).text("first-listen", late).did(did))
}
