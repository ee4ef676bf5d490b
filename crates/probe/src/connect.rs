//! connect(2): when it returns. What it returns, and what the client's kernel does meanwhile, stands in the modules below.

pub(crate) mod early;
pub(crate) mod error;
pub(crate) mod port_range;
pub(crate) mod ports;
pub(crate) mod reset;
pub(crate) mod reset_queue;
mod schedule;
pub(crate) mod silent;
pub(crate) mod time_wait;
pub(crate) mod timeout;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use kernel::sockopt::TcpState;
use rustix::event::PollFlags;
use socket2::Socket;

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, info, outcome, result_name, wait};

/// A port of the server's end below every ephemeral range.
pub(crate) const PORT: u16 = 9700;

/// What happens at once happens within this time, even on a busy machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);

/// When the slot in the full queue is freed: before the first SYN is sent again, at 1 s.
const FREED: Duration = Duration::from_millis(300);

/// The claims about its return.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.returns-at-the-end",
        group: Group::Connect,
        notes: &["1.1"],
        facts: &[],
        says: "connect starts the three-way handshake and returns only when the connection stands or has failed.",
        why: "a blocking connect sends the SYN and sleeps while the socket is in SYN_SENT (net/ipv4/af_inet.c, \
              inet_wait_for_connect); the other claims of this group are the ways to leave that sleep early",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            // The SYN sent again at 1 s was the one; how soon after it this process runs is not the kernel's promise.
            Expect { figure: "syns-sent-again", is: Is::Exactly(1.0) },
            Expect { figure: "returned-s", is: Is::Between(0.98, 3.0) },
            Expect { figure: "state", is: Is::Text("established") },
            Expect { figure: "refused", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "refused-state", is: Is::Text("close") },
        ],
        known: Verdict::Holds,
        measure: returns_at_the_end,
    },
    Claim {
        name: "connect.success-is-not-accept",
        group: Group::Connect,
        notes: &[],
        facts: &[],
        says: "connect succeeds without any accept: the server's kernel ends the handshake and queues the connection.",
        why: "the handshake is over when the client has the SYN-ACK; accept(2) only takes a finished connection from the \
              queue (net/ipv4/inet_connection_sock.c, inet_csk_accept)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("connected") },
            Expect { figure: "write", is: Is::Text("ok") },
            Expect { figure: "queued", is: Is::Exactly(1.0) },
            Expect { figure: "server.PassiveOpens", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: success_is_not_accept,
    },
];

fn returns_at_the_end(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let full = FullListener::new(scene, PORT)?;
    let client = scene.socket()?;
    let freed = full.free_after(FREED)?;
    let began = Instant::now();
    client.connect(&scene.address(PORT).into()).doing("connect")?;
    let returned = began.elapsed().as_secs_f64();
    let ended = info(&client)?;
    join(freed)?;
    let refused = scene.socket()?;
    let error = result_name(&refused.connect(&scene.address(PORT + 1).into()));
    let did = format!(
        "slot freed at 0.3 s: connect returns {} after {} SYN sent again; without a listener {error}",
        ended.state.name(),
        ended.total_retrans
    );
    Ok(Observed::new()
        .number("returned-s", returned)
        .number("syns-sent-again", ended.total_retrans)
        .text("state", ended.state.name())
        .text("refused", error)
        .text("refused-state", info(&refused)?.state.name())
        .did(did))
}

fn success_is_not_accept(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 1)?;
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, AT_ONCE)?;
    let write = result_name(&(&client).write(b"x"));
    // Over a link the last ACK is on its way when connect returns.
    eventually(AT_ONCE, || Ok(info(&listener)?.unacked > 0))?;
    let queued = info(&listener)?.unacked;
    let did = format!("nobody accepts: {connect}, write {write}; {queued} connection queued");
    Ok(Observed::new().text("connect", connect).text("write", write).number("queued", queued).did(did))
}

/// A listener whose accept queue of one is full: SYNs to it go unanswered.
pub(crate) struct FullListener {
    listener: Socket,
    _queued: Socket,
}

impl FullListener {
    /// Listens with backlog 0 and fills the queue.
    pub(crate) fn new(scene: &Scene, port: u16) -> Result<Self, ProbeError> {
        let listener = scene.listen(port, 0)?;
        let queued = connected(scene, port)?;
        if !eventually(AT_ONCE, || Ok(info(&listener)?.unacked == 1))? {
            return Err(ProbeError::Failed("the accept queue does not fill".to_owned()));
        }
        Ok(Self { listener, _queued: queued })
    }

    /// Takes the queued connection out.
    pub(crate) fn free(&self) -> Result<Socket, ProbeError> {
        Ok(self.listener.accept().doing("accept")?.0)
    }

    /// Takes it out later, from a thread; what is accepted stays open while the thread's result is held.
    pub(crate) fn free_after(
        &self,
        delay: Duration,
    ) -> Result<std::thread::JoinHandle<std::io::Result<Socket>>, ProbeError> {
        let listener = self.listener.try_clone().doing("copy the listener's descriptor")?;
        Ok(std::thread::spawn(move || {
            std::thread::sleep(delay);
            listener.accept().map(|(accepted, _)| accepted)
        }))
    }
}

/// The result of a thread.
pub(crate) fn join<T>(thread: std::thread::JoinHandle<std::io::Result<T>>) -> Result<T, ProbeError> {
    thread.join().map_err(|_| ProbeError::Failed("a thread panicked".to_owned()))?.doing("wait for a thread")
}

/// A client whose connection stands.
pub(crate) fn connected(scene: &Scene, port: u16) -> Result<Socket, ProbeError> {
    let client = scene.connect(port)?;
    match outcome(&client, AT_ONCE)?.as_str() {
        "connected" => Ok(client),
        other => Err(ProbeError::Failed(format!("a client that should be connected: {other}"))),
    }
}

/// Both ends of a connection: the client's and the accepted one.
pub(crate) fn pair(scene: &Scene, listener: &Socket, port: u16) -> Result<(Socket, Socket), ProbeError> {
    let client = connected(scene, port)?;
    let (accepted, _) = listener.accept().doing("accept")?;
    Ok((client, accepted))
}

/// What a socket receives next: `data`, `end`, an errno's name, or `nothing` within the limit.
pub(crate) fn received(socket: &Socket, limit: Duration) -> Result<String, ProbeError> {
    if wait(socket, PollFlags::IN, limit)?.is_empty() {
        return Ok("nothing".to_owned());
    }
    let mut reader = socket;
    Ok(match reader.read(&mut [0]) {
        Ok(0) => "end".to_owned(),
        Ok(_) => "data".to_owned(),
        Err(error) => errno_name(&error),
    })
}

/// Is the socket still waiting for the answer to its SYN?
pub(crate) fn in_syn_sent(socket: &Socket) -> Result<bool, ProbeError> {
    Ok(info(socket)?.state == TcpState::SynSent)
}

/// Waits until something has arrived at the socket, and leaves it there.
pub(crate) fn arrived(socket: &Socket) -> Result<(), ProbeError> {
    if wait(socket, PollFlags::IN, AT_ONCE)?.is_empty() {
        return Err(ProbeError::Failed("nothing arrives".to_owned()));
    }
    Ok(())
}
