//! What each tool prints, as recorded from the tool itself in `outputs/`, read back. Failures are cut down to the lines
//! that matter.

use crate::outputs::{Claim, ab, h2load, httperf, loadgen, raw, wrk};

fn claims(claim: Result<Claim, String>, done: u64, failed: u64, seconds: f64) {
    let claim = claim.expect("a claim");
    assert_eq!((claim.done, claim.failed), (done, failed));
    assert!((claim.seconds - seconds).abs() < 0.005, "{claim:?}");
}

#[test]
fn wrk_is_read() {
    let good = include_str!("outputs/wrk.txt");
    claims(wrk(good), 14_141, 0, 1.049);
    let bad = good.replace("Requests/sec", "  Socket errors: connect 1, read 20, write 0, timeout 3\nRequests/sec");
    claims(wrk(&bad), 14_141, 24, 1.049);
    claims(wrk(&good.replace("Requests/sec", "  Non-2xx or 3xx responses: 5\nRequests/sec")), 14_141, 5, 1.049);
    assert_eq!(wrk("unable to connect to 127.0.0.1:9700 Connection refused"), Err("no `requests in`".to_owned()));
}

#[test]
fn ab_is_read() {
    claims(ab(include_str!("outputs/ab.txt")), 8_323, 0, 1.001);
    let refused = "Time taken for tests:   0.006 seconds\nComplete requests:      100\nFailed requests:        150\n   \
                   (Connect: 0, Receive: 100, Length: 0, Exceptions: 50)\n";
    claims(ab(refused), 0, 150, 0.006);
    assert!(ab("").is_err());
}

#[test]
fn httperf_is_read() {
    claims(httperf(include_str!("outputs/httperf.txt")), 10_000, 0, 2.767);
    let refused = "Total: connections 10 requests 0 replies 0 test-duration 0.000 s\n\
                   Reply status: 1xx=0 2xx=0 3xx=0 4xx=0 5xx=0\nErrors: total 10 connrefused 10\n";
    claims(httperf(refused), 0, 10, 0.0);
    assert!(httperf("").is_err());
}

#[test]
fn h2load_is_read() {
    claims(h2load(include_str!("outputs/h2load.txt")), 10_000, 0, 1.264);
    let refused = "finished in 6.51ms, 0.00 req/s, 0B/s\nrequests: 10 total, 0 started, 0 done, 0 succeeded, 10 failed, \
                   10 errored, 0 timeout\nstatus codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx\n";
    let claim = h2load(refused).unwrap();
    assert_eq!((claim.done, claim.failed), (0, 10));
    // Its timed mode ends without a result when every connection is closed.
    assert!(h2load("Stopped all clients for thread #0\n").is_err());
}

#[test]
fn our_own_programs_are_read() {
    claims(loadgen(include_str!("outputs/loadgen.txt"), 1.0), 10_148, 0, 1.0);
    let bad = "planned 8  issued 8  in 1.00 s  arrivals closed:8\n  unserved             7    87.5 %\n  timed-out            1\n";
    claims(loadgen(bad, 1.0), 0, 8, 1.0);
    let some = "planned 12  issued 12  in 1.00 s\n  connected           10    83.3 %\n  refused              2    16.7 %\n\
                connected, from planned             54.8 µs\n";
    claims(loadgen(some, 1.0), 10, 2, 1.0);
    claims(raw("connected 290123 failed 2 seconds 2.001234\n"), 290_123, 2, 2.001);
    assert_eq!(raw("connected many"), Err("no number behind `connected`".to_owned()));
}

#[test]
fn processes_add_up_over_the_longest_time() {
    let one = |done, seconds| Claim { done, failed: 1, seconds };
    let both = Claim::together(&[one(100, 1.0), one(300, 2.0)]);
    assert_eq!(both, Claim { done: 400, failed: 2, seconds: 2.0 });
    assert!((both.rate() - 200.0).abs() < 1e-9);
}
