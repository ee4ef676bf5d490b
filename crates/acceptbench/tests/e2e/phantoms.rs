//! The phantom case: connected for the client, never in the accept queue (loopback, default sysctls but for
//! syncookies, backlog 8, 50 accepts/s, 120 attempts at 200/s, the server speaks first).

use loadgen::Verdict;

use crate::support::{Lab, machine};

#[test]
fn cookies_leave_tens_of_attempts_connected_and_never_served() {
    let _machine = machine();
    let shipped = include_str!("../../../../experiments/phantoms.toml");
    let trials = Lab::new().trials(&shipped.replace("replicates = 3", "replicates = 1"));
    assert_eq!(trials.len(), 2);
    for trial in &trials {
        let whole = trial.loadgen.whole();
        assert_eq!(whole.planned, 120);
        let [unserved, timed_out, refused, served] =
            [Verdict::Unserved, Verdict::TimedOut, Verdict::Refused, Verdict::Served].map(|v| whole.verdict(v));
        let net = &trial.server.kernel.net;
        assert_eq!(net.active_opens - net.passive_opens, unserved + timed_out + refused, "{}", trial.name);
        assert_eq!(served + unserved + timed_out + refused, 120, "{}", trial.name);
        if trial.settings["sysctl.net.ipv4.tcp_syncookies"] == "1" {
            assert!((10..=70).contains(&unserved), "{unserved} unserved with cookies");
            assert_eq!(trial.ledger.terms.phantoms, unserved, "every unserved attempt is a phantom");
        } else {
            assert_eq!(unserved, 0, "the request stays and the SYN-ACK is sent again");
        }
        // The retry grid: attempts established after one, two or three retransmitted SYNs.
        let retried: u64 = whole.connect_service[1..=3].iter().map(|histogram| histogram.count).sum();
        assert!(retried > 20, "{retried} attempts needed a SYN retransmit");
    }
}
