//! Closing one of several `SO_REUSEPORT` listeners: what becomes of its queue and its requests.

use std::os::fd::AsFd;
use std::time::Duration;

use kernel::sockopt::{self, TcpState};

use super::steering::{depths, member};
use super::{PORT, SOON, SYNCOOKIES, await_state, await_syn_recv, depth};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, in_state};

const MIGRATE: &str = "net.ipv4.tcp_migrate_req";
const CLIENTS: usize = 200;
const MEMBERS: usize = 4;

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.closed-member-loses-its-queue",
        group: Group::Listen,
        notes: &[],
        facts: &["5.migrate-off"],
        says: "Closing one of several listeners on a port resets everything in its queue.",
        why: "inet_csk_listen_stop aborts each child (inet_child_forget) unless tcp_migrate_req is set",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "its queue lost", is: Is::Text("all") },
            Expect { figure: "others gained", is: Is::Exactly(0.0) },
            Expect { figure: "server.TCPMigrateReqSuccess", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| close_member(scene, 0),
    },
    Claim {
        name: "listen.closed-member-hands-on-its-queue",
        group: Group::Listen,
        notes: &[],
        facts: &["5.migrate-on"],
        says: "With tcp_migrate_req=1 nothing of it is lost, and all of it goes to one other listener.",
        why: "inet_csk_listen_stop asks reuseport_migrate_sock for another listener of the group and moves the children there",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "its queue lost", is: Is::Text("none") },
            Expect { figure: "others gained", is: Is::Exactly(1.0) },
            Expect { figure: "OutRsts", is: Is::Exactly(0.0) },
            Expect { figure: "TCPMigrateReqSuccess - its queue", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| close_member(scene, 1),
    },
    Claim {
        name: "listen.closed-member-leaves-its-requests",
        group: Group::Listen,
        notes: &[],
        facts: &["5.migrate-syn-recv"],
        says: "Its requests are left without a RST: connected clients that nobody serves.",
        why: "the last ACK finds a request whose listener is closed, and none takes it over (tcp_v4_rcv)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "clients connected", is: Is::Exactly(200.0) },
            Expect { figure: "never queued", is: Is::Between(20.0, 90.0) },
            Expect { figure: "OutRsts", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| close_member_with_requests(scene, 0),
    },
    Claim {
        name: "listen.closed-member-hands-on-its-requests",
        group: Group::Listen,
        notes: &[],
        facts: &["5.migrate-syn-recv"],
        says: "With tcp_migrate_req=1 its requests are taken over and enter the queues of the others.",
        why: "reqsk_timer_handler and tcp_v4_rcv clone the request for another listener (inet_reqsk_clone)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(3),
        expects: &[
            Expect { figure: "clients connected", is: Is::Exactly(200.0) },
            Expect { figure: "never queued", is: Is::Exactly(0.0) },
            Expect { figure: "OutRsts", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| close_member_with_requests(scene, 1),
    },
];

fn close_member(scene: &mut Scene, migrate: u8) -> Result<Observed, ProbeError> {
    scene.sysctl(MIGRATE, migrate)?;
    let mut members = (0..MEMBERS).map(|_| member(scene, PORT, 1024)).collect::<Result<Vec<_>, _>>()?;
    let clients = scene.connect_many(CLIENTS, PORT)?;
    let before = depths(&members, CLIENTS)?;
    let queue = before[0];
    drop(members.remove(0));
    let expected_left = if migrate == 1 { CLIENTS } else { CLIENTS - queue as usize };
    eventually(SOON, || Ok(in_state(&clients, TcpState::Established)? == expected_left))?;
    let mut resets = 0;
    for client in &clients {
        let error = client.take_error().doing("read SO_ERROR")?;
        resets += u32::from(error.is_some_and(|error| errno_name(&error) == "ECONNRESET"));
    }
    let after = members.iter().map(depth).collect::<Result<Vec<_>, _>>()?;
    let gained = before[1..].iter().zip(&after).filter(|(before, after)| after > before).count();
    let (rsts, moved) = (scene.server_counter("OutRsts")?, scene.server_counter("TCPMigrateReqSuccess")?);
    let lost = match resets {
        0 => "none",
        all if all == queue && rsts == u64::from(queue) => "all",
        _ => "some",
    };
    let did =
        format!("migrate_req {migrate}, 1 of 4 closed: {lost} of its queue reset, {gained} other listeners gained");
    Ok(Observed::new()
        .text("its queue lost", lost)
        .number("others gained", gained as f64)
        .number("OutRsts", rsts as f64)
        .number("TCPMigrateReqSuccess - its queue", moved as f64 - f64::from(queue))
        .did(did))
}

fn close_member_with_requests(scene: &mut Scene, migrate: u8) -> Result<Observed, ProbeError> {
    scene.sysctl(MIGRATE, migrate)?;
    scene.sysctl(SYNCOOKIES, 0)?;
    let mut members = (0..MEMBERS).map(|_| member(scene, PORT, 1024)).collect::<Result<Vec<_>, _>>()?;
    for member in &members {
        sockopt::drop_pure_acks_filter(member.as_fd()).doing("attach a filter to a listener")?;
    }
    let clients = scene.connect_many(CLIENTS, PORT)?;
    await_state(&clients, TcpState::Established, CLIENTS)?;
    await_syn_recv(scene, PORT, 200)?;
    drop(members.remove(0));
    for member in &members {
        sockopt::detach_filter(member).doing("detach a filter")?;
    }
    // The SYN-ACKs of the first second bring the last ACKs of all that still have a request.
    std::thread::sleep(Duration::from_millis(1800));
    let queued: u32 = members.iter().map(depth).sum::<Result<u32, _>>()?;
    let never = CLIENTS - (queued as usize).min(CLIENTS);
    let connected = in_state(&clients, TcpState::Established)?;
    let rsts = scene.server_counter("OutRsts")?;
    let what = if never == 0 { "every request is" } else { "its requests are not" };
    let did = format!(
        "migrate_req {migrate}, 1 of 4 closed: {what} queued elsewhere; {connected} of 200 clients connected, RSTs {rsts}"
    );
    Ok(Observed::new()
        .number("clients connected", connected as f64)
        .number("never queued", never as f64)
        .number("OutRsts", rsts as f64)
        .did(did))
}
