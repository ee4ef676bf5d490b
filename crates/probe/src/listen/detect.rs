//! How a client can find out that it is a phantom, while the queue stays full.

use std::time::{Duration, Instant};

use kernel::sockopt;
use rustix::event::PollFlags;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use socket2::Socket;

use super::{PORT, Phantom, SOON, SYNCOOKIES, join, phantom};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, errno_name, eventually, info, wait};

/// The claims about this.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "listen.phantom-waits-for-ever",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.detect-first-byte"],
        says: "A client that only waits for the first byte never learns that it is a phantom of either kind.",
        why: "a reader has no timer; the SYN-ACKs that are resent carry no data and no error",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "request phantom", is: Is::Text("established, nothing to read") },
            Expect { figure: "cookie phantom", is: Is::Text("established, nothing to read") },
        ],
        known: Verdict::Holds,
        measure: waits_for_ever,
    },
    Claim {
        name: "listen.phantom-shows-in-segs-in",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.detect-segs-in"],
        says: "An idle phantom with a request hears SYN-ACKs: segs_in grows without data. One of a cookie hears nothing.",
        why: "only a request has a timer that resends the SYN-ACK (reqsk_timer_handler)",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "request phantom at 0.4, 2, 4 s", is: Is::Text("1 2 3") },
            Expect { figure: "cookie phantom at 0.4, 2, 4 s", is: Is::Text("1 1 1") },
            Expect { figure: "bytes_received", is: Is::Exactly(0.0) },
        ],
        known: Verdict::Holds,
        measure: shows_in_segs_in,
    },
    Claim {
        name: "listen.phantom-shows-in-bytes-acked",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.detect-bytes-acked"],
        says: "A byte that a phantom of either kind sends stays unacknowledged and is resent; a real connection's is acknowledged.",
        why: "the kernel acknowledges what it queues, accepted or not; a phantom has no socket to queue it",
        ends: Ends::Veth,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "real", is: Is::Text("bytes_acked 2 unacked 0, not resent") },
            Expect { figure: "request phantom", is: Is::Text("bytes_acked 1 unacked 1, resent") },
            Expect { figure: "cookie phantom", is: Is::Text("bytes_acked 1 unacked 1, resent") },
        ],
        known: Verdict::Holds,
        measure: shows_in_bytes_acked,
    },
    Claim {
        name: "listen.phantom-and-user-timeout",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.detect-user-timeout"],
        says: "TCP_USER_TIMEOUT and a byte find both kinds: ETIMEDOUT at the first timer after it.",
        why: "retransmits_timed_out is asked when the retransmission timer fires (tcp_write_timeout)",
        ends: Ends::Veth,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "request phantom", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "cookie phantom", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "request phantom after", is: Is::Between(1.5, 2.5) },
            Expect { figure: "cookie phantom after", is: Is::Between(1.5, 2.5) },
        ],
        known: Verdict::Holds,
        measure: user_timeout,
    },
    Claim {
        name: "listen.phantom-and-keepalive",
        group: Group::Listen,
        notes: &[],
        facts: &["2b.detect-keepalive"],
        says: "Keepalive finds a cookie phantom (ECONNRESET at the first probe), not one with a request.",
        why: "a request answers the probe, which is out of its window (tcp_check_req); without one the listener answers RST",
        ends: Ends::Veth,
        takes: Takes::Seconds(5),
        expects: &[
            Expect { figure: "request phantom", is: Is::Text("nothing in 4 s") },
            Expect { figure: "cookie phantom", is: Is::Text("ECONNRESET") },
            Expect { figure: "cookie phantom after", is: Is::Between(0.98, 1.14) },
            Expect { figure: "server.SyncookiesFailed", is: Is::Exactly(1.0) },
        ],
        known: Verdict::Holds,
        measure: keepalive,
    },
];

/// A phantom with a request and one of a cookie, and how long they are that.
fn both(scene: &Scene) -> Result<(Phantom, Phantom, Instant), ProbeError> {
    let began = Instant::now();
    scene.sysctl(SYNCOOKIES, 0)?;
    let request = phantom(scene, PORT)?;
    scene.sysctl(SYNCOOKIES, 2)?;
    let cookie = phantom(scene, PORT + 1)?;
    eventually(SOON, || scene.server_counter("ListenOverflows").map(|count| count == 2))?;
    Ok((request, cookie, began))
}

fn sleep_until(began: Instant, after: Duration) {
    std::thread::sleep(after.saturating_sub(began.elapsed()));
}

fn waits_for_ever(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (request, cookie, began) = both(scene)?;
    sleep_until(began, Duration::from_millis(3500));
    let look = |client: &Socket| {
        let readable = wait(client, PollFlags::IN, Duration::ZERO)?;
        let readable = if readable.is_empty() { "nothing to read" } else { "something to read" };
        Ok::<_, ProbeError>(format!("{}, {readable}", info(client)?.state.name()))
    };
    let (request, cookie) = (look(&request.client)?, look(&cookie.client)?);
    let did = format!("after 3.5 s: with a request {request}; of a cookie {cookie}");
    Ok(Observed::new().text("request phantom", request).text("cookie phantom", cookie).did(did))
}

fn shows_in_segs_in(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (request, cookie, began) = both(scene)?;
    let mut segs = (Vec::new(), Vec::new());
    let mut received = 0;
    for after in [400, 2000, 4000] {
        sleep_until(began, Duration::from_millis(after));
        let (request, cookie) = (info(&request.client)?, info(&cookie.client)?);
        segs.0.push(request.segs_in);
        segs.1.push(cookie.segs_in);
        received = request.bytes_received + cookie.bytes_received;
    }
    let (request, cookie) = (join(segs.0), join(segs.1));
    let did =
        format!("segs_in at 0.4, 2, 4 s: {request} with a request, {cookie} of a cookie; bytes_received {received}");
    Ok(Observed::new()
        .text("request phantom at 0.4, 2, 4 s", request)
        .text("cookie phantom at 0.4, 2, 4 s", cookie)
        .number("bytes_received", received as f64)
        .did(did))
}

fn shows_in_bytes_acked(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let (request, cookie, _) = both(scene)?;
    let clients = [&request.real, &request.client, &cookie.client];
    for client in clients {
        client.send(b"x").doing("send")?;
    }
    eventually(SOON, || Ok(info(clients[1])?.total_retrans >= 2 && info(clients[2])?.total_retrans >= 2))?;
    let look = |client: &Socket| {
        let info = info(client)?;
        let resent = if info.total_retrans == 0 { "not resent" } else { "resent" };
        Ok::<_, ProbeError>(format!("bytes_acked {} unacked {}, {resent}", info.bytes_acked, info.unacked))
    };
    let (real, request, cookie) = (look(clients[0])?, look(clients[1])?, look(clients[2])?);
    let did = format!("after a byte: real {real}; with a request {request}; of a cookie {cookie}");
    Ok(Observed::new().text("real", real).text("request phantom", request).text("cookie phantom", cookie).did(did))
}

/// The error that a socket gets by `limit`, and when.
fn error_of(client: &Socket, since: Instant, limit: Duration) -> Result<(String, f64), ProbeError> {
    let left = limit.saturating_sub(since.elapsed());
    if wait(client, PollFlags::IN, left)?.is_empty() {
        return Ok((format!("nothing in {} s", limit.as_secs()), since.elapsed().as_secs_f64()));
    }
    let after = since.elapsed().as_secs_f64();
    let error = client.take_error().doing("read SO_ERROR")?;
    Ok((error.map_or_else(|| "no error".to_owned(), |error| errno_name(&error)), after))
}

fn user_timeout(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const LIMIT: Duration = Duration::from_secs(4);
    let (request, cookie, _) = both(scene)?;
    let began = Instant::now();
    for client in [&request.client, &cookie.client] {
        sockopt::set_user_timeout(client, 1500).doing("set TCP_USER_TIMEOUT")?;
        client.send(b"x").doing("send")?;
    }
    let cookie = error_of(&cookie.client, began, LIMIT)?;
    let request = error_of(&request.client, began, LIMIT)?;
    let did = format!("TCP_USER_TIMEOUT 1.5 s, a byte: with a request {}, of a cookie {}", request.0, cookie.0);
    Ok(Observed::new()
        .text("request phantom", request.0)
        .text("cookie phantom", cookie.0)
        .number("request phantom after", request.1)
        .number("cookie phantom after", cookie.1)
        .did(did))
}

fn keepalive(scene: &mut Scene) -> Result<Observed, ProbeError> {
    const SECOND: Duration = Duration::from_secs(1);
    let (request, cookie, _) = both(scene)?;
    let began = Instant::now();
    for client in [&request.client, &cookie.client] {
        set_tcp_keepidle(client, SECOND).doing("set TCP_KEEPIDLE")?;
        set_tcp_keepintvl(client, SECOND).doing("set TCP_KEEPINTVL")?;
        set_tcp_keepcnt(client, 2).doing("set TCP_KEEPCNT")?;
        set_socket_keepalive(client, true).doing("set SO_KEEPALIVE")?;
    }
    let cookie = error_of(&cookie.client, began, Duration::from_secs(4))?;
    let request = error_of(&request.client, began, Duration::from_secs(4))?;
    let did = format!("keepalive idle 1 s, two probes: with a request {}, of a cookie {}", request.0, cookie.0);
    Ok(Observed::new()
        .text("request phantom", request.0)
        .text("cookie phantom", cookie.0)
        .number("cookie phantom after", cookie.1)
        .did(did))
}
