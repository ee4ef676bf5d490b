//! accept(2): what it returns, in which order, and when it waits.

pub(crate) mod deferred;
pub(crate) mod errors;
pub(crate) mod fastopen;
pub(crate) mod steering;
pub(crate) mod waiting;
pub(crate) mod wakeup;

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, info, outcome, result_name, start};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// The claims of this group about accept(2) itself.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.head-of-the-queue",
        group: Group::Accept,
        notes: &["4.1"],
        facts: &["0.fifo"],
        says: "accept returns the next finished connection from the head of the queue.",
        why: "the accept queue is a singly linked list: inet_csk_reqsk_queue_add appends, reqsk_queue_remove takes the first",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "in-order", is: Is::Exactly(20.0) },
            Expect { figure: "left", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: head_of_the_queue,
    },
    Claim {
        name: "accept.order-of-the-final-ack",
        group: Group::Accept,
        notes: &[],
        facts: &["0.fifo"],
        says: "Connections stand in the accept queue in the order of their final ACKs, not of their SYNs.",
        why: "a connection enters the queue when the handshake's last ACK is processed (tcp_check_req, \
              inet_csk_complete_hashdance); its request does not keep a place",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "first-accepted", is: Is::Text("second SYN") },
            Expect { figure: "second-accepted", is: Is::Text("first SYN") },
            Expect { figure: "late-by", is: Is::Between(0.92, 1.14) },
        ],
        known: Verdict::Holds,
        measure: order_of_the_final_ack,
    },
    Claim {
        name: "accept.blocks-on-an-empty-queue",
        group: Group::Accept,
        notes: &["4.1"],
        facts: &["0.empty-queue"],
        says: "On an empty queue a blocking accept sleeps until a connection is finished.",
        why: "inet_csk_wait_for_connect sleeps on the socket's wait queue, exclusively; sk_data_ready wakes it",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "empty", is: Is::Text("blocked") },
            Expect { figure: "after-connect", is: Is::Text("ok") },
        ],
        known: Verdict::Holds,
        measure: blocks_on_an_empty_queue,
    },
    Claim {
        name: "accept.eagain-on-an-empty-queue",
        group: Group::Accept,
        notes: &["4.1"],
        facts: &["0.empty-queue"],
        says: "On an empty queue a non-blocking accept returns an error at once: EAGAIN.",
        why: "inet_csk_accept returns -EAGAIN when the queue is empty and the time to wait is 0 (sock_rcvtimeo)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "empty", is: Is::Text("EAGAIN") },
            Expect { figure: "after-connect", is: Is::Text("ok") },
            Expect { figure: "again", is: Is::Text("EAGAIN") },
        ],
        known: Verdict::Holds,
        measure: eagain_on_an_empty_queue,
    },
    Claim {
        name: "accept.rcvtimeo",
        group: Group::Accept,
        notes: &[],
        facts: &["0.empty-queue"],
        says: "SO_RCVTIMEO bounds a blocking accept: on an empty queue it fails with EAGAIN after that time.",
        why: "accept waits for sock_rcvtimeo; inet_csk_wait_for_connect returns -EAGAIN when it has passed",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "accept", is: Is::Text("EAGAIN") },
            Expect { figure: "seconds", is: Is::Between(0.2, 0.276) },
        ],
        known: Verdict::Holds,
        measure: rcvtimeo,
    },
    Claim {
        name: "accept.emfile-on-an-empty-queue",
        group: Group::Accept,
        notes: &[],
        facts: &["0.emfile-empty"],
        says: "With the descriptor table full, accept fails with EMFILE at once: even a blocking one, even on an empty queue.",
        why: "accept4 takes the descriptor number before it looks at the queue (net/socket.c, __sys_accept4_file)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accept", is: Is::Text("EMFILE") },
            Expect { figure: "seconds", is: Is::Between(0.0, 0.5) },
        ],
        known: Verdict::Holds,
        measure: emfile_on_an_empty_queue,
    },
    Claim {
        name: "accept.null-address",
        group: Group::Accept,
        notes: &["4.2"],
        facts: &["0.accept-null"],
        says: "NULL for the address arguments means the server does not care who the client is: accept works without.",
        why: "accept copies the peer's address out only when it is given a place for it; getpeername(2) tells it later",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "without", is: Is::Text("ok") },
            Expect { figure: "getpeername", is: Is::Text("127.0.0.2") },
            Expect { figure: "with", is: Is::Text("127.0.0.3") },
        ],
        known: Verdict::Holds,
        measure: null_address,
    },
    Claim {
        name: "accept.address-filters-nobody",
        group: Group::Accept,
        notes: &[],
        facts: &["0.accept-null"],
        says: "accept's address arguments never choose a client: it is connected before the server can see who it is.",
        why: "the handshake is finished by the kernel before accept; the address is output only (accept(2))",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("connected") },
            Expect { figure: "send", is: Is::Text("ok") },
            Expect { figure: "queued", is: Is::Exactly(1.0) },
            Expect { figure: "refused-client-reads", is: Is::Text("ECONNRESET") },
        ],
        known: Verdict::Holds,
        measure: address_filters_nobody,
    },
    Claim {
        name: "accept.nonblock-not-inherited",
        group: Group::Accept,
        notes: &[],
        facts: &["0.accept-flags"],
        says: "The accepted socket does not take O_NONBLOCK from the listener; accept4's SOCK_NONBLOCK sets it.",
        why: "file status flags belong to the open file; accept makes a new one with accept4's flags only (accept(2), NOTES)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "listener", is: Is::Text("non-blocking") },
            Expect { figure: "accept", is: Is::Text("blocking") },
            Expect { figure: "accept4", is: Is::Text("non-blocking") },
        ],
        known: Verdict::Holds,
        measure: nonblock_not_inherited,
    },
];

fn head_of_the_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const CLIENTS: usize = 20;
    let listener = scene.listen(PORT, 64)?;
    let clients = talk::queue(scene, &listener, PORT, CLIENTS)?;
    let mut in_order = 0;
    for client in &clients {
        let (_, peer) = listener.accept().doing("accept")?;
        let own = client.local_addr().doing("read a client's address")?;
        in_order += usize::from(peer.as_socket() == own.as_socket());
    }
    let left = info(&listener)?.unacked;
    Ok(Observed::new()
        .number("in-order", in_order as f64)
        .number("left", left)
        .did(format!("{in_order} of {CLIENTS} were accepted in the order in which they connected")))
}

fn order_of_the_final_ack(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (first, began) = talk::late_client(scene, &listener, PORT)?;
    let second = scene.connect(PORT)?;
    talk::queued(&listener, 2)?;
    let first_port = first.local_addr().doing("read a client's address")?.as_socket();
    let (mut order, mut late_by) = (Vec::new(), 0.0);
    for _ in 0..2 {
        let (accepted, peer) = listener.accept().doing("accept")?;
        let is_first = peer.as_socket() == first_port;
        order.push(if is_first { "first SYN" } else { "second SYN" });
        if is_first {
            late_by = talk::entered(&accepted, began)?;
        }
    }
    drop(second);
    Ok(Observed::new()
        .text("first-accepted", order[0])
        .text("second-accepted", order[1])
        .number("late-by", late_by)
        .did(format!("accepted: {}, whose ACK came at once; then {}, whose ACK came 1 s late", order[0], order[1])))
}

fn blocks_on_an_empty_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (empty, after) = thread::scope(|scope| {
        let waiter = scope.spawn(|| result_name(&listener.accept()));
        thread::sleep(QUIET);
        let empty = if waiter.is_finished() { "returned" } else { "blocked" };
        let _client = scene.connect(PORT)?;
        let after = waiter.join().map_err(|_| ProbeError::Failed("the thread in accept panicked".to_owned()))?;
        Ok((empty, after))
    })?;
    let did = format!("accept is {empty} on the empty queue and returns {after} when a client connects");
    Ok(Observed::new().text("empty", empty).text("after-connect", after).did(did))
}

fn eagain_on_an_empty_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let empty = result_name(&listener.accept());
    let _clients = talk::queue(scene, &listener, PORT, 1)?;
    let after = result_name(&listener.accept());
    let again = result_name(&listener.accept());
    let did = format!("accept gives {empty}, {after} with one connection queued, then {again}");
    Ok(Observed::new().text("empty", empty).text("after-connect", after).text("again", again).did(did))
}

fn rcvtimeo(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    listener.set_read_timeout(Some(Duration::from_millis(200))).doing("set SO_RCVTIMEO")?;
    let (mut accept, mut seconds) = (String::new(), f64::MAX);
    // A busy machine wakes this process late, but not every time.
    for _ in 0..4 {
        let began = Instant::now();
        accept = result_name(&listener.accept());
        seconds = seconds.min(began.elapsed().as_secs_f64());
    }
    let did = format!("accept gives {accept} after {seconds:.1} s");
    Ok(Observed::new().text("accept", accept).number("seconds", seconds).did(did))
}

fn emfile_on_an_empty_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    // Should accept block after all, the claim differs instead of hanging.
    listener.set_read_timeout(Some(Duration::from_secs(1))).doing("set SO_RCVTIMEO")?;
    let full = fill_descriptors()?;
    let began = Instant::now();
    let accept = result_name(&listener.accept());
    let seconds = began.elapsed().as_secs_f64();
    drop(full);
    let did = format!("a blocking accept on an empty queue gives {accept} at once");
    Ok(Observed::new().text("accept", accept).number("seconds", seconds).did(did))
}

/// Leaves this process no descriptor to make, until the result is dropped.
pub(crate) fn fill_descriptors() -> Result<Vec<std::fs::File>, ProbeError> {
    const LIMIT: u64 = 64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum }).doing("lower RLIMIT_NOFILE")?;
    let null = std::fs::File::open("/dev/null").doing("open /dev/null")?;
    let mut copies = Vec::new();
    loop {
        match null.try_clone() {
            Ok(copy) => copies.push(copy),
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => break,
            Err(error) => return Err(error).doing("copy a descriptor"),
        }
    }
    copies.push(null);
    Ok(copies)
}

/// A client with a loopback address of its own, queued.
fn client_from(scene: &Scene, last: u8) -> Result<socket2::Socket, ProbeError> {
    let client = scene.client_socket()?;
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    client.bind(&own.into()).doing("bind a client")?;
    start(&client, scene.address(PORT)).doing("connect")?;
    Ok(client)
}

fn null_address(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let _first = client_from(scene, 2)?;
    talk::queued(&listener, 1)?;
    let _second = client_from(scene, 3)?;
    talk::queued(&listener, 2)?;
    let without = rustix::net::accept(&listener);
    let without_name = result_name(&without.as_ref().map_err(|errno| (*errno).into()));
    let accepted = without.doing("accept without an address")?;
    let peer = rustix::net::getpeername(&accepted).doing("getpeername")?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).map(|peer| peer.ip().to_string());
    let (_, with) = rustix::net::acceptfrom(&listener).doing("accept with an address")?;
    let with = with.and_then(|with| SocketAddr::try_from(with).ok()).map(|with| with.ip().to_string());
    let did = format!("accept4 with NULL returns {without_name}, and getpeername then tells the address");
    Ok(Observed::new()
        .text("without", without_name)
        .text("getpeername", peer.unwrap_or_default())
        .text("with", with.unwrap_or_default())
        .did(did))
}

fn address_filters_nobody(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let client = client_from(scene, 9)?;
    let connect = outcome(&client, SOON)?;
    talk::queued(&listener, 1)?;
    let send = talk::try_send(&client);
    let queued = info(&listener)?.unacked;
    let (unwanted, _) = listener.accept().doing("accept")?;
    // All that is left to a server that does not want it is to close; its data is unread.
    talk::wait_for_bytes(&unwanted, 1)?;
    drop(unwanted);
    let reads = talk::read(&client, SOON)?;
    let did = format!("before accept the client is {connect} and has sent data; turned away, it reads {reads}");
    Ok(Observed::new()
        .text("connect", connect)
        .text("send", send)
        .number("queued", queued)
        .text("refused-client-reads", reads)
        .did(did))
}

fn nonblock_not_inherited(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let _clients = talk::queue(scene, &listener, PORT, 2)?;
    let plain = rustix::net::accept(&listener).doing("accept")?;
    let asked = rustix::net::accept_with(&listener, SocketFlags::NONBLOCK).doing("accept4")?;
    let mut observed = Observed::new();
    for (figure, fd) in [
        ("listener", rustix::fs::fcntl_getfl(&listener)),
        ("accept", rustix::fs::fcntl_getfl(&plain)),
        ("accept4", rustix::fs::fcntl_getfl(&asked)),
    ] {
        let flags = fd.doing("read file status flags")?;
        observed = observed.text(figure, if flags.contains(OFlags::NONBLOCK) { "non-blocking" } else { "blocking" });
    }
    let plain = observed.figure("accept").map(|figure| figure.to_string()).unwrap_or_default();
    Ok(observed.did(format!("accepted from a non-blocking listener: {plain}; with SOCK_NONBLOCK: non-blocking")))
}
