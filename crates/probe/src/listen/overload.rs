//! A burst over plain loopback with a slow server: what the defaults make of it.
//!
//! 120 clients connect at 200/s, the server takes 50/s, backlog 8. Nothing is held back and nothing filtered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernel::sockopt::TcpState;
use rustix::event::PollFlags;
use rustix::net::SendFlags;
use socket2::Socket;

use super::{PORT, SYNCOOKIES};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, in_state, wait};

const CLIENTS: usize = 120;
const BETWEEN_CLIENTS: Duration = Duration::from_millis(5);
const SERVICE: Duration = Duration::from_millis(20);
/// Writing to a reset connection is not to end this process: `MSG_NOSIGNAL`.
const NO_SIGNAL: i32 = SendFlags::NOSIGNAL.bits().cast_signed();
/// Nobody connects or is served any more long before.
const SETTLED: Duration = Duration::from_secs(14);

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.burst-with-cookies",
        group: Group::Listen,
        notes: &[],
        facts: &["2c.burst-cookies", "2c.lockstep", "2c.phantoms-on-loopback", "2c.opens-identity"],
        says: "By default a burst over loopback leaves clients that are connected and never served: ActiveOpens - PassiveOpens.",
        why: "dropped SYNs come back together, overrun the SYN queue and get cookies, whose last ACKs meet the full accept \
              queue (tcp_conn_request, cookie_v4_check)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "connected", is: Is::Exactly(120.0) },
            Expect { figure: "never served", is: Is::Between(10.0, 80.0) },
            Expect { figure: "ActiveOpens - PassiveOpens - never served", is: Is::Exactly(0.0) },
            Expect { figure: "cookies received", is: Is::Between(10.0, 200.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| burst(scene, 1, First::Server),
    },
    Claim {
        name: "listen.burst-without-cookies",
        group: Group::Listen,
        notes: &[],
        facts: &["2c.burst-no-cookies"],
        says: "With tcp_syncookies=0 everybody in that burst is served, some seconds later.",
        why: "a SYN that is dropped is sent again, and a request whose last ACK was dropped resends its SYN-ACK",
        ends: Ends::Loopback,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "connected", is: Is::Exactly(120.0) },
            Expect { figure: "never served", is: Is::Exactly(0.0) },
            Expect { figure: "ActiveOpens - PassiveOpens - never served", is: Is::Exactly(0.0) },
            Expect { figure: "cookies received", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| burst(scene, 0, First::Server),
    },
    Claim {
        name: "listen.burst-with-talking-clients",
        group: Group::Listen,
        notes: &[],
        facts: &["2c.burst-client-first"],
        says: "With cookies and clients that speak first everybody in that burst is served.",
        why: "the data of a cookie phantom carries its cookie and is resent until there is room",
        ends: Ends::Loopback,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "connected", is: Is::Exactly(120.0) },
            Expect { figure: "never served", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| burst(scene, 1, First::Client),
    },
];

/// Who speaks first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Server,
    Client,
}

fn burst(scene: &mut Scene, cookies: u8, first: First) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, cookies)?;
    let listener = scene.listen(PORT, 8)?;
    let stop = AtomicBool::new(false);
    let ((clients, reached), accepted) = std::thread::scope(|scope| {
        let taker = scope.spawn(|| serve(&listener, &stop));
        let clients = attack(scene, first);
        stop.store(true, Ordering::Relaxed);
        let accepted = taker.join().map_err(|_| ProbeError::Failed("the server's thread panicked".to_owned()))?;
        // The served ones stay open until the clients were counted.
        Ok::<_, ProbeError>((clients?, accepted?))
    })?;
    let connected = in_state(&clients, TcpState::Established)?;
    let never = connected - reached.min(connected);
    let (opened, entered) = (scene.client_counter("ActiveOpens")?, scene.server_counter("PassiveOpens")?);
    let received = scene.server_counter("SyncookiesRecv")?;
    let unexplained = opened as f64 - entered as f64 - never as f64;
    drop(accepted);
    let what = if never == 0 { "none" } else { "some, exactly ActiveOpens - PassiveOpens" };
    let did = format!("{connected} of {CLIENTS} connected, never served: {what}");
    Ok(Observed::new()
        .number("connected", connected as f64)
        .number("never served", never as f64)
        .number("ActiveOpens - PassiveOpens - never served", unexplained)
        .number("cookies received", received as f64)
        .did(did))
}

/// Takes a connection every 20 ms and says a byte to it, until it is told to stop.
fn serve(listener: &Socket, stop: &AtomicBool) -> Result<Vec<Socket>, ProbeError> {
    let mut served = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if wait(listener, PollFlags::IN, SERVICE)?.is_empty() {
            continue;
        }
        let (socket, _) = listener.accept().doing("accept")?;
        // A client that is gone was not to be served.
        let _ = socket.send_with_flags(b"+", NO_SIGNAL);
        served.push(socket);
        std::thread::sleep(SERVICE);
    }
    Ok(served)
}

/// The clients, and how many of them were served when nothing has changed for two seconds.
fn attack(scene: &Scene, first: First) -> Result<(Vec<Socket>, usize), ProbeError> {
    let mut clients = Vec::with_capacity(CLIENTS);
    let mut talked = vec![first == First::Server; CLIENTS];
    let began = Instant::now();
    let mut changed = (Instant::now(), 0);
    for number in 0..CLIENTS {
        let due = BETWEEN_CLIENTS * u32::try_from(number).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        clients.push(scene.connect(PORT)?);
        talk(&clients, &mut talked)?;
    }
    eventually(SETTLED, || {
        talk(&clients, &mut talked)?;
        let mut served = 0;
        for client in &clients {
            served += usize::from(wait(client, PollFlags::IN, Duration::ZERO)?.contains(PollFlags::IN));
        }
        let waiting = in_state(&clients, TcpState::SynSent)?;
        if served != changed.1 || waiting > 0 {
            changed = (Instant::now(), served);
        }
        std::thread::sleep(Duration::from_millis(20));
        Ok(served == CLIENTS || changed.0.elapsed() >= Duration::from_millis(2500))
    })?;
    Ok((clients, changed.1))
}

/// Has clients that have just connected say a byte.
fn talk(clients: &[Socket], talked: &mut [bool]) -> Result<(), ProbeError> {
    for (client, talked) in clients.iter().zip(talked).filter(|(_, talked)| !**talked) {
        if !wait(client, PollFlags::OUT, Duration::ZERO)?.is_empty() {
            *talked = true;
            client.send_with_flags(b"x", NO_SIGNAL).doing("send")?;
        }
    }
    Ok(())
}
