//! Half-open pressure: the SYN queue holds what the kernel says, the books balance beside it, and nothing but an experiment
//! file can ask for it.

use std::fs;

use loadgen::Verdict;
use study::results::Trial;

use crate::bad_input::file_is_refused;
use crate::host::{answered, ordinary_program};
use crate::support::{self, Lab, acceptbench, machine, part_of_the_machine, text};

/// An experiment about half-open sockets.
fn experiment(topology: &str, measure: &str, rest: &str) -> String {
    format!(
        "[experiment]\nname = \"half-open\"\nquestion = \"who holds the SYN queue?\"\nreplicates = 1\nretries = 0\n\
         warm-up = \"100ms\"\nmeasure = \"{measure}\"\ntopology = \"{topology}\"\n{rest}"
    )
}

/// Runs it; every trial must balance, and know each half-open socket as an attempt outside the cohort.
fn balanced(text: &str) -> Vec<Trial> {
    balanced_with(machine(), text)
}

fn balanced_with<G>(machine: G, text: &str) -> Vec<Trial> {
    let trials = support::balanced_with(machine, text);
    for trial in &trials {
        let kept = trial.loadgen.half_open.kept;
        assert_eq!(trial.loadgen.warm_up.verdict(Verdict::HalfOpen), kept, "{}", trial.name);
        assert_eq!(trial.loadgen.measured.verdict(Verdict::HalfOpen), 0, "{}", trial.name);
        assert_eq!(trial.loadgen.measured.planned, trial.loadgen.measured.concluded(), "{}", trial.name);
    }
    trials
}

/// A setting of the trial's cell as a number.
fn number(trial: &Trial, name: &str) -> u64 {
    trial.settings[name].parse().expect("a number")
}

const COOKIES: &str = "sysctl.net.ipv4.tcp_syncookies";
const MAX_SYN_BACKLOG: &str = "sysctl.net.ipv4.tcp_max_syn_backlog";

#[test]
fn overload_balances_beside_half_open_sockets_with_every_kind_of_cookies() {
    for topology in ["veth", "loopback"] {
        let trials = balanced(&experiment(
            topology,
            "300ms",
            r#"
            [server]
            backlog = 16
            accept-delay = "1ms"
            [loadgen]
            rate = 3000
            deadline = "300ms"
            [[factor]]
            set = "sysctl.net.ipv4.tcp_syncookies"
            to = [0, 1, 2]
            [[factor]]
            set = "half-open.count"
            to = [10, 40]
            "#,
        ));
        assert_eq!(trials.len(), 6);
        for trial in trials {
            let (kept, cookies) = (number(&trial, "half-open.count"), number(&trial, COOKIES));
            let (half_open, net) = (trial.loadgen.half_open, &trial.server.kernel.net);
            assert_eq!(half_open.kept, kept, "{}", trial.name);
            // The accept queue is still empty when they are opened, so only the SYN queue turns some away.
            let requests = if cookies == 2 { 0 } else { kept.min(17) };
            assert_eq!(half_open.answered, if cookies == 0 { requests } else { kept }, "{}", trial.name);
            assert!(trial.server.syn_recv >= requests, "{}: {} SYN_RECV", trial.name, trial.server.syn_recv);
            let served = trial.loadgen.measured.verdict(Verdict::Served);
            if cookies == 0 {
                assert!(!trial.ledger.terms.phantoms_derived, "{}: line 5 counts", trial.name);
                assert_eq!(served > 0, kept < 17, "{}: {served} served", trial.name);
            } else {
                assert!(served > 100, "{}: {served} served", trial.name);
                assert!(net.syncookies_sent > 0 || kept < 17 && cookies == 1, "{}", trial.name);
            }
        }
    }
}

#[test]
fn the_syn_queue_holds_backlog_plus_one_or_three_quarters_of_its_sysctl() {
    for family in ["ipv4", "ipv6"] {
        let short = experiment(
            "veth",
            "50ms",
            &format!(
                r#"
                family = "{family}"
                [loadgen]
                rate = 400
                deadline = "100ms"
                workers = 1
                [half-open]
                count = 300
                [sysctl]
                "net.core.somaxconn" = 4096
                [[factor]]
                set = "server.backlog"
                to = [5, 128, 4096]
                [[factor]]
                set = "sysctl.net.ipv4.tcp_max_syn_backlog"
                to = [64, 256, 2048]
                [[factor]]
                set = "sysctl.net.ipv4.tcp_syncookies"
                to = [0, 1, 2]
                "#
            ),
        );
        let trials = balanced_with(part_of_the_machine(), &short.replace("warm-up = \"100ms\"", "warm-up = \"50ms\""));
        assert_eq!(trials.len(), 27);
        for trial in trials {
            let by_backlog = number(&trial, "server.backlog") + 1;
            let by_sysctl = number(&trial, MAX_SYN_BACKLOG) * 3 / 4 + 1;
            let cookies = number(&trial, COOKIES);
            let holds = match cookies {
                0 => by_backlog.min(by_sysctl),
                1 => by_backlog,
                _ => 0,
            };
            let (net, whole) = (&trial.server.kernel.net, trial.loadgen.whole());
            assert_eq!(trial.server.syn_recv, holds.min(300), "{}", trial.name);
            let (served, timed_out) = (whole.verdict(Verdict::Served), whole.verdict(Verdict::TimedOut));
            assert_eq!(served + timed_out, 40, "{}: {:?}", trial.name, whole.verdicts);
            // On a busy machine a trial lasts until SYNs are sent again; each is an excess SYN like the first.
            let again = trial.loadgen.kernel.net.syn_retransmits;
            let excess = |counted: u64, first: u64| (first..=first + again).contains(&counted);
            if cookies == 0 && holds <= 300 {
                assert_eq!((served, whole.established), (0, 0), "{}: honest clients stay in SYN_SENT", trial.name);
                let drops = net.listen_drops;
                assert!(excess(drops, 300 - holds + 40), "{}: every excess SYN: {drops}, {again} again", trial.name);
                // Only the backlog's own rule has a counter of its own.
                let counted = if by_backlog <= by_sysctl { net.listen_drops } else { 0 };
                assert_eq!(net.request_queue_full_drops, counted, "{}", trial.name);
            } else {
                assert_eq!((served, net.listen_drops), (40, 0), "{}: nobody is kept out", trial.name);
            }
            let (sent, with_cookies) = (net.syncookies_sent, cookies > 0 && holds <= 300);
            let as_known = if with_cookies { excess(sent, 300 - holds + 40) } else { sent == 0 };
            assert!(as_known, "{}: {sent} cookies, {again} SYNs again", trial.name);
        }
    }
}

#[test]
fn pressure_outlasts_the_retries_of_either_side() {
    // With one retry a request lives 3 s and its client gives up after 3 s; but the SYNs go on, at 1, 2, 3, 4 and 5 s, and
    // each sets its request's timer anew.
    let trials = balanced_with(
        part_of_the_machine(),
        &experiment(
            "veth",
            "5500ms",
            r#"
        [loadgen]
        rate = 50
        deadline = "100ms"
        [half-open]
        count = 20
        [sysctl]
        "net.ipv4.tcp_syncookies" = 0
        "net.ipv4.tcp_synack_retries" = 1
        "net.ipv4.tcp_syn_retries" = 1
        "#,
        ),
    );
    let trial = &trials[0];
    let (half_open, terms) = (trial.loadgen.half_open, &trial.ledger.terms);
    assert_eq!((half_open.kept, half_open.answered), (20, 20));
    assert!(half_open.dropped >= 60, "SYN-ACKs went on: {half_open:?}");
    assert_eq!((terms.pending, terms.expired), (20, 0), "{terms:?}");
    // tcp_syn_retries would have made them give up after 3 s, which a RST would tell.
    assert_eq!(trial.server.kernel.net.embryonic_resets, 0);
    assert_eq!(trial.loadgen.kernel.net.attempt_fails, 0);
}

#[test]
fn a_listener_that_goes_takes_the_requests_along() {
    let trials = balanced(&experiment(
        "veth",
        "1500ms",
        r#"
        [server]
        retire = "0@300ms"
        [loadgen]
        rate = 100
        [half-open]
        count = 200
        [sysctl]
        "net.ipv4.tcp_syncookies" = 0
        "#,
    ));
    let trial = &trials[0];
    assert_eq!((trial.server.syn_recv, trial.loadgen.half_open.kept), (0, 200));
    assert_eq!(trial.ledger.terms.expired, trial.loadgen.half_open.answered, "gone at their next timer, uncounted");
}

#[test]
fn sockets_that_would_meet_themselves_are_kept_and_not_called_answered() {
    // The kernel may pick the target's own port, and connects the socket to itself.
    let trials = balanced(&experiment(
        "loopback",
        "200ms",
        r#"
        [loadgen]
        rate = 10
        deadline = "100ms"
        workers = 1
        [half-open]
        count = 8
        [sysctl]
        "net.ipv4.ip_local_port_range" = "9700 9709"
        "net.ipv4.tcp_syncookies" = 0
        "#,
    ));
    let half_open = trials[0].loadgen.half_open;
    assert_eq!(half_open.kept, 8);
    assert!(half_open.answered == trials[0].server.syn_recv && half_open.answered >= 7, "{half_open:?}");
}

#[test]
fn it_is_a_setting_like_the_others() {
    let _machine = machine();
    let lab = Lab::new();
    let file = experiment(
        "loopback",
        "100ms",
        r#"
        [loadgen]
        rate = 100
        deadline = "100ms"
        [half-open]
        count = 7
        [[factor]]
        set = "server.backlog"
        to = [16, 32]
        [[expect]]
        that = "half-open = 7 and syn-recv = 7"
        where = "half-open.count = 7"
        "#,
    );
    let trials = lab.trials(&file);
    assert!(trials.iter().all(|trial| trial.loadgen.half_open.kept == 7));
    let csv = fs::read_to_string(lab.path().join("results/latest/trials.csv")).expect("a table");
    assert!(csv.lines().next().expect("a head").contains("syn-recv"), "{csv}");
    let checked = text(&lab.run(&["check", "experiment.toml"]).stdout);
    assert!(checked.contains("\nhalf-open sockets in each trial's own namespaces: 7\n"), "{checked}");
}

#[test]
fn an_ordinary_user_can_ask_for_it() {
    let _machine = machine();
    let lab = Lab::new();
    let rest = "[loadgen]\nrate = 100\ndeadline = \"100ms\"\n[half-open]\ncount = 9\n";
    lab.file("experiment.toml", &experiment("veth", "100ms", rest));
    let mut command = ordinary_program(&lab);
    command.args(["run", "experiment.toml", "--admin", "off"]).current_dir(lab.path());
    answered(&command.output().expect("the program starts"));
    let trials = lab.records();
    let trial = trials.first().expect("a trial");
    assert_eq!((trial.server.syn_recv, trial.ledger.balances()), (9, true), "{:?}", trial.ledger);
}

#[test]
fn no_flag_no_variable_and_no_option_leads_to_it() {
    let said = |arguments: &[&str]| acceptbench().args(arguments).output().expect("the program starts");
    for command in ["loadgen", "run", "server"] {
        let help = text(&said(&[command, "--help"]).stdout).to_lowercase();
        assert!(help.len() > 500 && !help.contains("half-open") && !help.contains("half_open"), "{command}: {help}");
    }
    for flag in ["--half-open", "--half-open-count", "--half-open.count"] {
        let output = said(&["loadgen", flag, "5"]);
        assert_eq!(output.status.code(), Some(64), "{flag}: {}", text(&output.stderr));
    }
    let _machine = machine();
    let lab = Lab::new();
    lab.file("experiment.toml", &experiment("loopback", "50ms", "[loadgen]\nrate = 100\ndeadline = \"50ms\"\n"));
    let mut command = acceptbench();
    for name in ["HALF_OPEN", "LOADGEN_HALF_OPEN", "LOADGEN_HALF_OPEN_COUNT"] {
        command.env(format!("ACCEPTBENCH_{name}"), "5");
    }
    command.args(["run", "experiment.toml", "--admin", "off"]).current_dir(lab.path());
    answered(&command.output().expect("the program starts"));
    let trials = lab.records();
    let trial = trials.first().expect("a trial");
    assert_eq!(trial.loadgen.half_open, loadgen::HalfOpenCounts::default());
    let option = experiment("veth", "50ms", "[loadgen]\nhalf-open = 5 # here\n");
    file_is_refused(&option, &["unknown field `half-open`"]);
}

#[test]
fn what_is_wrong_with_it_is_named_with_its_line() {
    let _machine = machine();
    let with = |rest: &str| experiment("loopback", "100ms", rest);
    let whole = "expected a whole number of 0 or more";
    file_is_refused(&with("[half-open]\ncount = -5 # here\n"), &["count: ", "`-5`", whole]);
    file_is_refused(&with("[half-open]\ncount = \"many\" # here\n"), &["count: ", "\"many\"", whole]);
    file_is_refused(&with("[half-open]\ncuont = 5 # here\n"), &["unknown field `cuont`", "`count`"]);
    file_is_refused(&with("[half-open]\ncount = 28233 # here\n"), &["half-open.count 28233", "32768-60999", "28232"]);
    let factor = |level: &str| with(&format!("[[factor]]\nset = \"half-open.count\"\nto = [\n0,\n{level} # here\n]\n"));
    file_is_refused(&factor("-5"), &["half-open.count: ", "`-5`", whole]);
    file_is_refused(&factor("40000"), &["half-open.count 40000", "widen sysctl.net.ipv4.ip_local_port_range"]);
    let unknown = "[[factor]]\nset = \"half-open.cuont\"\nto = [5] # here\n";
    file_is_refused(&with(unknown), &["half-open", "unknown field `cuont`", "`count`"]);
}

#[test]
fn sockets_beyond_the_descriptors_are_refused_before_anything_is_made() {
    let _machine = machine();
    let lab = Lab::new();
    let rest = "[loadgen]\nrate = 100\n[half-open]\ncount = 60000\n[sysctl]\n\
                \"net.ipv4.ip_local_port_range\" = \"1024 65535\"\n";
    lab.file("experiment.toml", &experiment("loopback", "100ms", rest));
    let program = env!("CARGO_BIN_EXE_acceptbench");
    let mut command = std::process::Command::new("sh");
    command.env_clear().args(["-c", &format!("ulimit -n 4096; exec {program} run experiment.toml --admin off")]);
    let output = command.current_dir(lab.path()).output().expect("the shell starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    let last = said.lines().last().expect("a line");
    assert!(last.contains("beside 60000 half-open sockets needs 60129 descriptors"), "{last}");
    assert!(last.contains("4096") && last.ends_with("lower half-open.count"), "{last}");
    assert!(!lab.path().join("results").exists());
}
