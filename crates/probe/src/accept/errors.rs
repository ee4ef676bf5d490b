//! What accept(2) returns when something went wrong: no descriptor left, or a client that is gone already.

use std::time::Duration;

use rustix::event::{PollFlags, Timespec, epoll};
use socket2::Socket;

use crate::accept::fill_descriptors;
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome, result_name};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// Claims about errors.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.emfile-keeps-the-connection",
        group: Group::Accept,
        notes: &[],
        facts: &["6.emfile-stays"],
        says: "EMFILE loses no connection: it stays in the queue and is accepted once there are descriptors again.",
        why: "accept4 takes the descriptor number before it dequeues (net/socket.c, __sys_accept4_file)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accept", is: Is::Text("EMFILE") },
            Expect { figure: "queued-after", is: Is::Exactly(5.0) },
            Expect { figure: "accepted-later", is: Is::Exactly(5.0) },
        ],
        known: Verdict::Holds,
        measure: emfile_keeps_the_connection,
    },
    Claim {
        name: "accept.emfile-spins-level-triggered",
        group: Group::Accept,
        notes: &[],
        facts: &["6.emfile-spin"],
        says: "After EMFILE a level-triggered epoll reports the listener again at once, for ever: the loop spins.",
        why: "the queue is not empty, so ep_item_poll finds the listener readable on every epoll_wait",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "events", is: Is::Exactly(1000.0) },
            Expect { figure: "emfile", is: Is::Exactly(1000.0) },
        ],
        known: Verdict::Holds,
        measure: emfile_spins_level_triggered,
    },
    Claim {
        name: "accept.emfile-strands-edge-triggered",
        group: Group::Accept,
        notes: &[],
        facts: &["6.emfile-stranded"],
        says: "After EMFILE an edge-triggered epoll is silent: the connection is stranded until another one arrives.",
        why: "an edge-triggered item is reported only after a wake-up (ep_poll_callback), which only a new connection causes",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "events-at-first", is: Is::Exactly(1.0) },
            Expect { figure: "accept", is: Is::Text("EMFILE") },
            Expect { figure: "events-with-descriptors-again", is: Is::Exactly(0.0) },
            Expect { figure: "stranded", is: Is::Exactly(1.0) },
            Expect { figure: "events-after-another", is: Is::Exactly(1.0) },
            Expect { figure: "accepted-then", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: emfile_strands_edge_triggered,
    },
    Claim {
        name: "accept.reset-in-the-queue-keeps-its-slot",
        group: Group::Accept,
        notes: &[],
        facts: &["6.dead-holds-slot"],
        says: "A connection reset while it waits keeps its place in the accept queue: dead ones keep a live client out.",
        why: "tcp_reset only changes the child's state; it is unlinked from the queue by accept or the listener's end alone",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "queued", is: Is::Exactly(3.0) },
            Expect { figure: "live-client", is: Is::Text("SYN_SENT") },
            Expect { figure: "server.ListenOverflows", is: Is::Between(1.0, 5.0) },
        ],
        known: Verdict::Holds,
        measure: reset_keeps_its_slot,
    },
    Claim {
        name: "accept.never-econnaborted",
        group: Group::Accept,
        notes: &[],
        facts: &["6.no-econnaborted", "6.dead-data"],
        says: "accept never fails with ECONNABORTED: a connection reset in the queue is returned, dead, with its address and its data.",
        why: "inet_csk_accept does not look at the child's state; inet_accept only warns of unexpected ones, and CLOSE is expected",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accept", is: Is::Text("ok") },
            Expect { figure: "address", is: Is::Text("the client's") },
            Expect { figure: "state", is: Is::Text("CLOSE") },
            Expect { figure: "getpeername", is: Is::Text("ENOTCONN") },
            Expect { figure: "first-read", is: Is::Text("hello") },
            Expect { figure: "second-read", is: Is::Text("ECONNRESET") },
            Expect { figure: "write", is: Is::Text("EPIPE") },
        ],
        known: Verdict::Holds,
        measure: never_econnaborted,
    },
    Claim {
        name: "accept.fin-in-the-queue",
        group: Group::Accept,
        notes: &[],
        facts: &["6.fin-queued"],
        says: "A client that sent and closed while it waited is accepted in CLOSE_WAIT; its data is read, then EOF.",
        why: "the kernel receives data and FIN for a connection whether it has been accepted or not",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accept", is: Is::Text("ok") },
            Expect { figure: "state", is: Is::Text("CLOSE_WAIT") },
            Expect { figure: "first-read", is: Is::Text("hello") },
            Expect { figure: "second-read", is: Is::Text("EOF") },
        ],
        known: Verdict::Holds,
        measure: fin_in_the_queue,
    },
];

fn emfile_keeps_the_connection(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const CLIENTS: usize = 5;
    let listener = scene.listen(PORT, 8)?;
    let _clients = talk::queue(scene, &listener, PORT, CLIENTS)?;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let full = fill_descriptors()?;
    let accept = result_name(&listener.accept());
    let queued = info(&listener)?.unacked;
    drop(full);
    let accepted: Vec<Socket> = std::iter::from_fn(|| listener.accept().ok()).map(|(socket, _)| socket).collect();
    let did =
        format!("accept gives {accept}, {queued} of {CLIENTS} stay queued, {} are accepted later", accepted.len());
    Ok(Observed::new()
        .text("accept", accept)
        .number("queued-after", queued)
        .number("accepted-later", accepted.len() as f64)
        .did(did))
}

/// An epoll set with the listener in it.
fn watching(listener: &Socket, flags: epoll::EventFlags) -> Result<std::os::fd::OwnedFd, ProbeError> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).doing("make an epoll set")?;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(0), flags).doing("add the listener to it")?;
    Ok(epoll)
}

/// How many events there are within `limit`.
fn events(epoll: &std::os::fd::OwnedFd, limit: Duration) -> Result<u32, ProbeError> {
    let mut events = Vec::with_capacity(8);
    let limit = Timespec::try_from(limit).unwrap_or_default();
    rustix::io::retry_on_intr(|| {
        events.clear();
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&limit))
    })
    .doing("wait for events")?;
    Ok(u32::try_from(events.len()).unwrap_or(u32::MAX))
}

fn emfile_spins_level_triggered(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const TURNS: u32 = 1000;
    let listener = scene.listen(PORT, 8)?;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let epoll = watching(&listener, epoll::EventFlags::IN)?;
    let _clients = talk::queue(scene, &listener, PORT, 1)?;
    let full = fill_descriptors()?;
    let (mut seen, mut emfile) = (0, 0);
    for _ in 0..TURNS {
        seen += events(&epoll, Duration::from_secs(1))?;
        emfile += u32::from(result_name(&listener.accept()) == "EMFILE");
    }
    drop(full);
    let did = format!("{seen} of {TURNS} calls of epoll_wait return at once, each accept gives EMFILE");
    Ok(Observed::new().number("events", seen).number("emfile", emfile).did(did))
}

fn emfile_strands_edge_triggered(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let epoll = watching(&listener, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
    let _first = talk::queue(scene, &listener, PORT, 1)?;
    let full = fill_descriptors()?;
    let at_first = events(&epoll, SOON)?;
    let accept = result_name(&listener.accept());
    drop(full);
    let again = events(&epoll, QUIET)?;
    let stranded = info(&listener)?.unacked;
    let _second = talk::queue(scene, &listener, PORT, 1)?;
    let after_another = events(&epoll, SOON)?;
    let then = std::iter::from_fn(|| listener.accept().ok()).count();
    let did = format!(
        "{accept}, then {again} events with descriptors free again; a second client's event lets {then} be accepted"
    );
    Ok(Observed::new()
        .number("events-at-first", at_first)
        .text("accept", accept)
        .number("events-with-descriptors-again", again)
        .number("stranded", stranded)
        .number("events-after-another", after_another)
        .number("accepted-then", then as f64)
        .did(did))
}

/// Resets a client's connection.
fn reset(client: Socket) -> Result<(), ProbeError> {
    client.set_linger(Some(Duration::ZERO)).doing("set SO_LINGER")?;
    drop(client);
    Ok(())
}

fn reset_keeps_its_slot(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const FIT: usize = 3;
    let listener = scene.listen(PORT, 2)?;
    for client in talk::queue(scene, &listener, PORT, FIT)? {
        reset(client)?;
    }
    // The resets arrived.
    eventually(SOON, || Ok(scene.server_counter("EstabResets")? == FIT as u64))?;
    let live = scene.connect(PORT)?;
    eventually(SOON, || Ok(scene.server_counter("ListenOverflows")? > 0))?;
    let live = outcome(&live, QUIET)?;
    let queued = info(&listener)?.unacked;
    let did = format!("{queued} reset connections fill the queue; a live client stays in {live}");
    Ok(Observed::new().number("queued", queued).text("live-client", live).did(did))
}

fn never_econnaborted(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let client = talk::queue(scene, &listener, PORT, 1)?.remove(0);
    let own = client.local_addr().doing("read the client's address")?.as_socket();
    talk::send(&client, "hello")?;
    reset(client)?;
    eventually(SOON, || Ok(scene.server_counter("EstabResets")? == 1))?;
    let result = listener.accept();
    let accept = result_name(&result);
    let (accepted, address) = result.doing("accept")?;
    let address = if address.as_socket() == own { "the client's" } else { "another" };
    let state = talk::state(&accepted)?;
    let peer = result_name(&accepted.peer_addr());
    let first = talk::read(&accepted, SOON)?;
    let second = talk::read(&accepted, SOON)?;
    let write = talk::try_send(&accepted);
    let did =
        format!("accept: {accept}, state {state}; getpeername {peer}; reads {first:?}, then {second}; write {write}");
    Ok(Observed::new()
        .text("accept", accept)
        .text("address", address)
        .text("state", state)
        .text("getpeername", peer)
        .text("first-read", first)
        .text("second-read", second)
        .text("write", write)
        .did(did))
}

fn fin_in_the_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let client = talk::queue(scene, &listener, PORT, 1)?.remove(0);
    talk::send(&client, "hello")?;
    client.shutdown(std::net::Shutdown::Write).doing("shutdown")?;
    talk::becomes(&client, "FIN_WAIT2")?;
    drop(client);
    let result = listener.accept();
    let accept = result_name(&result);
    let (accepted, _) = result.doing("accept")?;
    let state = talk::becomes(&accepted, "CLOSE_WAIT")?;
    let readable = crate::scene::wait(&accepted, PollFlags::IN, SOON)?;
    let first = if readable.is_empty() { "nothing".to_owned() } else { talk::read(&accepted, SOON)? };
    let second = talk::read(&accepted, SOON)?;
    let did = format!("accepted in {state}; reads {first:?}, then {second}");
    Ok(Observed::new()
        .text("accept", accept)
        .text("state", state)
        .text("first-read", first)
        .text("second-read", second)
        .did(did))
}
