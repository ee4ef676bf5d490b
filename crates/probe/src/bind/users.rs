//! One port, several processes and users: `SO_REUSEPORT` and inheritance.

use std::collections::BTreeMap;

use rustix::thread::set_thread_res_uid;
use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::connect::{AT_ONCE, PORT, connected};
use crate::scene::{Scene, eventually, info, outcome, result_name};

/// Connections to a port with two listeners: that one gets all of them has odds of one to 2^39.
const CONNECTIONS: u32 = 40;
/// A user that is not root (nobody).
const NOBODY: u32 = 65534;

/// The claims about processes and users.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "bind.reuseport-shares",
        group: Group::Bind,
        notes: &[],
        facts: &["0.many-processes"],
        says: "Listeners with SO_REUSEPORT on one port have queues of their own; each gets a share of the connections.",
        why: "the hash of a SYN's addresses and ports chooses one of the group (net/core/sock_reuseport.c, \
              reuseport_select_sock)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "together", is: Is::Exactly(CONNECTIONS as f64) },
            Expect { figure: "with-a-share", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: reuseport_shares,
    },
    Claim {
        name: "bind.inherited-listener",
        group: Group::Bind,
        notes: &[],
        facts: &["0.many-processes"],
        says: "A port stays taken as long as any process holds the listener: its first owner may close, clients still connect.",
        why: "descriptors refer to one socket; the port is given up when the last reference is closed (fs/file_table.c, \
              __fput)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "bind-while-held", is: Is::Text("EADDRINUSE") },
            Expect { figure: "connect-while-held", is: Is::Text("connected") },
            Expect { figure: "bind-afterwards", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: inherited_listener,
    },
    Claim {
        name: "bind.reuseport-other-user",
        group: Group::Bind,
        notes: &[],
        facts: &["0.bind-reuseport-uid"],
        says: "SO_REUSEPORT does not join listeners of two users: EADDRINUSE, so nobody can take a share of another's port.",
        why: "inet_bind_conflict (net/ipv4/inet_connection_sock.c) compares the sockets' uids",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "other-user", is: Is::Text("EADDRINUSE") },
            Expect { figure: "same-user", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: reuseport_other_user,
    },
];

fn reuseport_listener(scene: &Scene) -> Result<Socket, ProbeError> {
    let socket = scene.socket()?;
    socket.set_reuse_port(true).doing("set SO_REUSEPORT")?;
    socket.bind(&scene.address(PORT).into()).doing("bind")?;
    socket.listen(64).doing("listen")?;
    Ok(socket)
}

fn reuseport_shares(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listeners = [reuseport_listener(scene)?, reuseport_listener(scene)?];
    let _clients = (0..CONNECTIONS).map(|_| connected(scene, PORT)).collect::<Result<Vec<_>, _>>()?;
    let queued =
        || -> Result<Vec<u32>, ProbeError> { listeners.iter().map(|listener| Ok(info(listener)?.unacked)).collect() };
    eventually(AT_ONCE, || Ok(queued()?.iter().sum::<u32>() == CONNECTIONS))?;
    let queued = queued()?;
    let together: u32 = queued.iter().sum();
    let with_a_share = queued.iter().filter(|queue| **queue > 0).count();
    let did = format!("{together} connections are queued at two listeners, {with_a_share} of which have a share");
    Ok(Observed::new().number("together", together).number("with-a-share", with_a_share as f64).did(did))
}

fn inherited_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let child = scene.hold(&listener)?;
    drop(listener);
    let bind = || -> Result<String, ProbeError> {
        let socket = scene.socket()?;
        Ok(result_name(&socket.bind(&scene.address(PORT).into())))
    };
    let held = bind()?;
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, AT_ONCE)?;
    drop((child, client));
    // The child is gone and with it the queue.
    let mut after = String::new();
    eventually(AT_ONCE, || {
        after = bind()?;
        Ok(after == "ok")
    })?;
    let did =
        format!("a child process holds the closed listener: bind gives {held}, a client is {connect}; then {after}");
    Ok(Observed::new()
        .text("bind-while-held", held)
        .text("connect-while-held", connect)
        .text("bind-afterwards", after)
        .did(did))
}

fn reuseport_other_user(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _listener = reuseport_listener(scene)?;
    let address = scene.address(PORT);
    // A thread has credentials of its own for the kernel, and a socket takes them from its maker.
    let results = std::thread::scope(|scope| {
        let mut results = BTreeMap::new();
        for (who, uid) in [("same-user", None), ("other-user", Some(NOBODY))] {
            let thread = scope.spawn(move || -> std::io::Result<String> {
                if let Some(uid) = uid {
                    let uid = rustix::process::Uid::from_raw(uid);
                    set_thread_res_uid(uid, uid, uid)?;
                }
                let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.set_reuse_port(true)?;
                Ok(result_name(&socket.bind(&address.into())))
            });
            results.insert(who, thread.join());
        }
        results
    });
    let mut observed = Observed::new();
    let mut words = Vec::new();
    for (who, result) in results {
        let result = result.map_err(|_| ProbeError::Failed("a thread panicked".to_owned()))?;
        let result =
            result.map_err(|error| ProbeError::CannotHere(format!("needs two users, so real root: {error}")))?;
        words.push(format!("{who} {result}"));
        observed = observed.text(who, result);
    }
    Ok(observed.did(format!("a second listener with SO_REUSEPORT: {}", words.join(", "))))
}
