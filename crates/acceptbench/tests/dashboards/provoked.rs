//! Whether every failure that the boards are about was there when they were asked: an answer of zeros is easy to have.

use dashboards::client::Range;

use crate::ask::Prometheus;

/// What must have happened, and the counter that says so.
const FAILURES: &[(&str, &str)] = &[
    ("an accept queue overflowed", r#"acceptbench_netstat_listen_overflows_total{job="server"}"#),
    ("a SYN got no answer", r#"acceptbench_loadgen_verdicts_total{verdict="timed_out"}"#),
    ("a connection was refused", r#"acceptbench_loadgen_verdicts_total{verdict="refused"}"#),
    ("a connection was never served", r#"acceptbench_loadgen_verdicts_total{verdict="unserved"}"#),
    ("an arrival was shed", r#"acceptbench_loadgen_verdicts_total{verdict="shed"}"#),
    ("a server had no descriptor left", r#"acceptbench_server_accept_errors_total{errno="EMFILE"}"#),
    ("an acceptor paused for it", "acceptbench_server_accept_pauses_total"),
    ("a full SYN queue dropped", r#"acceptbench_netstat_request_queue_full_drops_total{job="run-server"}"#),
    ("a full SYN queue sent cookies", r#"acceptbench_netstat_syncookies_sent_total{job="run-server"}"#),
    ("a trial was finished", "acceptbench_experiment_trials_completed_total"),
];

/// Every one of them was above 0 at some time.
pub(crate) fn check(prometheus: &Prometheus, range: Range) {
    for (what, counter) in FAILURES {
        let series = prometheus.range(counter, range).expect("an answer");
        let most = series.iter().flat_map(|series| &series.points).map(|(_, value)| *value).fold(0.0, f64::max);
        println!("{what}: {most} times");
        assert!(most > 0.0, "nothing of this happened: {what} ({counter})");
    }
}
