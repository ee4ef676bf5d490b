//! What the kernel tells of the two queues, and what it keeps to itself.

use std::os::fd::AsFd;

use kernel::sockopt;

use super::{PORT, SOON, SYNCOOKIES, await_syn_recv, depth, diag, drops, fill, half_open, join, limit};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually};

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.depth-and-limit-are-told",
        group: Group::Listen,
        notes: &[],
        facts: &["1.read-limit", "9.queue-and-limit", "9.drops"],
        says: "TCP_INFO and sock_diag (ss) tell the same depth, limit and drops of a listener; a full one has limit + 1.",
        why: "both read sk_ack_backlog, sk_max_ack_backlog and sk_drops (tcp_get_info, tcp_diag_get_info)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "TCP_INFO", is: Is::Text("6 5 2") },
            Expect { figure: "sock_diag", is: Is::Text("6 5 2") },
        ],
        known: Verdict::Holds,
        measure: depth_and_limit,
    },
    Claim {
        name: "listen.requests-are-not-told",
        group: Group::Listen,
        notes: &[],
        facts: &["9.syn-recv"],
        says: "The number of requests is nowhere in TCP_INFO or sock_diag of the listener; only a dump of SYN_RECV counts them.",
        why: "tcp_get_info and tcp_diag_get_info leave icsk_accept_queue.qlen out",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "TCP_INFO", is: Is::Text("0 8 0") },
            Expect { figure: "sock_diag", is: Is::Text("0 8 0") },
            Expect { figure: "dump", is: Is::Exactly(5.0) },
        ],
        known: Verdict::Holds,
        measure: requests_are_not_told,
    },
    Claim {
        name: "listen.requests-have-no-owner",
        group: Group::Listen,
        notes: &[],
        facts: &["9.not-attributable"],
        says: "Requests are listed without the listener's inode, and still listed when it is closed.",
        why: "get_openreq4 prints inode 0 (net/ipv4/tcp_ipv4.c): a request is not a socket with a file",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "inodes", is: Is::Text("0 0 0") },
            Expect { figure: "after close", is: Is::Exactly(3.0) },
        ],
        known: Verdict::Holds,
        measure: requests_have_no_owner,
    },
    Claim {
        name: "listen.proc-net-tcp-has-no-limit",
        group: Group::Listen,
        notes: &[],
        facts: &["9.proc-net-tcp"],
        says: "/proc/net/tcp shows the depth of the accept queue and not its limit.",
        why: "get_tcp4_sock prints sk_ack_backlog as rx_queue; tx_queue of a listener is 0 (net/ipv4/tcp_ipv4.c)",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "rx_queue", is: Is::Exactly(3.0) },
            Expect { figure: "tx_queue", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: proc_net_tcp,
    },
];

/// Depth, limit and drops by both ways.
fn told(listener: &socket2::Socket) -> Result<(String, String), ProbeError> {
    let entry = diag(PORT)?;
    let own = join([depth(listener)?, limit(listener)?, drops(listener)?]);
    Ok((own, join([entry.depth, entry.limit, entry.drops.unwrap_or(u32::MAX)])))
}

fn depth_and_limit(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 5)?;
    let _clients = scene.connect_many(8, PORT)?;
    eventually(SOON, || Ok(drops(&listener)? >= 2))?;
    let (own, diag) = told(&listener)?;
    let did =
        format!("full, 2 SYNs dropped: depth, limit, drops {own} in TCP_INFO and SO_MEMINFO, {diag} in sock_diag");
    Ok(Observed::new().text("TCP_INFO", own).text("sock_diag", diag).did(did))
}

fn requests_are_not_told(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let _clients = half_open(scene, 5, PORT)?;
    let dump = await_syn_recv(scene, PORT, 5)?;
    let (own, diag) = told(&listener)?;
    let did = format!("{dump} requests in the dump; depth, limit, drops {own} in TCP_INFO, {diag} in sock_diag");
    Ok(Observed::new().text("TCP_INFO", own).text("sock_diag", diag).number("dump", dump).did(did))
}

/// A line of /proc/net/tcp: local port, state, `tx_queue`, `rx_queue`, inode.
struct ProcLine {
    port: u16,
    state: u8,
    queues: (u32, u32),
    inode: u64,
}

/// Lines of /proc/net/tcp about a port of this end.
fn proc_lines(port: u16) -> Result<Vec<ProcLine>, ProbeError> {
    let text = std::fs::read_to_string("/proc/thread-self/net/tcp").doing("read /proc/net/tcp")?;
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (tx, rx) = fields.get(4)?.split_once(':')?;
        Some(ProcLine {
            port: u16::from_str_radix(fields.get(1)?.split_once(':')?.1, 16).ok()?,
            state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
            queues: (u32::from_str_radix(tx, 16).ok()?, u32::from_str_radix(rx, 16).ok()?),
            inode: fields.get(9)?.parse().ok()?,
        })
    };
    Ok(text.lines().filter_map(parse).filter(|line| line.port == port).collect())
}

fn requests_have_no_owner(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const SYN_RECV: u8 = 3;
    scene.sysctl(SYNCOOKIES, 0)?;
    let listener = scene.listen(PORT, 8)?;
    // The clients hear nothing, so that closing the listener does not reach them.
    let _clients = half_open(scene, 3, PORT)?;
    await_syn_recv(scene, PORT, 3)?;
    let lines = proc_lines(PORT)?;
    let inodes = join(lines.iter().filter(|line| line.state == SYN_RECV).map(|line| line.inode));
    sockopt::drop_all_filter(listener.as_fd()).doing("attach a filter to the listener")?;
    drop(listener);
    let after = scene.syn_recv(PORT)?;
    let did = format!("3 requests with inodes {inodes}; {after} of them listed after the listener is closed");
    Ok(Observed::new().text("inodes", inodes).number("after close", after).did(did))
}

fn proc_net_tcp(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const LISTEN: u8 = 10;
    let listener = scene.listen(PORT, 5)?;
    let _clients = fill(scene, 3, PORT)?;
    eventually(SOON, || Ok(depth(&listener)? == 3))?;
    let lines = proc_lines(PORT)?;
    let line = lines.iter().find(|line| line.state == LISTEN);
    let (tx, rx) = line.ok_or_else(|| ProbeError::Failed("the listener has no line".to_owned()))?.queues;
    let did = format!("3 queued, backlog 5: rx_queue {rx}, tx_queue {tx}");
    Ok(Observed::new().number("rx_queue", rx).number("tx_queue", tx).did(did))
}
