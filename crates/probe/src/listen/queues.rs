//! What listen(2) makes of a socket: an accept queue that is a list, and a count of requests that live elsewhere.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use kernel::sockopt::{self, TcpState};

use super::{PORT, SOON, SYNCOOKIES, await_state, await_syn_recv, depth, fill, half_open, join, local_port, take};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome, result_name, wait};

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.turns-passive",
        group: Group::Listen,
        notes: &["3.1"],
        facts: &[],
        says: "listen turns the socket passive: it takes connections and can no longer connect.",
        why: "inet_listen puts the socket in LISTEN, where a SYN finds it (__inet_lookup_listener) and connect(2) gives \
              EISCONN (__inet_stream_connect)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "before", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "after", is: Is::Text("connected") },
            Expect { figure: "state", is: Is::Text("listen") },
            Expect { figure: "its own connect", is: Is::Text("EISCONN") },
        ],
        known: Verdict::Holds,
        measure: turns_passive,
    },
    Claim {
        name: "listen.two-queues-of-the-socket",
        group: Group::Listen,
        notes: &["3.2"],
        facts: &["0.two-queues"],
        says: "The kernel keeps two queues for each listening socket: close it, and both are gone.",
        why: "a request is an entry of the global hash of established sockets (reqsk_queue_hash_req); the listener has a \
              count of them (icsk_accept_queue.qlen) and a list of finished connections only",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "half-open before", is: Is::Exactly(3.0) },
            Expect { figure: "half-open after", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Differs,
        measure: requests_after_close,
    },
    Claim {
        name: "listen.requests-live-in-the-hash",
        group: Group::Listen,
        notes: &[],
        facts: &["0.two-queues"],
        says: "Requests are entries of the kernel's hash table and outlive their listener; the finished ones are its own.",
        why: "inet_csk_listen_stop destroys the accept queue with its sockets and leaves the requests to their timers \
              (net/ipv4/inet_connection_sock.c)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "half-open before", is: Is::Exactly(3.0) },
            Expect { figure: "half-open after", is: Is::Exactly(3.0) },
            Expect { figure: "queued reset", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: requests_after_close,
    },
    Claim {
        name: "listen.queued-when-the-handshake-ends",
        group: Group::Listen,
        notes: &["3.3"],
        facts: &["0.fifo"],
        says: "A SYN makes a request; when its handshake ends it goes to the tail of the accept queue, behind later SYNs.",
        why: "tcp_check_req makes the socket and inet_csk_reqsk_queue_add appends it when the last ACK comes",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "half-open, queued after the SYN", is: Is::Text("1 0") },
            Expect { figure: "half-open, queued after the ACK", is: Is::Text("0 2") },
            Expect { figure: "accepted", is: Is::Text("second first") },
        ],
        known: Verdict::Holds,
        measure: queued_when_the_handshake_ends,
    },
    Claim {
        name: "listen.first-in-first-out",
        group: Group::Listen,
        notes: &["3.4"],
        facts: &["0.fifo"],
        says: "accept takes the connection that has been in the queue longest.",
        why: "reqsk_queue_remove takes rskq_accept_head, reqsk_queue_add appends at rskq_accept_tail",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "in order", is: Is::Exactly(20.0) }],
        known: Verdict::Holds,
        measure: first_in_first_out,
    },
    Claim {
        name: "listen.empty-queue",
        group: Group::Listen,
        notes: &["3.5"],
        facts: &["0.empty-queue"],
        says: "On an empty queue accept sleeps or gives EAGAIN, at once or after SO_RCVTIMEO; a new entry wakes it.",
        why: "inet_csk_accept waits for sock_rcvtimeo (inet_csk_wait_for_connect), which is 0 with O_NONBLOCK",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "non-blocking", is: Is::Text("EAGAIN") },
            Expect { figure: "SO_RCVTIMEO", is: Is::Text("EAGAIN") },
            Expect { figure: "after", is: Is::Between(0.19, 0.276) },
            Expect { figure: "blocked", is: Is::Text("asleep, then woken by a connection") },
        ],
        known: Verdict::Holds,
        measure: empty_queue,
    },
    Claim {
        name: "listen.empty-queue-without-descriptors",
        group: Group::Listen,
        notes: &[],
        facts: &["0.emfile-empty"],
        says: "With no descriptor left accept gives EMFILE at once, even a blocking one on an empty queue.",
        why: "__sys_accept4 takes a descriptor before it looks at the queue (net/socket.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "accept", is: Is::Text("EMFILE") },
            Expect { figure: "after", is: Is::Between(0.0, 0.5) },
        ],
        known: Verdict::Holds,
        measure: without_descriptors,
    },
    Claim {
        name: "listen.room-apart",
        group: Group::Listen,
        notes: &[],
        facts: &["3.separate"],
        says: "Room for requests is apart from room for finished connections, and as large: backlog + 1.",
        why: "both compare a count of their own with sk_max_ack_backlog: inet_csk_reqsk_queue_is_full, sk_acceptq_is_full",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "queued", is: Is::Exactly(6.0) },
            Expect { figure: "half-open", is: Is::Exactly(5.0) },
            Expect { figure: "half-open, empty accept queue", is: Is::Exactly(6.0) },
        ],
        known: Verdict::Holds,
        measure: room_apart,
    },
];

fn turns_passive(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.socket()?;
    listener.bind(&scene.address(PORT).into()).doing("bind")?;
    let early = scene.client_socket()?;
    // Over loopback the RST is there before connect(2) returns.
    let before = match crate::scene::start(&early, scene.address(PORT)) {
        Ok(()) => outcome(&early, SOON)?,
        refused => result_name(&refused),
    };
    listener.listen(5).doing("listen")?;
    let client = scene.connect(PORT)?;
    let after = outcome(&client, SOON)?;
    let state = info(&listener)?.state.name();
    let own = result_name(&listener.connect(&scene.address(PORT + 1).into()));
    let did = format!("bound: {before}; after listen: {after}, state {state}; connect on the listener gives {own}");
    Ok(Observed::new()
        .text("before", before)
        .text("after", after)
        .text("state", state)
        .text("its own connect", own)
        .did(did))
}

fn requests_after_close(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let queued = fill(scene, 2, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 2))?;
    let _requests = half_open(scene, 3, PORT)?;
    let before = await_syn_recv(scene, PORT, 3)?;
    drop(listener);
    let mut reset = 0;
    for client in &queued {
        wait(client, rustix::event::PollFlags::IN, SOON)?;
        reset += u32::from(client.take_error().doing("read SO_ERROR")?.is_some());
    }
    let after = scene.syn_recv(PORT)?;
    let did = format!("close resets the {reset} queued connections; {after} of {before} requests are still listed");
    Ok(Observed::new()
        .number("half-open before", before)
        .number("half-open after", after)
        .number("queued reset", reset)
        .did(did))
}

fn queued_when_the_handshake_ends(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let first = half_open(scene, 1, PORT)?;
    let half = await_syn_recv(scene, PORT, 1)?;
    let after_syn = join([half, depth(&listener)?]);
    let second = fill(scene, 1, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 1))?;
    sockopt::detach_filter(&first[0]).doing("detach the filter")?;
    await_state(&first, TcpState::Established, 1)?;
    eventually(SOON, || Ok(depth(&listener)? == 2))?;
    let after_ack = join([scene.syn_recv(PORT)?, depth(&listener)?]);
    let ports = [local_port(&first[0])?, local_port(&second[0])?];
    let accepted = join(take(&listener, 2)?.iter().map(|(_, address)| match address.port() {
        port if port == ports[0] => "first",
        port if port == ports[1] => "second",
        _ => "unknown",
    }));
    let did =
        format!("half-open and queued: {after_syn} after the SYN, {after_ack} after the ACKs; accepted: {accepted}");
    Ok(Observed::new()
        .text("half-open, queued after the SYN", after_syn)
        .text("half-open, queued after the ACK", after_ack)
        .text("accepted", accepted)
        .did(did))
}

fn first_in_first_out(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const COUNT: usize = 20;
    let listener = scene.listen(PORT, 64)?;
    let mut clients = Vec::new();
    for queued in 1..=COUNT {
        clients.push(scene.connect(PORT)?);
        eventually(SOON, || Ok(depth(&listener)? as usize == queued))?;
    }
    let mut in_order = 0;
    for (client, (_, address)) in clients.iter().zip(take(&listener, COUNT)?) {
        in_order += u32::from(local_port(client)? == address.port());
    }
    Ok(Observed::new()
        .number("in order", in_order)
        .did(format!("{in_order} of {COUNT} accepted in the order they came")))
}

fn empty_queue(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    listener.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let non_blocking = result_name(&listener.accept());
    listener.set_nonblocking(false).doing("unset O_NONBLOCK")?;
    listener.set_read_timeout(Some(Duration::from_millis(200))).doing("set SO_RCVTIMEO")?;
    let began = Instant::now();
    let timed = result_name(&listener.accept());
    let after = began.elapsed().as_secs_f64();
    listener.set_read_timeout(None).doing("unset SO_RCVTIMEO")?;
    let blocked = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| result_name(&listener.accept()));
        std::thread::sleep(Duration::from_millis(100));
        let asleep = !waiting.is_finished();
        let client = scene.connect(PORT)?;
        let name = waiting.join().unwrap_or_else(|_| "panicked".to_owned());
        drop(client);
        Ok::<_, ProbeError>(if asleep && name == "ok" { "asleep, then woken by a connection".to_owned() } else { name })
    })?;
    let did = format!("non-blocking: {non_blocking}; SO_RCVTIMEO 0.2 s: {timed} after it; blocking: {blocked}");
    Ok(Observed::new()
        .text("non-blocking", non_blocking)
        .text("SO_RCVTIMEO", timed)
        .number("after", after)
        .text("blocked", blocked)
        .did(did))
}

fn without_descriptors(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum }).doing("lower RLIMIT_NOFILE")?;
    let began = Instant::now();
    let accept = result_name(&listener.accept());
    let after = began.elapsed().as_secs_f64();
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).doing("raise RLIMIT_NOFILE")?;
    let did = format!("blocking accept, empty queue, RLIMIT_NOFILE reached: {accept}");
    Ok(Observed::new().text("accept", accept).number("after", after).did(did))
}

fn room_apart(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(SYNCOOKIES, 0)?;
    // Requests are taken while the accept queue has room, so its last place is filled after them.
    let listener = scene.listen(PORT, 5)?;
    let _first = fill(scene, 5, PORT)?;
    let _requests = half_open(scene, 5, PORT)?;
    let half = await_syn_recv(scene, PORT, 5)?;
    let _last = fill(scene, 1, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 6))?;
    let queued = depth(&listener)?;
    let _other = scene.listen(PORT + 1, 5)?;
    let _more = half_open(scene, 9, PORT + 1)?;
    let alone = await_syn_recv(scene, PORT + 1, 6)?;
    let did =
        format!("backlog 5: {queued} queued and {half} half-open at once; {alone} half-open beside an empty queue");
    Ok(Observed::new()
        .number("queued", queued)
        .number("half-open", half)
        .number("half-open, empty accept queue", alone)
        .did(did))
}
