//! What a standalone load generator says: a line on a terminal, lines in a journal, JSON for programs; and what it says of
//! itself when it was the bottleneck. Each test has a network of its own, so ports are free and counters begin at 0.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rerun::{Own, in_namespaces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use telemetry::admin::get_local;

use crate::support::{acceptbench, part_of_the_machine, text};

/// `acceptbench server`, ended with the value.
pub(crate) struct Server(Child);

impl Server {
    /// One that listens on the default address.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = acceptbench();
        command.args(["server", "--backlog", "1024", "--admin", "off"]).args(args).stdout(Stdio::null());
        let server = Self(command.spawn().expect("the built program starts"));
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect("127.0.0.1:9700").is_err() {
            assert!(Instant::now() < end, "nobody listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn loadgen(args: &[&str]) -> Command {
    let mut command = acceptbench();
    command.arg("loadgen").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    loadgen(args).output().expect("the built program starts")
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The JSON lines of a run with `--json`.
fn events(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(parsed).collect()
}

/// How many descriptors the table of a process has room for.
fn room(of: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", of.id())).expect("a process");
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    size.and_then(|size| size.trim().parse().ok()).expect("a number")
}

/// What a run that must end with 2 says of itself: the limits' names, and its words.
fn bottleneck(output: &Output) -> (Vec<String>, String) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let end = events(output).pop().expect("an end");
    assert_eq!(end["exit"], json!({ "code": 2, "meaning": "the generator was the bottleneck" }));
    let limits = end["limits"].as_array().expect("limits");
    (limits.iter().map(|limit| limit["what"].as_str().expect("a name").to_owned()).collect(), said)
}

#[test]
fn a_terminal_shows_one_line_in_place_and_then_the_summary() {
    if Command::new("script").arg("--version").output().is_err() {
        return println!("skipped: script not found; install the Debian package bsdutils");
    }
    let _machine = part_of_the_machine();
    in_namespaces("loadgen::a_terminal_shows_one_line_in_place_and_then_the_summary", Own::Network, || {
        let _server = Server::start(&["--accept-delay", "20ms"]);
        let load = format!(
            "stty cols 80 rows 24; {} loadgen --admin off --rate 200 --duration 3s --deadline 300ms",
            env!("CARGO_BIN_EXE_acceptbench")
        );
        let mut command = Command::new("script");
        command.args(["-qec", &load, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
        let output = command.output().expect("script starts");
        let seen = text(&output.stdout);
        let (before, rest) = seen.split_once("\r\x1b[2K").expect("a line that replaces itself");
        assert!(before.contains("acceptbench loadgen --deadline=300ms") && !before.contains('\x1b'), "{before}");
        let mut lines: Vec<&str> = rest.split("\r\x1b[2K").collect();
        let after = lines.pop().expect("what follows the last");
        // Four a second at most, and a busy machine may draw fewer.
        assert!((3..=16).contains(&lines.len()), "{lines:#?}");
        for line in &lines {
            assert!(line.chars().count() < 80 && !line.contains(['\r', '\n']), "{line:?}");
        }
        assert!(lines.iter().any(|line| line.contains(" of 200/s  served ")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("unserved ")), "the server serves 50 a second: {lines:#?}");
        assert!(lines.iter().any(|line| line.contains("p99 ") && line.contains("in flight ")), "{lines:#?}");
        assert!(after.starts_with("planned 600  issued 600  in ") && !after.contains('\x1b'), "{after}");
        assert!(after.contains("first byte, from planned") && after.contains("first byte, from issued"), "{after}");
        // A warning is one line for whoever searches for it, however long.
        let mut lines = after.lines().filter(|line| !line.starts_with("warning: "));
        assert!(lines.all(|line| line.chars().count() <= 80), "{after}");
    });
}

#[test]
fn a_journal_gets_a_line_every_ten_seconds_and_no_escape_codes() {
    let _machine = part_of_the_machine();
    in_namespaces("loadgen::a_journal_gets_a_line_every_ten_seconds_and_no_escape_codes", Own::Network, || {
        let _server = Server::start(&[]);
        let output = run(&["--admin", "off", "--rate", "100", "--duration", "12s"]);
        let (results, words) = (text(&output.stdout), text(&output.stderr));
        assert!(!results.contains(['\x1b', '\r']) && !words.contains(['\x1b', '\r']), "{results}{words}");
        let lines: Vec<&str> = words.lines().filter(|line| line.contains("/s  served ")).collect();
        assert_eq!(lines.len(), 1, "{words}");
        assert!(lines[0].starts_with("10.0 s ") && lines[0].contains(" of 100/s"), "{words}");
        assert!(results.starts_with("acceptbench loadgen --duration=12s --rate=100.0\nconnecting to "), "{results}");
        assert!(results.contains("\nplanned 1200  issued 1200  in "), "{results}");
    });
}

#[test]
fn json_is_a_document_a_line_that_agrees_with_the_metrics() {
    let _machine = part_of_the_machine();
    in_namespaces("loadgen::json_is_a_document_a_line_that_agrees_with_the_metrics", Own::Network, || {
        let _server = Server::start(&[]);
        let args = ["--json", "--rate", "150", "--duration", "4s", "--warm-up", "1s", "--admin", "127.0.0.1:0"];
        let mut child = loadgen(&args).spawn().expect("the built program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| {
            let line = line.expect("text");
            parsed(&line)
        });
        let start = lines.next().expect("a start");
        assert_eq!(start["event"], "start");
        let metrics = start["metrics"].as_str().expect("an address").to_owned();
        let address = metrics.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics"));
        let address = address.expect("a page").parse().expect("an address");
        let earlier = lines.by_ref().nth(1).expect("two seconds of progress");
        let (_, page) = get_local(address, "/metrics", Duration::from_secs(5)).expect("a page");
        let rest: Vec<Value> = lines.collect();
        let output = child.wait_with_output().expect("a child");
        let (end, progress) = rest.split_last().expect("an end");
        let later = progress.first().unwrap_or(end);
        assert!(progress.iter().all(|event| event["event"] == "progress"), "{progress:#?}");

        let sample = |series: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(&format!("acceptbench_loadgen_{series} ")));
            line.unwrap_or_else(|| panic!("{series}: {page}")).parse::<f64>().expect("a number")
        };
        let between = |event: &Value, key: &str| event[key].as_f64().unwrap_or_else(|| panic!("{key}: {event}"));
        let scraped = sample("planned_total");
        let planned = between(&earlier, "planned");
        // The last progress counts the warm-up, the end counts the cohort.
        let after = if later == end { 750.0 } else { between(later, "planned") };
        assert!(planned > 0.0 && planned <= scraped && scraped <= after, "{planned} {scraped} {after}");
        for cause in ["timeout", "leftover"] {
            assert!(sample(&format!("syn_retransmits_total{{cause=\"{cause}\"}}")) >= 0.0);
        }
        for limit in ["descriptors", "ports"] {
            assert!(sample(&format!("limited{{limit=\"{limit}\"}}")).abs() < f64::EPSILON, "{limit}");
        }
        for limit in ["lag", "cpu"] {
            assert!((0.0..=1.0).contains(&sample(&format!("limited{{limit=\"{limit}\"}}"))), "{limit}");
        }

        assert_eq!(
            (&end["event"], &end["planned"], &end["warm-up-planned"]),
            (&json!("end"), &json!(600), &json!(150))
        );
        let verdicts: u64 = end["verdicts"].as_object().expect("verdicts").values().filter_map(Value::as_u64).sum();
        assert_eq!(verdicts, 600, "{end}");
        assert_eq!(end["rates"]["planned"], 150.0);
        let p50 = |time: &str| end["first-byte"][time]["p50"].as_f64().expect("a latency");
        assert!(p50("from-issued") > 0.0 && p50("from-issued") <= p50("from-planned"), "{end}");
        assert_eq!(end["command"], start["command"]);
        assert_eq!(end["command"], json!(["acceptbench", "loadgen", "--duration=4s", "--rate=150.0", "--warm-up=1s"]));
        assert_eq!(end["exit"]["code"].as_i64(), output.status.code().map(i64::from));
        assert!(text(&output.stderr).contains("planned 600  issued "), "the words went to stderr");
    });
}

/// A table that grows under load stops whoever opens the next descriptor for 10 ms and more.
#[test]
fn both_ends_have_room_for_their_descriptors_before_the_load() {
    let _machine = part_of_the_machine();
    in_namespaces("loadgen::both_ends_have_room_for_their_descriptors_before_the_load", Own::Network, || {
        let server = Server::start(&[]);
        let limit = kernel::process::raise_nofile().expect("a limit").soft;
        assert!(room(&server.0) >= limit.min(65_536), "{}", room(&server.0));
        let load = ["--json", "--admin", "off", "--rate", "100", "--deadline", "30s", "--duration", "500ms"];
        let mut child = loadgen(&load).spawn().expect("the built program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("text");
        assert_eq!(parsed(&line)["event"], "start");
        // 3000 in flight if nobody answers, and the program's own.
        assert!(room(&child) >= limit.min(3000), "{}", room(&child));
        assert!(child.wait().expect("a child").success());
    });
}

#[test]
fn who_was_stopped_for_a_while_was_late_and_says_so() {
    let _machine = part_of_the_machine();
    in_namespaces("loadgen::who_was_stopped_for_a_while_was_late_and_says_so", Own::Network, || {
        let _server = Server::start(&[]);
        let child = loadgen(&["--json", "--admin", "off", "--rate", "100", "--duration", "3s"]).spawn();
        let child = child.expect("the built program starts");
        for (wait, signal) in [(800, Signal::STOP), (1500, Signal::CONT)] {
            std::thread::sleep(Duration::from_millis(wait));
            kill_process(Pid::from_child(&child), signal).expect("a child of this test");
        }
        let (limits, said) = bottleneck(&child.wait_with_output().expect("a child"));
        assert_eq!(limits, ["lag"]);
        assert!(said.contains("warning: the generator was the bottleneck: 1 % of the attempts were issued more than"));
        assert!(said.contains("ms late (limit 100 ms) (lower the rate"), "{said}");
    });
}

#[test]
fn who_ran_out_of_ports_or_descriptors_says_so() {
    let _machine = part_of_the_machine();
    in_namespaces("loadgen::who_ran_out_of_ports_or_descriptors_says_so", Own::Network, || {
        let _server = Server::start(&["--on-accept", "hold", "--hold", "30s"]);
        let sparing = ["--json", "--admin", "off", "--rate", "300", "--duration", "1s", "--deadline", "800ms"];
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 180; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_acceptbench"), "loadgen"]);
        let output = command.args(sparing).env_clear().output().expect("a shell");
        let (limits, said) = bottleneck(&output);
        // A machine too busy to be on time may add to them.
        assert!(limits.contains(&"descriptors".to_owned()), "{limits:?}");
        assert!(said.contains("attempts were not made for want of descriptors (raise RLIMIT_NOFILE"), "{said}");

        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40009").expect("a sysctl of this namespace");
        let burst =
            ["--json", "--admin", "off", "--arrivals", "burst:30/10s", "--duration", "1s", "--deadline", "300ms"];
        let (limits, said) = bottleneck(&run(&burst));
        assert!(limits.contains(&"ports".to_owned()), "{limits:?}");
        assert!(said.contains("20 attempts found no free local port (widen ip_local_port_range"), "{said}");
    });
}
