//! The generator keeps its schedule whatever the server does, and latency counts from the planned instant.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Lab, acceptbench, machine, part_of_the_machine, text};

#[test]
fn a_stalled_server_does_not_slow_the_generator_and_the_stall_shows() {
    let _machine = part_of_the_machine();
    let trials = Lab::new().trials(
        r#"
        [experiment]
        name = "stall"
        question = "does the generator wait for the server?"
        replicates = 1
        warm-up = "0s"
        measure = "3s"
        [server]
        backlog = 4096
        stall = "500ms+2s"
        [loadgen]
        rate = 300
        deadline = "4s"
        [sysctl]
        "net.ipv4.tcp_max_syn_backlog" = 8192
        "#,
    );
    let measured = &trials[0].loadgen.measured;
    assert_eq!(measured.planned, 900);
    assert_eq!(measured.issued, 900, "issued whatever the server did");
    let lag = measured.lag.quantile(0.99).expect("lags");
    assert!(lag < 200_000_000, "99 % were issued within a tenth of the stall of their instants, not {lag} ns");
    assert!(trials[0].server.listeners[0].deepest > 500, "the queue grew while nobody accepted");
    // 600 of 900 attempts fell into the stall; the one planned first waited 2 s.
    let longest = measured.confirm_latency.max;
    assert!((1_900_000_000..3_000_000_000).contains(&longest), "the longest wait was {longest} ns");
    let median = measured.confirm_latency.quantile(0.5).expect("latencies");
    assert!(median > 200_000_000, "half of all attempts waited, the median is {median} ns");
}

#[test]
fn what_the_generator_issued_late_counts_against_the_planned_instant_only() {
    let _machine = machine();
    // One worker and a burst: attempt number n is issued n connects late. The uncorrected latency forgives that. On a
    // busy machine the lab may call the generator the bottleneck, which is the point.
    let (_, trials, _) = Lab::new().try_trials(
        r#"
        [experiment]
        name = "late"
        question = "whose fault is a late attempt?"
        replicates = 1
        retries = 0
        warm-up = "0s"
        measure = "200ms"
        [server]
        backlog = 4096
        [loadgen]
        arrivals = "burst:800/1s"
        workers = 1
        deadline = "2s"
        "#,
    );
    let measured = &trials[0].loadgen.measured;
    assert_eq!(measured.confirm_latency.count, 800);
    let (planned, issued) = (measured.confirm_latency.mean(), measured.confirm_service.mean());
    let lag = measured.lag.mean().expect("lags");
    let (planned, issued) = (planned.expect("latencies"), issued.expect("latencies"));
    assert!(lag > 500_000.0, "800 connects at once take a while, mean lag {lag} ns");
    assert!((planned - issued - lag).abs() < 0.02 * planned, "{planned} = {issued} + {lag}");
}

#[test]
fn what_a_stopped_generator_missed_shows_from_the_plan_and_hides_from_the_issue() {
    let _machine = part_of_the_machine();
    let lab = Lab::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let start = |args: &[&str]| {
        let mut command = acceptbench();
        command.args(args).args(["--admin", "off"]).current_dir(lab.path()).stdout(Stdio::piped());
        command.spawn().expect("the built program starts")
    };
    let mut server = start(&["server", "--listen", &address, "--backlog", "4096"]);
    while TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let loadgen = start(&["loadgen", "--target", &address, "--rate", "100", "--duration", "4s"]);
    let pid = Pid::from_raw(i32::try_from(loadgen.id()).expect("a pid")).expect("a pid");
    for (wait, signal) in [(1000, Signal::STOP), (2000, Signal::CONT)] {
        std::thread::sleep(Duration::from_millis(wait));
        kill_process(pid, signal).expect("a child of this test");
    }
    let said = text(&loadgen.wait_with_output().expect("a child").stdout);
    server.kill().expect("a child of this test");
    server.wait().expect("a child of this test");
    assert!(said.contains("planned 400  issued 400"), "nothing planned is left out: {said}");
    // The unit of the 99th percentile, the third of five figures: one attempt may have been in flight at the stop.
    let unit_of_p99 = |name: &str| {
        let row = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {said}"));
        row.split_whitespace().nth(5).map(str::to_owned)
    };
    // About half of the attempts were due while the generator was stopped.
    assert_eq!(unit_of_p99("first byte, from planned").as_deref(), Some("s"), "the plan shows two seconds: {said}");
    assert_ne!(unit_of_p99("first byte, from issued").as_deref(), Some("s"), "the issue forgives them: {said}");
}
