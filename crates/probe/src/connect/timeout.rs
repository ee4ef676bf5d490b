//! A SYN that nobody answers: when it is sent again and when connect(2) gives up.

use std::time::{Duration, Instant};

use kernel::sockopt;
use socket2::Socket;

use super::schedule::{Attempt, Schedule};
use super::{FullListener, PORT};
use crate::claim::{Claim, Doing, Ends, Expect, Group, Is, Observed, ProbeError, Takes, Verdict};
use crate::scene::{Scene, start};

const RETRIES: &str = "net.ipv4.tcp_syn_retries";
const LINEAR: &str = "net.ipv4.tcp_syn_linear_timeouts";

/// The defaults of Linux 6.18 (`tcp_syn_retries` 6, `tcp_syn_linear_timeouts` 4).
const DEFAULT: (i32, u32) = (6, 4);

/// The claims about time-outs.
pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "connect.timeout-in-the-notes",
        group: Group::Connect,
        notes: &["1.2"],
        facts: &["0.syn-retry-grid"],
        says: "An unanswered SYN is sent again after 6 s, then 24 s; after 75 s in all connect gives ETIMEDOUT.",
        why: "that was 4.4BSD; Linux starts with 1 s (RFC 6298) and sends tcp_syn_linear_timeouts more at 1 s before it \
              doubles. Watched for 7.5 s here, which decides it; the rest is in the full run",
        ends: Ends::Loopback,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "second-syn-s", is: Is::Between(5.5, 6.5) },
            Expect { figure: "syns-within-7.5-s", is: Is::Exactly(2.0) },
        ],
        known: Verdict::Differs,
        measure: notes_timeout,
    },
    Claim {
        name: "connect.default-retries",
        group: Group::Connect,
        notes: &[],
        facts: &["0.syn-retry-grid"],
        says: "With the defaults an unanswered SYN is sent again after 1, 2, 3, 4, 5 and 7 s.",
        why: "tcp_syn_linear_timeouts (4) is the number of time-outs that do not double the next one \
              (net/ipv4/tcp_timer.c, tcp_retransmit_timer); Linux 6.5 and later",
        ends: Ends::Loopback,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 2, 3, 4, 5, 7") },
            Expect { figure: "ended", is: Is::Text("SYN_SENT") },
        ],
        known: Verdict::Holds,
        measure: default_retries,
    },
    Claim {
        name: "connect.default-timeout",
        group: Group::Connect,
        notes: &[],
        facts: &["0.syn-retry-grid", "4.rule"],
        says: "With the defaults connect gives ETIMEDOUT after 131 s, which timers make up to 5 s later.",
        why: "2^7 - 1 = 127 s must have passed (6 retries), and the first timer past that is at 131 s; a timer of 64 s may \
              be 2 s late (kernel/time/timer.c)",
        ends: Ends::Loopback,
        takes: Takes::Full(140),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("131") },
        ],
        known: Verdict::Holds,
        measure: default_timeout,
    },
    Claim {
        name: "connect.default-timeout-linear-0",
        group: Group::Connect,
        notes: &[],
        facts: &["0.syn-retry-grid", "4.rule"],
        says: "Without linear time-outs (as before Linux 6.5) SYNs go out at 0, 1, 3, 7, 15, 31, 63 s, ETIMEDOUT at 127 s.",
        why: "each time-out doubles from 1 s (net/ipv4/tcp_timer.c); 6 retries make 2^7 - 1 s",
        ends: Ends::Loopback,
        takes: Takes::Full(136),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 3, 7, 15, 31, 63") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("127") },
        ],
        known: Verdict::Holds,
        measure: default_timeout_linear_0,
    },
    Claim {
        name: "connect.timeout-retries-1",
        group: Group::Connect,
        notes: &[],
        facts: &["4.retries-1-linear-4", "4.rule"],
        says: "tcp_syn_retries=1 with 4 linear time-outs: SYNs at 0, 1, 2 s, ETIMEDOUT at 3 s.",
        why: "connect gives up at the first timer past 2^(n+1) - 1 s (retransmits_timed_out); linear time-outs only put more \
              SYNs before it",
        ends: Ends::Loopback,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 2") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("3") },
        ],
        known: Verdict::Holds,
        measure: retries_1,
    },
    Claim {
        name: "connect.timeout-retries-2",
        group: Group::Connect,
        notes: &[],
        facts: &["4.retries-2-linear-0", "4.rule", "4.counters", "2a.client-counters"],
        says: "tcp_syn_retries=2 without linear ones: SYNs at 0, 1, 3 s, ETIMEDOUT at 7 s; TCPTimeouts counts retransmissions \
               and the end.",
        why: "tcp_retransmit_timer counts each expiry; TCPLostRetransmit counts a retransmission lost again, so from the \
              second; AttemptFails and TCPAbortOnTimeout count the attempt",
        ends: Ends::Veth,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 3") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("7") },
            Expect { figure: "client.TCPTimeouts", is: Is::Exactly(3.0) },
            Expect { figure: "client.TCPSynRetrans", is: Is::Exactly(2.0) },
            Expect { figure: "client.RetransSegs", is: Is::Exactly(2.0) },
            Expect { figure: "client.TCPLostRetransmit", is: Is::Exactly(1.0) },
            Expect { figure: "client.TCPAbortOnTimeout", is: Is::Exactly(1.0) },
            Expect { figure: "client.AttemptFails", is: Is::Exactly(1.0) },
            // One of them filled the queue.
            Expect { figure: "client.ActiveOpens", is: Is::Exactly(2.0) },
            Expect { figure: "server.ListenOverflows", is: Is::Exactly(3.0) },
        ],
        known: Verdict::Holds,
        measure: retries_2,
    },
    Claim {
        name: "connect.timeout-retries-3",
        group: Group::Connect,
        notes: &[],
        facts: &["4.retries-3-linear-1", "4.rule"],
        says: "tcp_syn_retries=3 with 1 linear time-out: SYNs at 0, 1, 2, 4, 8 s, ETIMEDOUT at 16 s.",
        why: "the first timer past 2^4 - 1 = 15 s is at 16 s (net/ipv4/tcp_timer.c, retransmits_timed_out)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(18),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 2, 4, 8") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("16") },
        ],
        known: Verdict::Holds,
        measure: retries_3,
    },
    Claim {
        name: "connect.timeout-syncnt",
        group: Group::Connect,
        notes: &[],
        facts: &["4.syncnt", "4.rule"],
        says: "TCP_SYNCNT=2 is tcp_syn_retries=2 for one socket: with 4 linear time-outs SYNs at 0 to 5 s, ETIMEDOUT at 7 s.",
        why: "tcp_write_timeout (net/ipv4/tcp_timer.c) takes the socket's icsk_syn_retries before the sysctl",
        ends: Ends::Loopback,
        takes: Takes::Seconds(8),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 2, 3, 4, 5") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("7") },
        ],
        known: Verdict::Holds,
        measure: syncnt,
    },
    Claim {
        name: "connect.timeout-rule",
        group: Group::Connect,
        notes: &[],
        facts: &["4.rule"],
        says: "connect gives up at the first timer past 2^(n+1) - 1 s: with 4 linear time-outs and n = 1, 2, 3 at 3, 7, 19 s.",
        why: "n retries set a time and not a number of SYNs (net/ipv4/tcp_timer.c, tcp_write_timeout, retransmits_timed_out); \
              for n = 3 that is 15 s, between timers at 11 and 19 s",
        ends: Ends::Loopback,
        takes: Takes::Seconds(21),
        expects: &[
            Expect { figure: "ends-s", is: Is::Text("3, 7, 19") },
            Expect { figure: "syns", is: Is::Text("3, 6, 8") },
        ],
        known: Verdict::Holds,
        measure: rule,
    },
    Claim {
        name: "connect.user-timeout-short",
        group: Group::Connect,
        notes: &[],
        facts: &["4.user-timeout-short"],
        says: "TCP_USER_TIMEOUT=300 does not end connect at 0.3 s: it acts at the first retransmission, 1 s.",
        why: "it is checked only when the retransmission timer has expired (net/ipv4/tcp_timer.c, tcp_write_timeout)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(2),
        expects: &[
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("1") },
        ],
        known: Verdict::Holds,
        measure: user_timeout_short,
    },
    Claim {
        name: "connect.user-timeout",
        group: Group::Connect,
        notes: &[],
        facts: &["4.user-timeout"],
        says: "TCP_USER_TIMEOUT=2500 ends connect with ETIMEDOUT at 2.5 s, whatever tcp_syn_retries is.",
        why: "from the first retransmission on, the timer is set no later than the user's time-out \
              (net/ipv4/tcp_timer.c, tcp_clamp_rto_to_user_timeout)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(4),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("2.5") },
        ],
        known: Verdict::Holds,
        measure: user_timeout,
    },
    Claim {
        name: "connect.user-timeout-long",
        group: Group::Connect,
        notes: &[],
        facts: &["4.user-timeout"],
        says: "TCP_USER_TIMEOUT=5000 leaves the SYNs at 1 and 3 s alone and cuts the next interval short: ETIMEDOUT at 5 s.",
        why: "only the timer that would expire after the user's time-out is brought forward \
              (net/ipv4/tcp_timer.c, tcp_clamp_rto_to_user_timeout)",
        ends: Ends::Loopback,
        takes: Takes::Seconds(6),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 3") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("5") },
        ],
        known: Verdict::Holds,
        measure: user_timeout_long,
    },
    Claim {
        name: "connect.rto-max",
        group: Group::Connect,
        notes: &[],
        facts: &["4.rto-max"],
        says: "TCP_RTO_MAX_MS=2000 caps the interval: with 5 retries SYNs at 0, 1, 3, 5, 7, 9 s, ETIMEDOUT at 11 s.",
        why: "the time-out doubles up to tcp_rto_max, and tcp_model_timeout (net/ipv4/tcp_timer.c) adds up the capped \
              intervals; Linux 6.15 and later",
        ends: Ends::Loopback,
        takes: Takes::Seconds(12),
        expects: &[
            Expect { figure: "syns", is: Is::Text("0, 1, 3, 5, 7, 9") },
            Expect { figure: "ended", is: Is::Text("ETIMEDOUT") },
            Expect { figure: "end-s", is: Is::Text("11") },
        ],
        known: Verdict::Holds,
        measure: rto_max,
    },
];

/// Connects to a silent listener, after `prepare` has set the client's options, and watches.
fn attempt(
    scene: &Scene,
    limit: Duration,
    prepare: impl FnOnce(&Socket) -> Result<(), ProbeError>,
) -> Result<Attempt, ProbeError> {
    let _full = FullListener::new(scene, PORT)?;
    let client = scene.client_socket()?;
    prepare(&client)?;
    let began = Instant::now();
    start(&client, scene.address(PORT)).doing("connect")?;
    Attempt::watch(&client, began, limit)
}

/// An attempt with these sysctls, until a little after the rule ends it.
fn with_sysctls(scene: &Scene, retries: i32, linear: u32) -> Result<Observed, ProbeError> {
    scene.sysctl(RETRIES, retries)?;
    scene.sysctl(LINEAR, linear)?;
    let schedule = Schedule::of(retries, linear);
    let attempt = attempt(scene, limit(&schedule), |_| Ok(()))?;
    Ok(attempt.observed(&schedule, &format!("syn_retries={retries}, linear {linear}")))
}

/// Beyond the end of a schedule even with the latest timers.
fn limit(schedule: &Schedule) -> Duration {
    Duration::from_secs_f64(schedule.fails * 1.1 + 1.0)
}

fn notes_timeout(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let attempt = attempt(scene, Duration::from_millis(7500), |_| Ok(()))?;
    let syns = attempt.syns_on(&Schedule::of(DEFAULT.0, DEFAULT.1));
    let mut observed = Observed::new().number("syns-within-7.5-s", attempt.syns.len() as f64);
    if let Some(second) = attempt.syns.get(1) {
        observed = observed.number("second-syn-s", second.by);
    }
    Ok(observed.did(format!("within 7.5 s SYNs at {syns} s")))
}

fn default_retries(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let attempt = attempt(scene, Duration::from_millis(7800), |_| Ok(()))?;
    let syns = attempt.syns_on(&Schedule::of(DEFAULT.0, DEFAULT.1));
    let did = format!("defaults, within 7.8 s: SYNs at {syns} s; then {}", attempt.ended);
    Ok(Observed::new().text("syns", syns).text("ended", attempt.ended).did(did))
}

fn default_timeout(scene: &mut Scene) -> Result<Observed, ProbeError> {
    let schedule = Schedule::of(DEFAULT.0, DEFAULT.1);
    Ok(attempt(scene, limit(&schedule), |_| Ok(()))?.observed(&schedule, "defaults"))
}

fn default_timeout_linear_0(scene: &mut Scene) -> Result<Observed, ProbeError> {
    with_sysctls(scene, DEFAULT.0, 0)
}

fn retries_1(scene: &mut Scene) -> Result<Observed, ProbeError> {
    with_sysctls(scene, 1, 4)
}

fn retries_2(scene: &mut Scene) -> Result<Observed, ProbeError> {
    with_sysctls(scene, 2, 0)
}

fn retries_3(scene: &mut Scene) -> Result<Observed, ProbeError> {
    with_sysctls(scene, 3, 1)
}

fn syncnt(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(LINEAR, 4)?;
    let schedule = Schedule::of(2, 4);
    let attempt = attempt(scene, limit(&schedule), |client| sockopt::set_syn_count(client, 2).doing("set TCP_SYNCNT"))?;
    Ok(attempt.observed(&schedule, "TCP_SYNCNT=2, linear 4"))
}

fn rule(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(LINEAR, 4)?;
    let _full = FullListener::new(scene, PORT)?;
    let began = Instant::now();
    let mut clients = Vec::new();
    for retries in 1..=3 {
        let client = scene.client_socket()?;
        sockopt::set_syn_count(&client, retries).doing("set TCP_SYNCNT")?;
        start(&client, scene.address(PORT)).doing("connect")?;
        clients.push((client, Schedule::of(retries.into(), 4)));
    }
    let attempts: Vec<Result<Attempt, ProbeError>> = std::thread::scope(|scope| {
        let watching: Vec<_> = clients
            .iter()
            .map(|(client, schedule)| scope.spawn(move || Attempt::watch(client, began, limit(schedule))))
            .collect();
        let panicked = |_| Err(ProbeError::Failed("a thread panicked".to_owned()));
        watching.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let (mut ends, mut syns) = (Vec::new(), Vec::new());
    for (attempt, (_, schedule)) in attempts.into_iter().zip(&clients) {
        let attempt = attempt?;
        ends.push(attempt.end_on(schedule));
        syns.push(attempt.syns.len().to_string());
    }
    let (ends, syns) = (ends.join(", "), syns.join(", "));
    let did = format!("TCP_SYNCNT 1, 2, 3 with 4 linear time-outs: {syns} SYNs, the end at {ends} s");
    Ok(Observed::new().text("ends-s", ends).text("syns", syns).did(did))
}

fn user_timeout_short(scene: &mut Scene) -> Result<Observed, ProbeError> {
    user_timeout_of(scene, 300, &[0.0, 1.0], 1.0)
}

fn user_timeout(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(LINEAR, 0)?;
    user_timeout_of(scene, 2500, &[0.0, 1.0], 2.5)
}

fn user_timeout_long(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(LINEAR, 0)?;
    user_timeout_of(scene, 5000, &[0.0, 1.0, 3.0], 5.0)
}

fn user_timeout_of(scene: &Scene, milliseconds: u32, syns: &[f64], fails: f64) -> Result<Observed, ProbeError> {
    let schedule = Schedule { syns: syns.to_vec(), fails };
    let attempt = attempt(scene, limit(&schedule), |client| {
        sockopt::set_user_timeout(client, milliseconds).doing("set TCP_USER_TIMEOUT")
    })?;
    Ok(attempt.observed(&schedule, &format!("TCP_USER_TIMEOUT={milliseconds}")))
}

fn rto_max(scene: &mut Scene) -> Result<Observed, ProbeError> {
    scene.sysctl(RETRIES, 5)?;
    scene.sysctl(LINEAR, 0)?;
    let schedule = Schedule { syns: vec![0.0, 1.0, 3.0, 5.0, 7.0, 9.0], fails: 11.0 };
    let attempt = attempt(scene, limit(&schedule), |client| {
        sockopt::set_rto_max(client, 2000)
            .map_err(|error| ProbeError::CannotHere(format!("TCP_RTO_MAX_MS, new in Linux 6.15: {error}")))
    })?;
    Ok(attempt.observed(&schedule, "TCP_RTO_MAX_MS=2000, syn_retries=5, linear 0"))
}
