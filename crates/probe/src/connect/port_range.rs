//! How many connections a range of local ports allows, and what bind(2) before connect(2) does to it.

use std::net::SocketAddr;

use kernel::sockopt;
use socket2::Socket;

use super::PORT;
use super::ports::{RANGE, limit_ports, local_port};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, start};

/// A range of ten ports.
const TEN: &str = "40000 40009";
/// More clients than that.
const CLIENTS: usize = 15;

/// The claims about ranges.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.port-range",
        group: Group::Connect,
        notes: &[],
        facts: &["7.port-range"],
        says: "A range of ten ports allows ten connections for each destination; the next connect gives EADDRNOTAVAIL.",
        why: "a local port may be shared by connections whose four numbers differ (net/ipv4/inet_hashtables.c, \
              __inet_check_established); without a free one no SYN is sent, and ActiveOpens does not count",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("10, then EADDRNOTAVAIL") },
            Expect { figure: "second", is: Is::Text("10, then EADDRNOTAVAIL") },
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(20.0) },
        ],
        known: Verdict::Holds,
        measure: port_range,
    },
    Claim {
        name: "connect.bound-source-shares-no-port",
        group: Group::Connect,
        notes: &[],
        facts: &["7.bind-zero"],
        says: "bind to a source address with port 0 before connect takes a port for all destinations: EADDRINUSE at bind.",
        why: "bind(2) must choose the port before the destination is known, so none may be in use already \
              (net/ipv4/inet_connection_sock.c, inet_csk_get_port)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("10, then EADDRINUSE at bind") },
            Expect { figure: "second", is: Is::Text("0, then EADDRINUSE at bind") },
        ],
        known: Verdict::Holds,
        measure: bound_source,
    },
    Claim {
        name: "connect.bind-address-no-port",
        group: Group::Connect,
        notes: &[],
        facts: &["7.bind-no-port"],
        says: "IP_BIND_ADDRESS_NO_PORT leaves the choice to connect: ten connections for each destination again.",
        why: "bind(2) then sets the address only (net/ipv4/af_inet.c, __inet_bind: bind_address_no_port)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("10, then EADDRNOTAVAIL") },
            Expect { figure: "second", is: Is::Text("10, then EADDRNOTAVAIL") },
        ],
        known: Verdict::Holds,
        measure: bind_address_no_port,
    },
    Claim {
        name: "connect.ip-local-port-range",
        group: Group::Connect,
        notes: &[],
        facts: &["7.local-range"],
        says: "IP_LOCAL_PORT_RANGE gives one socket a range of its own: five ports, five connections.",
        why: "inet_sk_get_local_port_range (net/ipv4/inet_connection_sock.c) narrows the sysctl's range to the socket's",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("5, then EADDRNOTAVAIL") },
            Expect { figure: "outside-40000-40004", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: local_port_range,
    },
    Claim {
        name: "connect.ip-local-port-range-outside",
        group: Group::Connect,
        notes: &[],
        facts: &["7.local-range-outside"],
        says: "IP_LOCAL_PORT_RANGE outside the sysctl's range is ignored without an error.",
        why: "each bound of the socket acts only if it lies within the sysctl's range (inet_sk_get_local_port_range)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "first", is: Is::Text("10, then EADDRNOTAVAIL") },
            Expect { figure: "outside-40000-40009", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: local_port_range_outside,
    },
];

/// Clients that found a port, and how the first without one failed.
struct Found {
    clients: Vec<Socket>,
    then: String,
}

impl Found {
    /// Connects clients to a port until one fails, at most [`CLIENTS`].
    fn all(
        scene: &Scene,
        port: u16,
        prepare: impl Fn(&Socket) -> Result<Option<std::io::Error>, ProbeError>,
    ) -> Result<Self, ProbeError> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = scene.client_socket()?;
            if let Some(error) = prepare(&client)? {
                return Ok(Self { clients, then: format!("{} at bind", errno_name(&error)) });
            }
            if let Err(error) = start(&client, scene.address(port)) {
                return Ok(Self { clients, then: errno_name(&error) });
            }
            clients.push(client);
        }
        Ok(Self { clients, then: "no error".to_owned() })
    }

    fn figure(&self) -> String {
        format!("{}, then {}", self.clients.len(), self.then)
    }

    /// How many of their ports are not in this range.
    fn outside(&self, low: u16, high: u16) -> Result<u32, ProbeError> {
        let mut outside = 0;
        for client in &self.clients {
            outside += u32::from(!(low..=high).contains(&local_port(client)?));
        }
        Ok(outside)
    }
}

/// Ten ports, two destinations.
fn two_destinations(
    scene: &Scene,
    how: &str,
    prepare: impl Fn(&Socket) -> Result<Option<std::io::Error>, ProbeError>,
) -> Result<Observed, ProbeError> {
    scene.sysctl(RANGE, TEN)?;
    let _listeners = [scene.listen(PORT, 64)?, scene.listen(PORT + 1, 64)?];
    let first = Found::all(scene, PORT, &prepare)?;
    let second = Found::all(scene, PORT + 1, &prepare)?;
    let did = format!(
        "{how}: {} connect, then {}; to another port {}, then {}",
        first.clients.len(),
        first.then,
        second.clients.len(),
        second.then
    );
    Ok(Observed::new().text("first", first.figure()).text("second", second.figure()).did(did))
}

fn port_range(scene: &mut Scene) -> Result<Observed, ProbeError> {
    two_destinations(scene, "ten ports", |_| Ok(None))
}

fn bound_source(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let source: SocketAddr = scene.client_address();
    two_destinations(scene, "ten ports, bind to port 0", |client| Ok(client.bind(&source.into()).err()))
}

fn bind_address_no_port(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let source: SocketAddr = scene.client_address();
    two_destinations(scene, "ten ports, IP_BIND_ADDRESS_NO_PORT", |client| {
        sockopt::set_bind_address_no_port(client, true).doing("set IP_BIND_ADDRESS_NO_PORT")?;
        Ok(client.bind(&source.into()).err())
    })
}

fn local_port_range(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _listener = scene.listen(PORT, 64)?;
    let found = Found::all(scene, PORT, |client| limit_ports(client, 40000, 40004).map(|()| None))?;
    let did = format!("IP_LOCAL_PORT_RANGE of five ports: {} connect, then {}", found.clients.len(), found.then);
    Ok(Observed::new()
        .text("first", found.figure())
        .number("outside-40000-40004", found.outside(40000, 40004)?)
        .did(did))
}

fn local_port_range_outside(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(RANGE, TEN)?;
    let _listener = scene.listen(PORT, 64)?;
    let found = Found::all(scene, PORT, |client| limit_ports(client, 20000, 20004).map(|()| None))?;
    let outside = found.outside(40000, 40009)?;
    let did = format!(
        "IP_LOCAL_PORT_RANGE below the sysctl's ten ports: {} connect, {outside} outside the sysctl's range",
        found.clients.len()
    );
    Ok(Observed::new().text("first", found.figure()).number("outside-40000-40009", outside).did(did))
}
