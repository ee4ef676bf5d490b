//! The accept queue holds exactly min(backlog, somaxconn) + 1 connections.
//!
//! From one worker: the kernel looks at the depth and adds to the queue in two steps (`tcp_v4_syn_recv_sock`,
//! `inet_csk_reqsk_queue_add`), so last ACKs handled on two CPUs at once can both find the last place.

use crate::support::{Lab, machine};

/// A server that never accepts, and 1100 attempts that outlast nothing: the deadline is below the first SYN retry.
fn experiment(family: &str) -> String {
    format!(
        r#"
        [experiment]
        name = "capacity"
        question = "how many connections does the accept queue hold?"
        replicates = 1
        retries = 0
        warm-up = "0s"
        measure = "300ms"
        family = "{family}"
        [server]
        stall = "0s+forever"
        [loadgen]
        arrivals = "burst:1100/1s"
        deadline = "450ms"
        max-in-flight = 1100
        workers = 1
        [sysctl]
        "net.ipv4.tcp_max_syn_backlog" = 8192
        "net.ipv4.tcp_syncookies" = 0
        [[factor]]
        set = "sysctl.net.core.somaxconn"
        to = [16, 128, 1024]
        [[factor]]
        set = "server.backlog"
        to = [16, 128, 1024]
        "#
    )
}

fn holds_one_more_than_the_limit(family: &str) {
    let _machine = machine();
    let (_, trials, said) = Lab::new().try_trials(&experiment(family));
    assert_eq!(trials.len(), 9, "{said}");
    for trial in trials {
        let setting = |name: &str| trial.settings[name].parse::<u64>().expect("a number");
        let capacity = setting("sysctl.net.core.somaxconn").min(setting("server.backlog")) + 1;
        let listener = &trial.server.listeners[0];
        assert_eq!(u64::from(listener.limit) + 1, capacity, "{}: the limit read back", trial.name);
        assert_eq!(listener.deepest, capacity, "{}: the deepest queue", trial.name);
        assert_eq!(trial.server.kernel.net.passive_opens, capacity, "{}: PassiveOpens", trial.name);
        assert_eq!(trial.server.accepted(), 0, "{}: accepted", trial.name);
        assert!(trial.ledger.balances(), "{}: {:?}", trial.name, trial.ledger);
        assert_eq!(trial.server.left(), capacity, "{}: left in the queue", trial.name);
        let whole = trial.loadgen.whole();
        assert_eq!(whole.planned, 1100);
        if capacity < 1100 {
            assert!(trial.server.kernel.net.listen_overflows > 0, "{}: overflows", trial.name);
        }
    }
}

#[test]
fn the_accept_queue_holds_limit_plus_one_over_ipv4() {
    holds_one_more_than_the_limit("ipv4");
}

#[test]
fn the_accept_queue_holds_limit_plus_one_over_ipv6() {
    holds_one_more_than_the_limit("ipv6");
}
