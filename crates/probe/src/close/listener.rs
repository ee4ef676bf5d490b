//! close(2) and shutdown(2) of a listener: what becomes of the port, of its queue and of those who share it.

use std::fs::File;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use kernel::sock_diag::SockDiag;
use socket2::Socket;

use crate::child::{Ask, Child};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome, result_name};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range; the next one is used too.
const PORT: u16 = 9700;

/// Clients that three listeners share by hash.
const SHARED: usize = 40;

/// Claims about listeners.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "close.one-of-two-listeners",
        group: Group::Close,
        notes: &["7.2"],
        facts: &["0.fork-close"],
        says: "Two processes listening on one IP and port: closing one does not affect the other; the same for parent and child after fork.",
        why: "a forked listener is one socket with two references; SO_REUSEPORT listeners are two sockets with a queue each",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "after-the-childs-close", is: Is::Text("ok") },
            Expect { figure: "forked-clients-reset", is: Is::Exactly(0.0) },
            Expect { figure: "other-listeners-lost", is: Is::Exactly(0.0) },
            Expect { figure: "new-client-at-the-other", is: Is::Text("connected") },
        ],
        known: Verdict::Holds,
        measure: one_of_two,
    },
    Claim {
        name: "close.reuseport-loses-its-queue",
        group: Group::Close,
        notes: &[],
        facts: &["5.migrate-off"],
        says: "Closing one of several SO_REUSEPORT listeners resets every connection in its own queue, though the others still listen.",
        why: "inet_csk_listen_stop ends the queued children unless net.ipv4.tcp_migrate_req is on (default 0)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "its-queue-lost", is: Is::Text("all") },
            Expect { figure: "other-listeners-lost", is: Is::Exactly(0.0) },
            Expect { figure: "moved", is: Is::Text("none") },
        ],
        known: Verdict::Holds,
        measure: |scene| reuseport(scene, 0),
    },
    Claim {
        name: "close.migrate-req-moves-the-queue",
        group: Group::Close,
        notes: &[],
        facts: &["5.migrate-on"],
        says: "With tcp_migrate_req=1 the queue of a closed SO_REUSEPORT listener moves to one of the others, all of it; nobody is reset.",
        why: "inet_csk_listen_stop hands the children over (reuseport_migrate_sock) and counts TCPMigrateReqSuccess",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "its-queue-lost", is: Is::Text("none") },
            Expect { figure: "other-listeners-lost", is: Is::Exactly(0.0) },
            Expect { figure: "moved", is: Is::Text("all") },
            Expect { figure: "moved-to-listeners", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: |scene| reuseport(scene, 1),
    },
    Claim {
        name: "close.listener-resets-its-queue",
        group: Group::Close,
        notes: &[],
        facts: &["6.close-listener", "0.rst-more-causes"],
        says: "Closing a listener resets every connection in its accept queue: those clients get ECONNRESET.",
        why: "inet_csk_listen_stop disconnects each child that nobody accepted (tcp_disconnect sends a RST)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "reset", is: Is::Exactly(5.0) },
            Expect { figure: "server.OutRsts", is: Is::Exactly(5.0) },
            Expect { figure: "server.TCPAbortOnClose", is: Is::Exactly(0.0) },
            Expect { figure: "server.TCPAbortOnData", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: resets_its_queue,
    },
    Claim {
        name: "close.listener-while-accept-blocks",
        group: Group::Close,
        notes: &[],
        facts: &["0.close-blocked-accept"],
        says: "Closing a listener does not wake a thread blocked in accept on it: it gets one more connection, then the port is closed.",
        why: "the system call holds a reference of the open file (fdget) until it returns",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "thread", is: Is::Text("blocked") },
            Expect { figure: "listeners", is: Is::Exactly(1.0) },
            Expect { figure: "first-connect", is: Is::Text("connected") },
            Expect { figure: "accept", is: Is::Text("ok") },
            Expect { figure: "second-connect", is: Is::Text("ECONNREFUSED") },
        ],
        known: Verdict::Holds,
        measure: while_accept_blocks,
    },
    Claim {
        name: "close.shutdown-of-a-shared-listener",
        group: Group::Close,
        notes: &[],
        facts: &["0.fork-shutdown"],
        says: "shutdown(SHUT_RD) of a shared listener resets its queue and ends accept everywhere with EINVAL; listen revives it.",
        why: "inet_shutdown of a listener is tcp_disconnect: inet_csk_listen_stop, state CLOSE; the port stays bound",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "reset", is: Is::Exactly(3.0) },
            Expect { figure: "accept-here", is: Is::Text("EINVAL") },
            Expect { figure: "accept-in-the-child", is: Is::Text("EINVAL") },
            Expect { figure: "connect", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "connect-after-listen", is: Is::Text("connected") },
            Expect { figure: "accept-in-the-child-after-listen", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: shutdown_of_a_shared_listener,
    },
    Claim {
        name: "close.shutdown-wakes-accept",
        group: Group::Close,
        notes: &[],
        facts: &["0.fork-shutdown"],
        says: "Unlike close, shutdown(SHUT_RD) of a listener wakes a thread blocked in accept: EINVAL.",
        why: "inet_shutdown calls sk_state_change; inet_csk_wait_for_connect returns -EINVAL when the state is not LISTEN",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "before", is: Is::Text("blocked") },
            Expect { figure: "accept", is: Is::Text("EINVAL") },
        ],
        known: Verdict::Holds,
        measure: shutdown_wakes_accept,
    },
    Claim {
        name: "close.shut-wr-of-a-listener",
        group: Group::Close,
        notes: &[],
        facts: &[],
        says: "shutdown(SHUT_WR) of a listener does nothing: it goes on listening, and its queue is kept.",
        why: "inet_shutdown leaves a listener alone without RCV_SHUTDOWN",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "shutdown", is: Is::Text("ok") },
            Expect { figure: "queued", is: Is::Exactly(3.0) },
            Expect { figure: "accepted", is: Is::Exactly(3.0) },
            Expect { figure: "connect", is: Is::Text("connected") },
        ],
        known: Verdict::Holds,
        measure: shut_wr_of_a_listener,
    },
];

/// One of a `SO_REUSEPORT` group.
fn sharing(scene: &Scene, port: u16) -> Result<Socket, ProbeError> {
    let socket = scene.socket()?;
    socket.set_reuse_port(true).doing("set SO_REUSEPORT")?;
    socket.bind(&scene.address(port).into()).doing("bind a listener")?;
    socket.listen(64).doing("listen")?;
    Ok(socket)
}

/// What closing one of three `SO_REUSEPORT` listeners did.
struct Split {
    /// Connections in the closed one's queue.
    closed: u32,
    /// In the others' queues before and after.
    before: [u32; 2],
    after: [u32; 2],
    /// Clients reset.
    reset: u32,
    /// Kept open: their queues' ends count, too.
    _others: [Socket; 2],
}

impl Split {
    /// Connections the others lost.
    fn others_lost(&self) -> u32 {
        self.before.iter().zip(self.after).map(|(before, after)| before.saturating_sub(after)).sum()
    }

    /// How many of the others got any of the closed one's.
    fn heirs(&self) -> u8 {
        self.before.iter().zip(self.after).map(|(before, after)| u8::from(after > *before)).sum()
    }
}

/// Fills three listeners, closes one and looks at everybody.
fn split(scene: &Scene, port: u16) -> Result<Split, ProbeError> {
    let closes = sharing(scene, port)?;
    let others = [sharing(scene, port)?, sharing(scene, port)?];
    let clients = scene.connect_many(SHARED, port)?;
    let depth = |listener: &Socket| info(listener).map(|info| info.unacked);
    let depths = || Ok::<_, ProbeError>([depth(&others[0])?, depth(&others[1])?]);
    eventually(SOON, || Ok((depth(&closes)? + depths()?.iter().sum::<u32>()) as usize == SHARED))?;
    let (held, before) = (depth(&closes)?, depths()?);
    drop(closes);
    thread::sleep(QUIET);
    let reset = talk::how_many(&talk::read_all(&clients, Duration::ZERO)?, "ECONNRESET");
    let reset = u32::try_from(reset).unwrap_or(u32::MAX);
    Ok(Split { closed: held, before, after: depths()?, reset, _others: others })
}

fn one_of_two(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let mut child = Child::start(Some(&listener), None)?;
    let clients = talk::queue(scene, &listener, PORT, 3)?;
    child.does(Ask::CloseListener)?;
    let after = result_name(&listener.accept());
    let reset = talk::how_many(&talk::read_all(&clients[1..], QUIET / 3)?, "ECONNRESET");
    drop((listener, clients, child));
    let split = split(scene, PORT + 1)?;
    let lost = split.others_lost();
    let client = scene.connect(PORT + 1)?;
    let new = outcome(&client, SOON)?;
    let did = format!(
        "the parent's accept after the child's close: {after}; SO_REUSEPORT listeners beside a closed one lose {lost}; new clients: {new}"
    );
    Ok(Observed::new()
        .text("after-the-childs-close", after)
        .number("forked-clients-reset", reset as f64)
        .number("other-listeners-lost", lost)
        .text("new-client-at-the-other", new)
        .did(did))
}

/// `all`, `none` or `some` of so many.
fn share(count: u32, of: u32) -> &'static str {
    match count {
        0 => "none",
        all if all == of => "all",
        _ => "some",
    }
}

fn reuseport(scene: &mut Scene, migrate: u8) -> Result<Observed, ProbeError> {
    scene.sysctl("net.ipv4.tcp_migrate_req", migrate)?;
    let split = split(scene, PORT)?;
    let moved = u32::try_from(scene.server_counter("TCPMigrateReqSuccess")?).unwrap_or(u32::MAX);
    let (lost, moved_share) = (share(split.reset, split.closed), share(moved, split.closed));
    let heirs = split.heirs();
    let did =
        format!("of the closed listener's queue {lost} are reset, {moved_share} move, to {heirs} of the two others");
    Ok(Observed::new()
        .text("its-queue-lost", lost)
        .text("moved", moved_share)
        .number("moved-to-listeners", heirs)
        .number("other-listeners-lost", split.others_lost())
        .number("queued", split.closed)
        .did(did))
}

fn resets_its_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let clients = talk::queue(scene, &listener, PORT, 5)?;
    drop(listener);
    let reset = talk::how_many(&talk::read_all(&clients, SOON)?, "ECONNRESET");
    let did = format!("{reset} of {} queued clients read ECONNRESET", clients.len());
    Ok(Observed::new().number("reset", reset as f64).did(did))
}

/// Listeners on the port.
fn listeners() -> Result<usize, ProbeError> {
    let mut diag = SockDiag::open().doing("open a sock_diag socket")?;
    let listeners = diag.listeners().map_err(|error| ProbeError::Failed(error.to_string()))?;
    Ok(listeners.iter().filter(|entry| entry.local.port() == PORT).count())
}

fn while_accept_blocks(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    // Standard input can be closed, by another file in its place, while a thread uses it; an owned descriptor cannot.
    rustix::stdio::dup2_stdin(&listener).doing("make the listener standard input")?;
    drop(listener);
    let (thread, open, first, accept) = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let accepted = rustix::net::accept(rustix::stdio::stdin()).map_err(std::io::Error::from);
            result_name(&accepted)
        });
        thread::sleep(QUIET);
        rustix::stdio::dup2_stdin(File::open("/dev/null").doing("open /dev/null")?).doing("close the listener")?;
        thread::sleep(QUIET);
        let blocked = if waiter.is_finished() { "returned" } else { "blocked" };
        let open = listeners()?;
        let first = outcome(&scene.connect(PORT)?, SOON)?;
        let accept = waiter.join().map_err(|_| ProbeError::Failed("the thread in accept panicked".to_owned()))?;
        Ok((blocked, open, first, accept))
    })?;
    let second = outcome(&scene.connect(PORT)?, SOON)?;
    let did = format!(
        "after close the thread stays {thread}; a client is {first}, accept gives {accept}; the next connect gives {second}"
    );
    Ok(Observed::new()
        .text("thread", thread)
        .number("listeners", open as f64)
        .text("first-connect", first)
        .text("accept", accept)
        .text("second-connect", second)
        .did(did))
}

fn shutdown_of_a_shared_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let mut child = Child::start(Some(&listener), None)?;
    let clients = talk::queue(scene, &listener, PORT, 3)?;
    listener.shutdown(Shutdown::Read).doing("shutdown")?;
    let reset = talk::how_many(&talk::read_all(&clients, SOON)?, "ECONNRESET");
    let here = result_name(&listener.accept());
    let there = child.does(Ask::Accept)?;
    let connect = outcome(&scene.connect(PORT)?, SOON)?;
    listener.listen(8).doing("listen again")?;
    let client = scene.connect(PORT)?;
    let connect_after = outcome(&client, SOON)?;
    let there_after = child.does(Ask::Accept)?;
    let did = format!(
        "{reset} queued clients reset; accept gives {here} here, {there} in the child; after listen {there_after} again"
    );
    Ok(Observed::new()
        .number("reset", reset as f64)
        .text("accept-here", here)
        .text("accept-in-the-child", there)
        .text("connect", connect)
        .text("connect-after-listen", connect_after)
        .text("accept-in-the-child-after-listen", there_after)
        .did(did))
}

fn shutdown_wakes_accept(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (before, accept) = thread::scope(|scope| {
        let waiter = scope.spawn(|| result_name(&listener.accept()));
        thread::sleep(QUIET);
        let before = if waiter.is_finished() { "returned" } else { "blocked" };
        listener.shutdown(Shutdown::Read).doing("shutdown")?;
        let accept = waiter.join().map_err(|_| ProbeError::Failed("the thread in accept panicked".to_owned()))?;
        Ok((before, accept))
    })?;
    let did = format!("the thread is {before} until shutdown, then accept gives {accept}");
    Ok(Observed::new().text("before", before).text("accept", accept).did(did))
}

fn shut_wr_of_a_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let _clients = talk::queue(scene, &listener, PORT, 3)?;
    let shutdown = result_name(&listener.shutdown(Shutdown::Write));
    let queued = info(&listener)?.unacked;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let accepted: Vec<_> = std::iter::from_fn(|| listener.accept().ok()).collect();
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, SOON)?;
    let did = format!(
        "shutdown gives {shutdown}; {queued} stay queued, {} are accepted, new clients: {connect}",
        accepted.len()
    );
    Ok(Observed::new()
        .text("shutdown", shutdown)
        .number("queued", queued)
        .number("accepted", accepted.len() as f64)
        .text("connect", connect)
        .did(did))
}
