//! The books balance to zero, and each named term has the value its cause gives it.

use loadgen::Verdict;

use crate::support::balanced;

/// Every cell once: thousands of attempts, each of which the books must find again.
fn experiment(topology: &str, rest: &str) -> String {
    format!(
        "[experiment]\nname = \"ledger\"\nquestion = \"do the books balance?\"\nreplicates = 1\nretries = 0\n\
         warm-up = \"100ms\"\nmeasure = \"600ms\"\ntopology = \"{topology}\"\n{rest}"
    )
}

#[test]
fn overload_balances_with_and_without_cookies_on_both_topologies() {
    for topology in ["veth", "loopback"] {
        let trials = balanced(&experiment(
            topology,
            r#"
            [server]
            backlog = 16
            accept-delay = "1ms"
            [loadgen]
            rate = 4000
            deadline = "300ms"
            [[factor]]
            set = "sysctl.net.ipv4.tcp_syncookies"
            to = [0, 1]
            [[factor]]
            set = "loadgen.arrivals"
            to = ["constant", "poisson", "burst:400/100ms"]
            "#,
        ));
        assert_eq!(trials.len(), 6);
        for trial in trials {
            let net = &trial.server.kernel.net;
            assert!(net.listen_overflows > 100, "{}: {} overflows", trial.name, net.listen_overflows);
            let whole = trial.loadgen.whole();
            assert!(whole.verdict(Verdict::Served) > 100, "{}: {:?}", trial.name, whole.verdicts);
            assert!(whole.verdict(Verdict::TimedOut) > 100, "{}: {:?}", trial.name, whole.verdicts);
            if trial.settings["sysctl.net.ipv4.tcp_syncookies"] == "0" {
                assert_eq!(net.syncookies_sent, 0);
                assert!(!trial.ledger.terms.phantoms_derived, "phantoms are counted independently without cookies");
            }
        }
    }
}

#[test]
fn attempts_that_nobody_confirms_are_all_found_again() {
    for topology in ["veth", "loopback"] {
        let trials = balanced(&experiment(
            topology,
            r#"
            [server]
            backlog = 16
            accept-delay = "1ms"
            [loadgen]
            rate = 4000
            confirm = "none"
            deadline = "300ms"
            [[factor]]
            set = "sysctl.net.ipv4.tcp_syncookies"
            to = [0, 1]
            "#,
        ));
        for trial in trials {
            let whole = trial.loadgen.whole();
            let connected = whole.verdict(Verdict::Connected);
            assert_eq!(whole.established, connected);
            // The client resets at once, so what waited in the queue was dead when it was accepted.
            assert!(trial.server.total(|acceptor| acceptor.dead_on_accept) > connected / 2, "{}", trial.name);
            let terms = &trial.ledger.terms;
            let entered = trial.server.accepted() + trial.server.left();
            assert_eq!(
                trial.server.kernel.net.passive_opens,
                entered + terms.raced,
                "raced is what PassiveOpens knows more"
            );
        }
    }
}

#[test]
fn giving_up_while_the_handshake_ends_balances() {
    // The deadline falls on the first SYN retry, when hundreds of handshakes end within milliseconds: some clients are
    // gone when their SYN-ACK comes (abandoned), some close right after their last ACK (raced).
    let trials = balanced(&experiment(
        "veth",
        r#"
        [server]
        backlog = 64
        accept-delay = "1ms"
        [loadgen]
        arrivals = "burst:800/2s"
        [[factor]]
        set = "sysctl.net.ipv4.tcp_syncookies"
        to = [0, 1]
        [[factor]]
        set = "loadgen.deadline"
        to = ["1005ms", "1015ms", "1022ms", "1030ms"]
        "#,
    ));
    assert_eq!(trials.len(), 8);
    for trial in trials {
        let (terms, whole) = (&trial.ledger.terms, trial.loadgen.whole());
        assert!(terms.raced <= whole.abrupt, "{}: {terms:?}", trial.name);
        assert!(terms.abandoned <= whole.verdict(Verdict::TimedOut), "{}: {terms:?}", trial.name);
    }
}

#[test]
fn a_client_that_speaks_first_balances_though_its_data_races_its_last_ack() {
    for topology in ["veth", "loopback"] {
        let trials = balanced(&experiment(
            topology,
            r#"
            [server]
            on-accept = "reply"
            backlog = 64
            accept-delay = "200us"
            [loadgen]
            arrivals = "burst:600/500ms"
            confirm = "reply"
            deadline = "1200ms"
            [[factor]]
            set = "sysctl.net.ipv4.tcp_syncookies"
            to = [0, 1]
            "#,
        ));
        for trial in trials {
            let (terms, whole) = (&trial.ledger.terms, trial.loadgen.whole());
            assert_eq!(whole.abrupt, whole.established, "{}: everyone connected has spoken", trial.name);
            let entered = trial.server.accepted() + trial.server.left();
            assert_eq!(terms.entered, entered, "{}: a raced child has a twin that counts", trial.name);
            assert_eq!(trial.server.kernel.net.passive_opens, entered + terms.raced, "{}", trial.name);
            assert!(trial.server.total(|acceptor| acceptor.replies) >= whole.verdict(Verdict::Served));
            // Both sources know the wait of connections whose client speaks first.
            assert!(trial.server.wait_stamped.count > 0 && trial.server.wait.count >= trial.server.wait_stamped.count);
        }
    }
}

#[test]
fn a_server_that_resets_is_told_from_one_that_never_accepted() {
    for topology in ["veth", "loopback"] {
        let trials = balanced(&experiment(
            topology,
            r#"
            [server]
            backlog = 4096
            on-accept = "reset"
            [loadgen]
            rate = 4000
            confirm = "none"
            "#,
        ));
        for trial in trials {
            let whole = trial.loadgen.whole();
            assert_eq!(trial.ledger.terms.reset_at_connect, whole.reset_at_connect);
            assert_eq!(whole.established + whole.reset_at_connect, whole.planned, "{:?}", whole.verdicts);
            assert_eq!(trial.server.accepted() + trial.ledger.terms.raced, whole.planned);
            let by_reset = trial.server.total(|acceptor| acceptor.closed_by_reset);
            assert_eq!(by_reset, trial.server.accepted());
        }
    }
}

#[test]
fn abort_on_overflow_resets_exactly_what_met_a_full_queue_with_its_last_ack() {
    let trials = balanced(&experiment(
        "veth",
        r#"
        [server]
        backlog = 16
        accept-delay = "1ms"
        [loadgen]
        arrivals = "burst:400/200ms"
        deadline = "400ms"
        [sysctl]
        "net.ipv4.tcp_syncookies" = 0
        "net.ipv4.tcp_max_syn_backlog" = 4096
        [[factor]]
        set = "sysctl.net.ipv4.tcp_abort_on_overflow"
        to = [0, 1]
        "#,
    ));
    for trial in trials {
        let whole = trial.loadgen.whole();
        let reset = whole.verdict(Verdict::Reset);
        let net = &trial.server.kernel.net;
        let phantoms = trial.ledger.terms.phantoms;
        assert_eq!(phantoms, net.embryonic_resets + trial.server.syn_recv, "{}", trial.name);
        if trial.settings["sysctl.net.ipv4.tcp_abort_on_overflow"] == "1" {
            assert_eq!(reset, phantoms, "every one of them was told: {:?}", whole.verdicts);
            assert_eq!(whole.verdict(Verdict::Unserved), 0);
        } else {
            assert_eq!(reset, 0, "nobody was told: {:?}", whole.verdicts);
        }
    }
}

#[test]
fn a_listener_closed_with_a_queue_destroys_exactly_its_queue() {
    for family in ["ipv4", "ipv6"] {
        let trials = balanced(&experiment(
            "veth",
            &format!(
                r#"
                family = "{family}"
                [server]
                backlog = 63
                stall = "0s+forever"
                retire = "0@400ms"
                [loadgen]
                arrivals = "burst:64/10s"
                deadline = "2s"
                "#
            ),
        ));
        let trial = &trials[0];
        assert_eq!(trial.ledger.terms.destroyed, 64);
        assert_eq!(trial.server.accepted(), 0);
        assert_eq!(trial.loadgen.whole().verdict(Verdict::Reset), 64, "{:?}", trial.loadgen.whole().verdicts);
        assert!(trial.server.listeners[0].retired);
    }
}

#[test]
fn a_refused_attempt_is_a_refused_attempt() {
    let trials = balanced(&experiment(
        "veth",
        r#"
        [server]
        retire = "0@300ms"
        [loadgen]
        rate = 500
        "#,
    ));
    let whole = trials[0].loadgen.whole();
    let (served, refused) = (whole.verdict(Verdict::Served), whole.verdict(Verdict::Refused));
    assert_eq!(whole.planned, 350);
    assert!(served + refused + whole.verdict(Verdict::Reset) == 350, "{:?}", whole.verdicts);
    assert!((170..=210).contains(&refused), "400 of 700 ms had no listener: {refused} refused");
    assert_eq!(trials[0].loadgen.kernel.net.attempt_fails, refused);
}

#[test]
fn a_socket_connected_to_itself_is_not_called_served() {
    // Nobody listens after 52 ms (between two arrivals), and the kernel may pick the target's port as source port.
    let trials = balanced(&experiment(
        "loopback",
        r#"
        [server]
        retire = "0@52ms"
        [loadgen]
        rate = 200
        [sysctl]
        "net.ipv4.ip_local_port_range" = "9700 9709"
        "#,
    ));
    let whole = trials[0].loadgen.whole();
    let itself = whole.verdict(Verdict::SelfConnect);
    assert!(itself > 0, "{:?}", whole.verdicts);
    let net = &trials[0].loadgen.kernel.net;
    assert_eq!(net.active_opens, whole.issued - whole.before_syn);
    let entered = whole.verdict(Verdict::Served) + trials[0].ledger.terms.destroyed;
    assert_eq!(net.passive_opens, entered, "a self-connect is no passive open");
}

#[test]
fn ports_that_run_out_are_counted_and_send_no_syn() {
    let trials = balanced(&experiment(
        "veth",
        r#"
        [server]
        backlog = 128
        stall = "0s+forever"
        [loadgen]
        arrivals = "burst:30/10s"
        deadline = "300ms"
        [sysctl]
        "net.ipv4.ip_local_port_range" = "40000 40009"
        "#,
    ));
    let whole = trials[0].loadgen.whole();
    assert_eq!(whole.verdict(Verdict::NoPorts), 20, "{:?}", whole.verdicts);
    assert_eq!(whole.before_syn, 20);
    assert_eq!(trials[0].loadgen.kernel.net.active_opens, 10);
}

#[test]
fn every_engine_and_reuseport_serves_and_balances() {
    for family in ["ipv4", "ipv6"] {
        let trials = balanced(&experiment(
            "veth",
            &format!(
                r#"
                family = "{family}"
                [server]
                acceptors = 4
                backlog = 1024
                [loadgen]
                arrivals = "poisson"
                rate = 2000
                [[factor]]
                set = "server.engine"
                to = ["epoll", "blocking"]
                [[factor]]
                set = "server.reuseport"
                to = ["off", "hash"]
                "#
            ),
        ));
        assert_eq!(trials.len(), 4);
        for trial in trials {
            let whole = trial.loadgen.whole();
            assert_eq!(whole.verdict(Verdict::Served), whole.planned, "{}", trial.name);
            assert_eq!(trial.server.accepted(), whole.planned);
            assert_eq!(trial.server.acceptors.len(), 4);
            let listeners = if trial.settings["server.reuseport"] == "hash" { 4 } else { 1 };
            assert_eq!(trial.server.listeners.len(), listeners);
            if listeners == 4 || trial.settings["server.engine"] == "blocking" {
                let least = trial.server.acceptors.iter().map(|a| a.accepts).min().expect("four");
                assert!(least > whole.planned / 8, "{}: an acceptor got {least} of {}", trial.name, whole.planned);
            }
        }
    }
}
