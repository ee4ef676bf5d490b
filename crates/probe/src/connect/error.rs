//! The errors with which connect(2) fails at once or soon: a RST, an ICMP message, no route, no neighbour.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use kernel::sockopt;
use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::schedule::{Attempt, Schedule};
use super::{AT_ONCE, PORT};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, outcome, result_name, start, wait};

/// An address outside the scene's only network (RFC 5737, for documentation).
const NO_ROUTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// An address of the scene's network that nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 99);
/// Codes of ICMP destination unreachable (RFC 792, RFC 1812) and what they are called.
const CODES: [(u8, &str); 4] = [(3, "port"), (1, "host"), (0, "net"), (13, "prohibited")];
const ICMP_UNREACHABLE: u8 = 3;
/// Bytes of an IPv4 header without options, and of what an ICMP error quotes after it.
const IP_HEADER: usize = 20;
const QUOTED: usize = 8;

/// The claims about errors.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.refused-without-listener",
        group: Group::Connect,
        notes: &["1.4"],
        facts: &["0.rst-refused"],
        says: "A RST in answer to the SYN means nobody listens there; connect gives ECONNREFUSED.",
        why: "a SYN for which no listener is found is answered by a RST (net/ipv4/tcp_ipv4.c, tcp_v4_rcv: no_tcp_socket), \
              which in SYN_SENT becomes ECONNREFUSED (tcp_reset)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "client.AttemptFails", is: Is::Exactly(1.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: refused_without_listener,
    },
    Claim {
        name: "connect.refused-when-bound-only",
        group: Group::Connect,
        notes: &[],
        facts: &["0.rst-refused"],
        says: "A port that is bound but not listened on refuses like a free one.",
        why: "only sockets in LISTEN are found for a SYN (__inet_lookup_listener)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "server.OutRsts", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: refused_when_bound_only,
    },
    Claim {
        name: "connect.icmp-errors",
        group: Group::Connect,
        notes: &[],
        facts: &["0.icmp-errors"],
        says: "ECONNREFUSED need not be a RST: ICMP port unreachable gives it too; host or prohibited gives EHOSTUNREACH, \
               net ENETUNREACH.",
        why: "in SYN_SENT an ICMP error that quotes the SYN ends the attempt with the errno of its code \
              (net/ipv4/tcp_ipv4.c, tcp_v4_err; net/ipv4/icmp.c, icmp_err_convert)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect {
                figure: "errors",
                is: Is::Text("port ECONNREFUSED, host EHOSTUNREACH, net ENETUNREACH, prohibited EHOSTUNREACH"),
            },
            Expect { figure: "server.OutRsts", is: Is::Exactly(0.0) },
            Expect { figure: "client.AttemptFails", is: Is::Exactly(4.0) },
        ],
        known: Verdict::Holds,
        measure: icmp_errors,
    },
    Claim {
        name: "connect.no-route",
        group: Group::Connect,
        notes: &[],
        facts: &["0.icmp-errors"],
        says: "Without a route connect gives ENETUNREACH at once and sends no SYN.",
        why: "the route is looked up before anything else (net/ipv4/tcp_ipv4.c, tcp_v4_connect)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("ENETUNREACH") },
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: no_route,
    },
    Claim {
        name: "connect.nobody-at-the-address",
        group: Group::Connect,
        notes: &[],
        facts: &[],
        says: "An address of the own network that nobody has gives EHOSTUNREACH after 3 s, not ETIMEDOUT.",
        why: "the SYN waits for the neighbour's link address; after three unanswered ARP requests a second apart \
              (mcast_solicit) the neighbour has failed and arp_error_report signals the host unreachable",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "connect", is: Is::Text("EHOSTUNREACH") },
            Expect { figure: "end-s", is: Is::Text("3") },
        ],
        known: Verdict::Holds,
        measure: nobody_at_the_address,
    },
];

fn refused_without_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, AT_ONCE)?;
    let did = format!("connect gives {connect}; client AttemptFails +{}", scene.client_counter("AttemptFails")?);
    Ok(Observed::new().text("connect", connect).did(did))
}

fn refused_when_bound_only(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let bound = scene.socket()?;
    bound.bind(&scene.address(PORT).into()).doing("bind")?;
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, AT_ONCE)?;
    Ok(Observed::new().text("connect", connect.as_str()).did(format!("bound, not listening: connect gives {connect}")))
}

fn icmp_errors(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 1)?;
    // It answers nothing, but a raw socket gets a copy of each SYN before the filter does.
    sockopt::drop_all_filter(&listener).doing("attach a socket filter")?;
    let syns = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).doing("open a raw TCP socket")?;
    let icmp = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).doing("open a raw ICMP socket")?;
    let mut errors = Vec::new();
    for (code, name) in CODES {
        let client = scene.connect(PORT)?;
        wait(&syns, PollFlags::IN, AT_ONCE)?;
        let mut syn = [0; IP_HEADER + QUOTED];
        let mut reader = &syns;
        reader.read_exact(&mut syn).doing("read a SYN")?;
        icmp.send_to(&unreachable(code, &syn), &scene.client_address().into()).doing("send an ICMP error")?;
        errors.push(format!("{name} {}", outcome(&client, Duration::from_millis(500))?));
    }
    let errors = errors.join(", ");
    Ok(Observed::new().text("errors", errors.as_str()).did(format!("ICMP unreachable in answer to a SYN: {errors}")))
}

/// An ICMP destination unreachable message that quotes `packet` (RFC 792).
fn unreachable(code: u8, packet: &[u8; IP_HEADER + QUOTED]) -> Vec<u8> {
    let mut message = vec![ICMP_UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend(packet);
    let sum = message.chunks(2).fold(0u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    // Fewer than 2^16 pairs: after one fold it fits.
    let checksum = !u16::try_from(folded).unwrap_or(u16::MAX);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn no_route(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let client = scene.client_socket()?;
    let connect = result_name(&start(&client, SocketAddr::from((NO_ROUTE, PORT))));
    let opens = scene.client_counter("ActiveOpens")?;
    let did = format!("connect gives {connect} at once; ActiveOpens +{opens}");
    Ok(Observed::new().text("connect", connect).did(did))
}

fn nobody_at_the_address(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let client = scene.client_socket()?;
    let began = Instant::now();
    start(&client, SocketAddr::from((NOBODY, PORT))).doing("connect")?;
    let attempt = Attempt::watch(&client, began, Duration::from_secs(8))?;
    let end = attempt.end_on(&Schedule { syns: Vec::new(), fails: 3.0 });
    let connect = attempt.ended;
    let did = format!("connect gives {connect} at {end} s");
    Ok(Observed::new().text("connect", connect).text("end-s", end).did(did))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_icmp_message_sums_to_zero() {
        let mut packet = [0xfe; IP_HEADER + QUOTED];
        packet[0] = 0x45;
        let message = unreachable(3, &packet);
        let sum = message.chunks(2).fold(0u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(message.len(), 8 + IP_HEADER + QUOTED);
    }
}
