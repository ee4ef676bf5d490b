//! The ways in which connect(2) returns before the connection stands or has failed, and that the handshake goes on.

use std::io;
use std::time::{Duration, Instant};

use kernel::{process, sockopt};
use rustix::event::PollFlags;
use socket2::Socket;

use super::{AT_ONCE, FREED, FullListener, PORT, in_syn_sent, received};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, info, outcome, result_name, wait};

/// How long a blocking connect may take here: it ends before the first SYN is sent again.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);
/// The SYN sent again at 1 s finds room.
const SECOND_SYN: Duration = Duration::from_secs(3);

/// The claims about early returns.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.non-blocking-returns-early",
        group: Group::Connect,
        notes: &[],
        facts: &[],
        says: "On a non-blocking socket connect gives EINPROGRESS and again EALREADY; when it is writable, SO_ERROR tells.",
        why: "with O_NONBLOCK the wait is skipped (net/ipv4/af_inet.c, __inet_stream_connect); later calls report \
              SS_CONNECTING as EALREADY and then, once, success",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "connects", is: Is::Text("EINPROGRESS, EALREADY") },
            Expect { figure: "writable", is: Is::Text("connected") },
            Expect { figure: "later", is: Is::Text("ok, EISCONN") },
        ],
        known: Verdict::Holds,
        measure: non_blocking,
    },
    Claim {
        name: "connect.sndtimeo-returns-early",
        group: Group::Connect,
        notes: &[],
        facts: &["0.sndtimeo"],
        says: "SO_SNDTIMEO ends a blocking connect with EINPROGRESS, not ETIMEDOUT; the socket goes on in SYN_SENT.",
        why: "the send time-out is how long inet_wait_for_connect sleeps (net/ipv4/af_inet.c); the connection itself has \
              not failed, and its retransmission timer runs on",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "connect", is: Is::Text("EINPROGRESS") },
            Expect { figure: "returned-s", is: Is::Between(0.19, 0.95) },
            Expect { figure: "state", is: Is::Text("syn_sent") },
            Expect { figure: "later", is: Is::Text("connected") },
        ],
        known: Verdict::Holds,
        measure: send_timeout,
    },
    Claim {
        name: "connect.signal-returns-early",
        group: Group::Connect,
        notes: &[],
        facts: &[],
        says: "A signal ends a blocking connect with EINTR; the handshake goes on, and a second connect does not restart it.",
        why: "inet_wait_for_connect leaves its sleep for a signal; connect(2) then is under way as after EINPROGRESS \
              (POSIX says so too)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "connect", is: Is::Text("EINTR") },
            Expect { figure: "state", is: Is::Text("syn_sent") },
            Expect { figure: "later", is: Is::Text("connected") },
            // One of them filled the queue.
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Holds,
        measure: signal,
    },
    Claim {
        name: "connect.fastopen-connect-sends-nothing",
        group: Group::Connect,
        notes: &[],
        facts: &["11.fastopen-connect"],
        says: "With TCP_FASTOPEN_CONNECT connect returns success before a SYN is sent, even where nobody listens.",
        why: "connect is put off until there is data for the SYN to carry (net/ipv4/tcp_fastopen.c, \
              tcp_fastopen_defer_connect)",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "connect", is: Is::Text("ok") },
            Expect { figure: "opens-after-connect", is: Is::Exactly(0.0) },
            Expect { figure: "read", is: Is::Text("ECONNREFUSED") },
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: fastopen_connect,
    },
    Claim {
        name: "connect.close-in-syn-sent",
        group: Group::Connect,
        notes: &[],
        facts: &["11.syn-sent-close"],
        says: "Closing a socket in SYN_SENT sends nothing and is no failed attempt: AttemptFails stays.",
        why: "tcp_close of a socket in SYN_SENT only destroys it (net/ipv4/tcp.c, tcp_close_state); AttemptFails counts in \
              tcp_done, which it does not pass",
        ends: Ends::Veth,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "was-in-syn-sent", is: Is::Text("yes") },
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(2.0) },
            Expect { figure: "client.AttemptFails", is: Is::Exactly(0.0) },
            Expect { figure: "client.OutRsts", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: close_in_syn_sent,
    },
];

fn non_blocking(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let full = FullListener::new(scene, PORT)?;
    let client = scene.client_socket()?;
    let address = scene.address(PORT).into();
    let connect = || result_name(&client.connect(&address));
    let connects = format!("{}, {}", connect(), connect());
    let accepted = full.free()?;
    let writable = outcome(&client, SECOND_SYN)?;
    let later = format!("{}, {}", connect(), connect());
    drop(accepted);
    let did = format!("connect gives {connects}; when writable {writable}; connect again gives {later}");
    Ok(Observed::new().text("connects", connects).text("writable", writable).text("later", later).did(did))
}

fn send_timeout(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let full = FullListener::new(scene, PORT)?;
    let client = scene.socket()?;
    client.set_write_timeout(Some(SEND_TIMEOUT)).doing("set SO_SNDTIMEO")?;
    let began = Instant::now();
    let connect = result_name(&client.connect(&scene.address(PORT).into()));
    let returned = began.elapsed().as_secs_f64();
    let state = info(&client)?.state.name();
    let _accepted = full.free()?;
    let later = outcome(&client, SECOND_SYN)?;
    let did = format!("SO_SNDTIMEO=0.2 s: connect gives {connect}, in {state}; with the next SYN it is {later}");
    Ok(Observed::new()
        .text("connect", connect)
        .number("returned-s", returned)
        .text("state", state)
        .text("later", later)
        .did(did))
}

fn signal(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let full = FullListener::new(scene, PORT)?;
    let client = scene.socket()?;
    let address = scene.address(PORT).into();
    let connecting = {
        let client = client.try_clone().doing("copy the client's descriptor")?;
        std::thread::spawn(move || -> io::Result<String> { Ok(result_name(&client.connect(&address))) })
    };
    // A signal before the system call is lost, so the first comes when the SYN is out and others follow.
    let limit = Instant::now() + AT_ONCE;
    while !in_syn_sent(&client)? && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(FREED / 3);
    while !connecting.is_finished() && Instant::now() < limit {
        process::interrupt(&connecting).doing("interrupt connect")?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let state = info(&client)?.state.name();
    let _accepted = full.free()?;
    let connect = super::join(connecting)?;
    let later = second_connect(&client, scene)?;
    let did = format!("connect gives {connect}, in {state}; the next SYN finds room: {later}");
    Ok(Observed::new().text("connect", connect).text("state", state).text("later", later).did(did))
}

/// connect(2) once more on a socket that is under way; how it ended.
fn second_connect(client: &Socket, scene: &Scene) -> Result<String, ProbeError> {
    client.set_nonblocking(true).doing("set O_NONBLOCK")?;
    let again = result_name(&client.connect(&scene.address(PORT).into()));
    if again != "EALREADY" {
        return Ok(again);
    }
    wait(client, PollFlags::OUT, SECOND_SYN)?;
    outcome(client, AT_ONCE)
}

fn fastopen_connect(scene: &mut Scene) -> Result<Observed, ProbeError> {
    // Client (1), and data without a cookie (4).
    scene.sysctl("net.ipv4.tcp_fastopen", 5)?;
    let client = scene.client_socket()?;
    sockopt::set_fastopen_connect(&client, true).doing("set TCP_FASTOPEN_CONNECT")?;
    let connect = result_name(&client.connect(&scene.address(PORT).into()));
    let opens = scene.client_counter("ActiveOpens")?;
    // The write sends the SYN; on a non-blocking socket it is only under way.
    let mut writer = &client;
    let _ = io::Write::write(&mut writer, b"x");
    let read = received(&client, AT_ONCE)?;
    let did = format!("no listener: connect gives {connect} with {opens} SYNs sent; after a write, read gives {read}");
    Ok(Observed::new().text("connect", connect).number("opens-after-connect", opens as f64).text("read", read).did(did))
}

fn close_in_syn_sent(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let _full = FullListener::new(scene, PORT)?;
    let client = scene.connect(PORT)?;
    let waiting = if in_syn_sent(&client)? { "yes" } else { "no" };
    drop(client);
    let fails = scene.client_counter("AttemptFails")?;
    Ok(Observed::new()
        .text("was-in-syn-sent", waiting)
        .did(format!("closed in SYN_SENT: AttemptFails +{fails}, no RST")))
}
