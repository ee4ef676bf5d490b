//! How long a connection waited in the accept queue, and how a server can tell.

use std::thread;
use std::time::{Duration, Instant};

use kernel::{process, sockopt};

use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, eventually, info};
use crate::talk::{self, SOON};

/// A port of the server's end below every ephemeral range.
const PORT: u16 = 9700;

/// Half of the wait that is measured.
const STEP: Duration = Duration::from_millis(200);

/// The wait that a client's stamp tells.
const STAMPED_WAIT: Duration = Duration::from_millis(50);

/// How far off a stamp may be, in seconds.
const STAMP_OFF: f64 = 0.005;

/// A try in which connect and send, or accept and read, took longer than this was interrupted and says nothing.
const AT_ONCE: Duration = Duration::from_millis(2);

/// Tries to get through uninterrupted.
const TRIES: usize = 20;

/// Ticks are 10 ms at most, and one may be missing at either end.
const TICKS: Is = Is::Between(-0.021, 0.021);

/// Claims about the wait in the accept queue.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "accept.wait-by-last-data-sent",
        group: Group::Accept,
        notes: &[],
        facts: &["10.last-data-sent", "10.last-data-recv"],
        says: "Right after accept, tcpi_last_data_sent is the time spent in the accept queue, whatever the client sent meanwhile.",
        why: "tcp_create_openreq_child sets lsndtime when the connection is made; only sending moves it, while \
              last_data_recv starts again with the client's data",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "last-data-sent-off", is: TICKS },
            Expect { figure: "last-data-recv-off", is: TICKS },
        ],
        known: Verdict::Holds,
        measure: wait_by_last_data_sent,
    },
    Claim {
        name: "accept.wait-after-a-late-ack",
        group: Group::Accept,
        notes: &[],
        facts: &["10.phantom-clock", "2b.late-admission"],
        says: "A handshake that ended late shows at accept: one SYN-ACK retransmission, an RTT of a second, a wait counted from the late ACK.",
        why: "the request hands num_retrans, num_timeout and the SYN-ACK's time to the socket it becomes \
              (tcp_create_openreq_child); lsndtime is the moment of the late ACK",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "total-retrans", is: Is::Exactly(1.0) },
            Expect { figure: "total-rto-time", is: Is::Between(0.92, 1.14) },
            Expect { figure: "rtt", is: Is::Between(0.92, 1.14) },
            Expect { figure: "wait-counts-from", is: Is::Between(0.92, 1.14) },
        ],
        known: Verdict::Holds,
        measure: wait_after_a_late_ack,
    },
    Claim {
        name: "accept.timestamps-inherited",
        group: Group::Accept,
        notes: &[],
        facts: &["0.accept-flags", "10.timestampns"],
        says: "An accepted socket inherits SO_TIMESTAMPNS: the stamp on its first data tells how long that data waited for accept.",
        why: "inet_csk_clone_lock copies the listener's socket flags, SOCK_RCVTSTAMPNS among them; tcp_recv_timestamp \
              reports the stamp of the segment",
        ends: Ends::Loopback,
        takes: Takes::Seconds(1),
        expects: &[
            Expect { figure: "stamped", is: Is::Exactly(1.0) },
            Expect { figure: "age-off", is: Is::Between(-0.001, 0.001) },
        ],
        known: Verdict::Holds,
        measure: timestamps_inherited,
    },
    Claim {
        name: "accept.wait-by-the-clients-stamp",
        group: Group::Accept,
        notes: &[],
        facts: &["10.client-stamp"],
        says: "The time in a client's first bytes tells a server on the same machine how long the connection waited for accept.",
        why: "CLOCK_MONOTONIC is one clock for all processes of a machine (clock_gettime(2)), and over loopback connect \
              returns with the connection queued",
        ends: Ends::Loopback,
        takes: Takes::Moment,
        expects: &[
            Expect { figure: "wait-off", is: Is::Between(-STAMP_OFF, STAMP_OFF) },
            Expect { figure: "last-data-sent-off", is: Is::Between(-0.015, 0.015) },
        ],
        known: Verdict::Holds,
        measure: wait_by_client_stamp,
    },
];

/// How far `reported` is outside of what is possible, in seconds: 0 within, negative when too little.
fn off(reported: f64, least: Duration, most: Duration) -> f64 {
    let (least, most) = (least.as_secs_f64(), most.as_secs_f64());
    if reported < least { reported - least } else { (reported - most).max(0.0) }
}

fn wait_by_last_data_sent(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let before_connect = Instant::now();
    let client = scene.connect(PORT)?;
    talk::queued(&listener, 1)?;
    let after_connect = Instant::now();
    thread::sleep(STEP);
    let before_send = Instant::now();
    talk::send(&client, "hello")?;
    let after_send = Instant::now();
    thread::sleep(STEP);
    let before_accept = Instant::now();
    let (accepted, _) = listener.accept().doing("accept")?;
    let seen = info(&accepted)?;
    let now = Instant::now();
    let sent = off(f64::from(seen.last_data_sent_ms) / 1e3, before_accept - after_connect, now - before_connect);
    let received = off(f64::from(seen.last_data_recv_ms) / 1e3, before_accept - after_send, now - before_send);
    Ok(Observed::new()
        .number("last-data-sent-off", sent)
        .number("last-data-recv-off", received)
        .did("last_data_sent tells the wait in the queue to a tick; last_data_recv only the age of the client's data"))
}

fn wait_after_a_late_ack(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    let (_client, began) = talk::late_client(scene, &listener, PORT)?;
    let (accepted, _) = listener.accept().doing("accept")?;
    let (seen, entered) = (info(&accepted)?, talk::entered(&accepted, began)?);
    let did = format!(
        "at accept: total_retrans {}, total_rto_time and rtt about 1 s; the wait counts from 1 s on",
        seen.total_retrans
    );
    Ok(Observed::new()
        .number("total-retrans", seen.total_retrans)
        .number("total-rto-time", f64::from(seen.total_rto_time_ms) / 1e3)
        .number("rtt", f64::from(seen.rtt_us) / 1e6)
        .number("wait-counts-from", entered)
        .did(did))
}

fn timestamps_inherited(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    sockopt::set_receive_timestamps(&listener, true).doing("set SO_TIMESTAMPNS")?;
    let realtime = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let mut buffer = [0; 16];
    // The machine's first stamping socket turns stamping on a little later (see set_receive_timestamps).
    let stamps = eventually(SOON, || {
        let (client, accepted) = talk::pair(scene, &listener, PORT)?;
        talk::send(&client, "early")?;
        talk::wait_for_bytes(&accepted, 1)?;
        Ok(sockopt::recv_stamped(&accepted, &mut buffer).doing("read")?.1.is_some())
    })?;
    let client = scene.connect(PORT)?;
    talk::queued(&listener, 1)?;
    let before_send = realtime();
    talk::send(&client, "hello")?;
    let after_send = realtime();
    thread::sleep(STEP);
    let (accepted, _) = listener.accept().doing("accept")?;
    let (_, stamp) = sockopt::recv_stamped(&accepted, &mut buffer).doing("read")?;
    let stamp = stamp.map(|stamp| stamp.realtime_ns as f64 / 1e9);
    let inside =
        stamp.map_or(
            f64::NAN,
            |stamp| {
                if stamp < before_send { stamp - before_send } else { (stamp - after_send).max(0.0) }
            },
        );
    let stamped = stamps && stamp.is_some();
    let did = if stamped {
        "the accepted socket stamps what it receives; the stamp is the moment the data was sent"
    } else {
        "the accepted socket does not stamp what it receives"
    };
    Ok(Observed::new().number("stamped", u8::from(stamped)).number("age-off", inside).did(did))
}

fn wait_by_client_stamp(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let listener = scene.listen(PORT, 8)?;
    for _ in 0..TRIES {
        let began = Instant::now();
        let client = scene.connect(PORT)?;
        let queued = Instant::now();
        talk::send(&client, &process::monotonic_ns().to_string())?;
        let at_once = began.elapsed() < AT_ONCE;
        thread::sleep(STAMPED_WAIT);
        let known = queued.elapsed().as_secs_f64();
        let accepting = Instant::now();
        let (accepted, _) = listener.accept().doing("accept")?;
        let now = process::monotonic_ns();
        let kernel = f64::from(info(&accepted)?.last_data_sent_ms) / 1e3;
        if !at_once || accepting.elapsed() >= AT_ONCE {
            continue;
        }
        let stamp = talk::read(&accepted, SOON)?;
        let stamp: u64 = stamp.parse().map_err(|_| ProbeError::Failed(format!("{stamp:?} is no time")))?;
        let wait = Duration::from_nanos(now.saturating_sub(stamp)).as_secs_f64();
        let told = if (wait - known).abs() <= STAMP_OFF { "as old as the wait, to 5 ms" } else { "of another age" };
        return Ok(Observed::new()
            .number("wait-off", wait - known)
            .number("last-data-sent-off", wait - kernel)
            .did(format!("after 50 ms in the queue the client's stamp was {told}")));
    }
    Err(ProbeError::Failed(format!("interrupted in each of {TRIES} tries")))
}
