//! Servers of several processes: a child for each connection, or several that accept from one listener.

use std::time::{Duration, Instant};

use crate::child::{Ask, Child};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info, outcome, result_name};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// Processes that accept from one listener, and connections one after the other.
const PROCESSES: usize = 4;
const CONNECTIONS: usize = 40;

/// Claims about servers of several processes.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "fork.either-side-closes",
        group: Group::Fork,
        notes: &["6.2"],
        facts: &["0.fork-close"],
        says: "After fork, either side may close the listening or the connected descriptor without affecting the other.",
        why: "close lowers the open file's count; the socket lives while any process has it (fput)",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "child-serves-first-client", is: Is::Text("hello") },
            Expect { figure: "parent-accepts", is: Is::Text("ok") },
            Expect { figure: "second-child-serves", is: Is::Text("world") },
            Expect { figure: "first-client-meanwhile", is: Is::Text("nothing") },
            Expect { figure: "first-client-when-its-child-closes", is: Is::Text("EOF") },
            Expect { figure: "second-client-then", is: Is::Text("again") },
        ],
        known: Verdict::Holds,
        measure: either_side_closes,
    },
    Claim {
        name: "fork.iterative-or-concurrent",
        group: Group::Fork,
        notes: &["5"],
        facts: &[],
        says: "A server of one process leaves the second client connected and unserved while the first is silent; a child each serves both.",
        why: "the kernel finishes handshakes for the queue whoever accepts; only the process that reads blocks",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "second-connects", is: Is::Text("connected") },
            Expect { figure: "queued", is: Is::Exactly(1.0) },
            Expect { figure: "one-process-answers", is: Is::Text("nothing") },
            Expect { figure: "another-child-answers", is: Is::Text("hello") },
        ],
        known: Verdict::Holds,
        measure: iterative_or_concurrent,
    },
    Claim {
        name: "fork.listener-over-exec",
        group: Group::Fork,
        notes: &["5"],
        facts: &["0.many-processes"],
        says: "A listener survives exec: a program that inherits it accepts on it, even after its parent has closed its own copy.",
        why: "exec keeps descriptors without FD_CLOEXEC (execve(2)); inetd and socket activation rest on it",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "child-accepts", is: Is::Text("ok") },
            Expect { figure: "client-reads", is: Is::Text("hello") },
            Expect { figure: "connect-after-the-child-ended", is: Is::Text("ECONNREFUSED") },
        ],
        known: Verdict::Holds,
        measure: listener_over_exec,
    },
    Claim {
        name: "fork.processes-accept-in-turn",
        group: Group::Fork,
        notes: &["5"],
        facts: &["0.many-processes", "5.blocking-round-robin"],
        says: "Several processes may block in accept on one inherited listener: each connection wakes one, in turn.",
        why: "they sleep on the socket's one wait queue, exclusively and in order (inet_csk_wait_for_connect)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[Expect { figure: "accepted", is: Is::Text("10, 10, 10, 10") }],
        known: Verdict::Holds,
        measure: processes_accept_in_turn,
    },
    Claim {
        name: "fork.forgotten-listener",
        group: Group::Fork,
        notes: &["5"],
        facts: &["0.fork-close"],
        says: "A child that forgets to close the listener keeps the port open: clients connect to a server that never accepts.",
        why: "LISTEN ends with the last reference; until then the kernel goes on finishing handshakes",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "connect", is: Is::Text("connected") },
            Expect { figure: "reads", is: Is::Text("nothing") },
            Expect { figure: "reads-when-the-child-ends", is: Is::Text("ECONNRESET") },
            Expect { figure: "connect-then", is: Is::Text("ECONNREFUSED") },
        ],
        known: Verdict::Holds,
        measure: forgotten_listener,
    },
];

fn either_side_closes(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (first, accepted) = talk::pair(scene, &listener, PORT)?;
    let mut first_child = Child::start(Some(&listener), Some(&accepted))?;
    // As in the notes: the parent closes the connection, the child the listener.
    drop(accepted);
    first_child.does(Ask::CloseListener)?;
    talk::send(&first, "hello")?;
    first_child.does(Ask::Echo)?;
    let first_reads = talk::read(&first, SOON)?;
    let second = scene.connect(PORT)?;
    talk::queued(&listener, 1)?;
    let result = listener.accept();
    let parent_accepts = result_name(&result);
    let (accepted, _) = result.doing("accept")?;
    let mut second_child = Child::start(Some(&listener), Some(&accepted))?;
    drop(accepted);
    second_child.does(Ask::CloseListener)?;
    talk::send(&second, "world")?;
    second_child.does(Ask::Echo)?;
    let second_reads = talk::read(&second, SOON)?;
    let meanwhile = talk::read(&first, QUIET)?;
    first_child.does(Ask::CloseConnection)?;
    let closed = talk::read(&first, SOON)?;
    talk::send(&second, "again")?;
    second_child.does(Ask::Echo)?;
    let second_then = talk::read(&second, SOON)?;
    let did = format!(
        "the child answers after the parent's close, the parent accepts ({parent_accepts}) after the child's; {closed} only at the last close"
    );
    Ok(Observed::new()
        .text("child-serves-first-client", first_reads)
        .text("parent-accepts", parent_accepts)
        .text("second-child-serves", second_reads)
        .text("first-client-meanwhile", meanwhile)
        .text("first-client-when-its-child-closes", closed)
        .text("second-client-then", second_then)
        .did(did))
}

fn iterative_or_concurrent(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let _silent = talk::queue(scene, &listener, PORT, 1)?;
    let mut one_process = Child::start(Some(&listener), None)?;
    one_process.does(Ask::Accept)?;
    // Blocks: this client says nothing.
    one_process.begin(Ask::Echo)?;
    let second = scene.connect(PORT)?;
    let connects = outcome(&second, SOON)?;
    talk::queued(&listener, 1)?;
    talk::send(&second, "hello")?;
    let alone = talk::read(&second, QUIET)?;
    let queued = info(&listener)?.unacked;
    let (accepted, _) = listener.accept().doing("accept")?;
    let mut another = Child::start(None, Some(&accepted))?;
    another.does(Ask::Echo)?;
    let answered = talk::read(&second, SOON)?;
    let did =
        format!("second client: {connects}, reads {alone} from the one process, {answered:?} from a child of its own");
    Ok(Observed::new()
        .text("second-connects", connects)
        .number("queued", queued)
        .text("one-process-answers", alone)
        .text("another-child-answers", answered)
        .did(did))
}

fn listener_over_exec(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let mut child = Child::start(Some(&listener), None)?;
    drop(listener);
    let client = scene.connect(PORT)?;
    outcome(&client, SOON)?;
    let accepts = child.does(Ask::Accept)?;
    talk::send(&client, "hello")?;
    child.does(Ask::Echo)?;
    let reads = talk::read(&client, SOON)?;
    drop(child);
    let after = outcome(&scene.connect(PORT)?, SOON)?;
    let did = format!(
        "the child's accept gives {accepts}, the client reads {reads:?}; after the child's end connect gives {after}"
    );
    Ok(Observed::new()
        .text("child-accepts", accepts)
        .text("client-reads", reads)
        .text("connect-after-the-child-ended", after)
        .did(did))
}

/// Waits until a process has gone to sleep more often than `before`.
fn sleeps_again(process: u32, before: u64) -> Result<(), ProbeError> {
    let slept = eventually(SOON, || {
        let (times, asleep) = talk::sleeps(&process.to_string())?;
        Ok(asleep && times > before)
    })?;
    if slept { Ok(()) } else { Err(ProbeError::Failed("a child does not wait in accept".to_owned())) }
}

/// How often a process has gone to sleep.
fn slept(process: u32) -> Result<u64, ProbeError> {
    eventually(SOON, || Ok(talk::sleeps(&process.to_string())?.1))?;
    Ok(talk::sleeps(&process.to_string())?.0)
}

fn processes_accept_in_turn(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 64)?;
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        let mut child = Child::start(Some(&listener), None)?;
        let before = slept(child.id())?;
        child.begin(Ask::AcceptAlways)?;
        sleeps_again(child.id(), before)?;
        children.push(child);
    }
    let mut accepted = [0; PROCESSES];
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let before = children.iter().map(|child| slept(child.id())).collect::<Result<Vec<_>, _>>()?;
        clients.push(scene.connect(PORT)?);
        let who = who_answers(&mut children)?;
        accepted[who] += 1;
        sleeps_again(children[who].id(), before[who])?;
    }
    let accepted = accepted.map(|count: u32| count.to_string()).join(", ");
    let did = format!("accepts per process: {accepted}");
    Ok(Observed::new().text("accepted", accepted).did(did))
}

/// The child that accepted.
fn who_answers(children: &mut [Child]) -> Result<usize, ProbeError> {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        for (who, child) in children.iter_mut().enumerate() {
            if child.answer_within(Duration::from_millis(1))?.is_some() {
                return Ok(who);
            }
        }
    }
    Err(ProbeError::Failed("no child accepted".to_owned()))
}

fn forgotten_listener(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let child = scene.hold(&listener)?;
    drop(listener);
    let client = scene.connect(PORT)?;
    let connect = outcome(&client, SOON)?;
    let reads = talk::read(&client, QUIET)?;
    drop(child);
    let reads_then = talk::read(&client, SOON)?;
    let connect_then = outcome(&scene.connect(PORT)?, SOON)?;
    let did =
        format!("{connect}, then {reads} to read; when the child ends: {reads_then}, and {connect_then} for the next");
    Ok(Observed::new()
        .text("connect", connect)
        .text("reads", reads)
        .text("reads-when-the-child-ends", reads_then)
        .text("connect-then", connect_then)
        .did(did))
}
