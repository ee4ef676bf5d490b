use super::*;
use crate::testing::Scene;

const IMPATIENT: Clients = Clients { patience_us: 500_000, linear_timeouts: 4 };

fn burst(at: u64, size: u64, spacing: u64) -> impl Iterator<Item = u64> {
    (0..size).map(move |i| at + i * spacing)
}

#[test]
fn a_burst_of_impatient_clients_is_what_entered_and_what_was_dropped() {
    let scene = Scene { arrivals: burst(100_500, 300, 20).collect(), ..Scene::default() };
    let (recording, lost) = scene.record();
    let arrivals = Arrivals::of(&recording, IMPATIENT);
    assert_eq!((arrivals.attempts, arrivals.lost, arrivals.retries), (300, lost, 0));
    assert_eq!(arrivals.first(), Some(100_000));
    let spread = arrivals.batches.last().unwrap().ended - 100_000;
    assert_eq!(spread, 7_000, "300 in 6 ms");
    assert_eq!(arrivals.most_per_ms(), 50);
}

#[test]
fn clients_that_try_again_are_counted_once() {
    // 300 at once at a queue of 17: most are dropped three times before they give up.
    let patience_us = 2_500_000;
    let scene = Scene {
        arrivals: burst(100_500, 300, 20).chain(burst(2_600_000, 40, 20)).collect(),
        patience_us,
        lasts: 6_000_000,
        ..Scene::default()
    };
    let (recording, lost) = scene.record();
    let clients = Clients { patience_us, linear_timeouts: 4 };
    let arrivals = Arrivals::of(&recording, clients);
    assert_eq!((arrivals.attempts, arrivals.lost), (340, lost));
    assert!(arrivals.retries > 400, "{arrivals:?}");
    // Who takes them for impatient counts everybody at each try.
    assert_eq!(Arrivals::of(&recording, IMPATIENT).attempts, 340 + arrivals.retries);
}

#[test]
fn in_a_steady_overload_what_comes_again_is_told_from_what_is_new() {
    let patience_us = 1_500_000;
    // 1500/s at 1000/s for 4 s.
    let scene =
        Scene { arrivals: burst(50_000, 6000, 667).collect(), patience_us, lasts: 7_000_000, ..Scene::default() };
    let (recording, lost) = scene.record();
    let arrivals = Arrivals::of(&recording, Clients { patience_us, linear_timeouts: 4 });
    let off = arrivals.attempts.abs_diff(6000);
    assert!(off <= 60, "{} attempts, not 6000", arrivals.attempts);
    assert!(arrivals.lost.abs_diff(lost) <= 60, "{} lost, not {lost}", arrivals.lost);
}

#[test]
fn a_dropped_last_ack_counts_two_and_one_and_is_one_attempt() {
    let header = format!("{}\n", serde_json::to_string(&crate::testing::header(8)).unwrap());
    // 3 SYNs and 6 last ACKs dropped beside 9 that entered; the drops are read before the namespace's counters catch up.
    let text =
        format!("{header}[1000,1000,9,9,13,7,0,0,0]\n[1000,1000,0,9,2,2,0,0,0]\n[1060000,1060000,6,9,0,0,0,0,0]\n");
    let recording = Recording::parse("x", text.as_bytes()).unwrap();
    let arrivals = Arrivals::of(&recording, Clients { patience_us: 5_000_000, linear_timeouts: 4 });
    assert_eq!((arrivals.last_acks, arrivals.attempts, arrivals.retries), (6, 18, 6));
    assert_eq!((arrivals.entered, arrivals.lost), (15, 3));
}

#[test]
fn a_client_that_gives_up_a_request_is_no_new_attempt() {
    let at_reset = |abort: &str| {
        let mut header = crate::testing::header(8);
        header.sysctls.insert("net.ipv4.tcp_abort_on_overflow".to_owned(), abort.to_owned());
        let header = serde_json::to_string(&header).unwrap();
        // 6 last ACKs dropped; then the resets: by the server at once, or by the clients when they give up.
        let lines = match abort {
            "0" => "[1000,1000,9,9,12,6,0,0,0]\n[500000,1000,0,9,6,0,0,6,0]\n",
            _ => "[1000,1000,9,9,12,6,0,6,0]\n",
        };
        let recording = Recording::parse("x", format!("{header}\n{lines}").as_bytes()).unwrap();
        Arrivals::of(&recording, IMPATIENT)
    };
    for abort in ["0", "1"] {
        let arrivals = at_reset(abort);
        assert_eq!((arrivals.attempts, arrivals.last_acks, arrivals.lost), (15, 6, 6), "{abort}");
    }
}

#[test]
fn who_was_reset_is_not_owed_another_packet() {
    let mut header = crate::testing::header(8);
    header.sysctls.insert("net.ipv4.tcp_abort_on_overflow".to_owned(), "1".to_owned());
    let header = serde_json::to_string(&header).unwrap();
    // 6 last ACKs answered with a RST; a second later 6 others come.
    let text = format!("{header}\n[1000,1000,9,9,12,6,0,6,0]\n[1020000,1000,6,9,0,0,0,0,0]\n");
    let recording = Recording::parse("x", text.as_bytes()).unwrap();
    let arrivals = Arrivals::of(&recording, Clients { patience_us: 5_000_000, linear_timeouts: 4 });
    assert_eq!((arrivals.attempts, arrivals.retries, arrivals.lost), (21, 0, 6));
}

#[test]
fn what_other_listeners_drop_and_reset_takes_nothing_from_this_one() {
    let header = format!("{}\n", serde_json::to_string(&crate::testing::header(8)).unwrap());
    // 300 requests of others are reset and 200 SYNs of others dropped; then 20 SYNs are dropped here.
    let text = format!("{header}[1000,1000,0,0,0,200,0,300,0]\n[500000,1000,9,9,20,20,0,0,0]\n");
    let arrivals = Arrivals::of(&Recording::parse("x", text.as_bytes()).unwrap(), IMPATIENT);
    assert_eq!((arrivals.attempts, arrivals.lost, arrivals.last_acks), (29, 20, 0));
}

#[test]
fn who_had_no_time_to_try_again_is_undecided() {
    let scene = Scene { arrivals: burst(100_500, 300, 20).collect(), lasts: 600_000, ..Scene::default() };
    let (recording, _) = scene.record();
    let arrivals = Arrivals::of(&recording, Clients { patience_us: 5_000_000, linear_timeouts: 4 });
    assert!(arrivals.undecided > 0 && arrivals.undecided == arrivals.lost, "{arrivals:?}");
    assert_eq!(Arrivals::of(&recording, IMPATIENT).undecided, 0);
}

#[test]
fn what_is_told_too_high_for_a_moment_is_taken_off_again() {
    let header = format!("{}\n", serde_json::to_string(&crate::testing::header(8)).unwrap());
    // 8 last ACKs and 5 SYNs: the namespace's drops were read 20 µs after the listener's.
    let text = format!("{header}[1000,1000,0,9,12,8,0,0,0]\n[1000,1000,0,9,4,0,0,0,0]\n[1000,1000,0,9,5,5,0,0,0]\n");
    let arrivals = Arrivals::of(&Recording::parse("x", text.as_bytes()).unwrap(), IMPATIENT);
    assert_eq!((arrivals.attempts, arrivals.last_acks), (13, 8));
}

#[test]
fn who_got_a_request_at_last_is_owed_its_first_timer() {
    let header = format!("{}\n", serde_json::to_string(&crate::testing::header(8)).unwrap());
    // 5 SYNs dropped; a second later their last ACKs; a second later they enter.
    let text =
        format!("{header}[1000,1000,0,9,5,5,0,0,0]\n[1020000,1000,0,9,10,5,0,0,0]\n[1060000,1000,5,9,0,0,0,0,0]\n");
    let recording = Recording::parse("x", text.as_bytes()).unwrap();
    let arrivals = Arrivals::of(&recording, Clients { patience_us: 2_500_000, linear_timeouts: 4 });
    assert_eq!((arrivals.attempts, arrivals.retries, arrivals.entered, arrivals.lost), (5, 10, 5, 0));
}

#[test]
fn timers_double_after_the_linear_ones() {
    let waits = |kind, linear_timeouts| {
        let clients = Clients { patience_us: 0, linear_timeouts };
        [1, 2, 3, 4, 5, 6, 7].map(|times| clients.wait(kind, times) / 1_000_000)
    };
    assert_eq!(waits(Kind::Syn, 4), [1, 1, 1, 1, 1, 2, 4], "SYNs at 1, 2, 3, 4, 5, 7, 11 s");
    assert_eq!(waits(Kind::Syn, 0), [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(waits(Kind::LastAck, 4), [1, 2, 4, 8, 16, 32, 64]);
}

#[test]
fn what_waited_at_the_first_look_arrives_at_once() {
    let mut header = crate::testing::header(8);
    header.depth = 5;
    let text = format!("{}\n[1000,1000,2,7,0,0,0,0,0]\n", serde_json::to_string(&header).unwrap());
    let arrivals = Arrivals::of(&Recording::parse("x", text.as_bytes()).unwrap(), IMPATIENT);
    assert_eq!((arrivals.attempts, arrivals.entered), (7, 7));
    assert_eq!(arrivals.batches[0], Batch { began: 0, ended: 0, count: 5 });
}
