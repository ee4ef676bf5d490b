//! fork(2) and execve(2): descriptors that several processes share.
//!
//! Safe Rust has no fork without exec; a child process started by both shares its parent's sockets in the same way.

pub(crate) mod server;

use crate::child::{Ask, Child};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, result_name};
use crate::talk::{self, QUIET, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// The claims of this group about descriptors.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "fork.reference-count",
        group: Group::Fork,
        notes: &["6.1"],
        facts: &["0.close-last"],
        says: "A socket is like a file: each open descriptor counts, a child's too, and it is freed when the count reaches 0.",
        why: "descriptors share one open file; its last fput calls sock_release (fs/file_table.c, net/socket.c)",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "after-close", is: Is::Text("nothing") },
            Expect { figure: "after-close-of-the-duplicate", is: Is::Text("nothing") },
            Expect { figure: "after-the-child-ended", is: Is::Text("EOF") },
        ],
        known: Verdict::Holds,
        measure: reference_count,
    },
    Claim {
        name: "fork.exit-closes",
        group: Group::Fork,
        notes: &["5"],
        facts: &["0.close-last"],
        says: "The end of a process closes its descriptors: a child killed while it alone has a connection sends the client a FIN.",
        why: "do_exit closes every file (exit_files), SIGKILL or not; the last reference goes as with close",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "while-the-child-lives", is: Is::Text("nothing") },
            Expect { figure: "after-sigkill", is: Is::Text("EOF") },
        ],
        known: Verdict::Holds,
        measure: exit_closes,
    },
    Claim {
        name: "fork.close-on-exec",
        group: Group::Fork,
        notes: &["5"],
        facts: &["0.close-last"],
        says: "exec closes descriptors marked close-on-exec; without the mark a program started meanwhile keeps the connection open.",
        why: "begin_new_exec closes them (do_close_on_exec); accept4 marks with SOCK_CLOEXEC, plain accept does not",
        ends: Ends::Veth,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "close-with-mark", is: Is::Text("EOF") },
            Expect { figure: "close-without-mark", is: Is::Text("nothing") },
            Expect { figure: "when-that-program-ends", is: Is::Text("EOF") },
        ],
        known: Verdict::Holds,
        measure: close_on_exec,
    },
    Claim {
        name: "fork.nonblock-is-shared",
        group: Group::Fork,
        notes: &["5"],
        facts: &[],
        says: "O_NONBLOCK belongs to the socket, not to the descriptor: set in the child, the parent's accept does not block either.",
        why: "file status flags are in struct file, which fork and dup share (open(2), NOTES)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "before", is: Is::Text("blocking") },
            Expect { figure: "after", is: Is::Text("non-blocking") },
            Expect { figure: "accept-in-the-parent", is: Is::Text("EAGAIN") },
        ],
        known: Verdict::Holds,
        measure: nonblock_is_shared,
    },
    Claim {
        name: "fork.shutdown-is-shared",
        group: Group::Fork,
        notes: &[],
        facts: &["0.fork-shutdown"],
        says: "Unlike close, shutdown in one process acts on all: the client gets a FIN, and the other process cannot send any more.",
        why: "shutdown acts on the socket (inet_shutdown), not on the descriptor",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "client-reads", is: Is::Text("EOF") },
            Expect { figure: "parent-sends", is: Is::Text("EPIPE") },
            Expect { figure: "parent-reads", is: Is::Text("hello") },
        ],
        known: Verdict::Holds,
        measure: shutdown_is_shared,
    },
];

fn reference_count(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    let duplicate = accepted.try_clone().doing("duplicate the descriptor")?;
    let child = scene.hold(&accepted)?;
    drop(accepted);
    let first = talk::read(&client, QUIET)?;
    drop(duplicate);
    let second = talk::read(&client, QUIET)?;
    drop(child);
    let last = talk::read(&client, SOON)?;
    let did = format!("client reads {first} after two of three are closed, {last} when the child's copy is gone");
    Ok(Observed::new()
        .text("after-close", first)
        .text("after-close-of-the-duplicate", second)
        .text("after-the-child-ended", last)
        .did(did))
}

fn exit_closes(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    let child = Child::start(None, Some(&accepted))?;
    drop(accepted);
    let lives = talk::read(&client, QUIET)?;
    drop(child);
    let killed = talk::read(&client, SOON)?;
    let did = format!("client reads {lives} while the child lives, {killed} once it is killed");
    Ok(Observed::new().text("while-the-child-lives", lives).text("after-sigkill", killed).did(did))
}

fn close_on_exec(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    // accept marks; hold takes the mark off for the program it starts.
    let (marked_client, marked) = talk::pair(scene, &listener, PORT)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    let child = scene.hold(&accepted)?;
    drop(marked);
    let with_mark = talk::read(&marked_client, SOON)?;
    drop(accepted);
    let without_mark = talk::read(&client, QUIET)?;
    drop(child);
    let ended = talk::read(&client, SOON)?;
    let did = format!("after close: {with_mark} with the mark, {without_mark} without; {ended} when the program ends");
    Ok(Observed::new()
        .text("close-with-mark", with_mark)
        .text("close-without-mark", without_mark)
        .text("when-that-program-ends", ended)
        .did(did))
}

fn nonblock_is_shared(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    // Should accept block after all, the claim differs instead of hanging.
    listener.set_read_timeout(Some(SOON)).doing("set SO_RCVTIMEO")?;
    let mode = || {
        let nonblocking = listener.nonblocking().doing("read O_NONBLOCK")?;
        Ok::<_, ProbeError>(if nonblocking { "non-blocking" } else { "blocking" })
    };
    let mut child = Child::start(Some(&listener), None)?;
    let before = mode()?;
    child.does(Ask::Nonblock)?;
    let after = mode()?;
    let accept = result_name(&listener.accept());
    let did =
        format!("the parent's listener is {before} before, {after} after the child's call; accept gives {accept}");
    Ok(Observed::new().text("before", before).text("after", after).text("accept-in-the-parent", accept).did(did))
}

fn shutdown_is_shared(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (client, accepted) = talk::pair(scene, &listener, PORT)?;
    let mut child = Child::start(None, Some(&accepted))?;
    child.does(Ask::ShutdownConnection)?;
    let reads = talk::read(&client, SOON)?;
    let sends = talk::try_send(&accepted);
    talk::send(&client, "hello")?;
    let parent_reads = talk::read(&accepted, SOON)?;
    let did = format!("after the child's shutdown the client reads {reads}, the parent's send gives {sends}");
    Ok(Observed::new()
        .text("client-reads", reads)
        .text("parent-sends", sends)
        .text("parent-reads", parent_reads)
        .did(did))
}
