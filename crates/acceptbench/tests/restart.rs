//! A server is replaced while it serves (SIGUSR2), and nobody outside notices: every connection is accounted for, open
//! ones are served to their end, the admin port answers throughout, and a successor that fails changes nothing.
//!
//! Each test has network and process namespaces of its own. The load is short by default;
//! `ACCEPTBENCH_RESTART_SECONDS=20` makes it 5000 connections per second for 20 s with five restarts:
//!
//! ```sh
//! ACCEPTBENCH_RESTART_SECONDS=20 cargo test -p acceptbench --test restart -- --nocapture no_attempt_is_lost
//! ```

#[path = "restart/servers.rs"]
mod servers;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kernel::netstat::NetstatReader;
use rerun::{Own, in_namespaces};
use rustix::process::Signal;
use telemetry::admin::get_local;

use servers::{ACCEPTBENCH, Servers, acceptbench, outcomes};

const SERVER: &str = "127.0.0.1:9700";
const ADMIN: &str = "127.0.0.1:9710";

/// Far beyond what any step takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// One load at a time: two would be each other's noise.
static MACHINE: Mutex<()> = Mutex::new(());

/// Servers whose parent has ended become children of the test, which is process 1.
fn private(name: &str, body: impl FnOnce()) {
    in_namespaces(name, Own::NetworkAndProcesses, body);
}

/// A test of hot restarts under load for each kind of server.
macro_rules! no_attempt_is_lost {
    ($($name:ident: $args:literal;)+) => {
        mod no_attempt_is_lost {$(
            #[test]
            fn $name() {
                let _machine = super::MACHINE.lock().unwrap_or_else(super::PoisonError::into_inner);
                let name = concat!("no_attempt_is_lost::", stringify!($name));
                super::private(name, || super::restarts_under_load(stringify!($name), $args));
            }
        )+}
    };
}

no_attempt_is_lost! {
    with_epoll: "";
    with_a_listener_for_each_of_two_acceptors: "--reuseport --acceptors 2";
    with_two_acceptors_edge_triggered: "--engine epoll-edge --acceptors 2";
    with_two_exclusive_acceptors: "--engine epoll-exclusive --acceptors 2";
    with_blocking: "--engine blocking";
    with_three_blocking_at_one_listener: "--engine blocking --acceptors 3";
    with_steering_by_cpu: "--reuseport=cpu --acceptors 2";
    with_processes: "--workers processes --acceptors 2";
    with_io_uring: "--engine io-uring";
    with_two_io_uring_at_one_listener: "--engine io-uring --acceptors 2";
    with_io_uring_multishot: "--engine io-uring-multishot";
    with_tokio: "--engine tokio --acceptors 2";
    with_tokio_local: "--engine tokio-local --acceptors 2";
}

fn restarts_under_load(name: &str, args: &str) {
    let full = std::env::var("ACCEPTBENCH_RESTART_SECONDS").ok().and_then(|seconds| seconds.parse::<u32>().ok());
    let (seconds, rate, restarts) = full.map_or((3, 2000_u32, 2), |seconds| (seconds, 5000, 5));
    let passive_opens = || NetstatReader::open().and_then(|mut net| net.read()).expect("counters").passive_opens;
    let before = passive_opens();

    let common = ["--listen", SERVER, "--admin", ADMIN, "--backlog", "4096"];
    let args: Vec<&str> = common.into_iter().chain(args.split_whitespace()).collect();
    let mut servers = Servers::start(&args);
    let load = thread::spawn(move || {
        let mut command = acceptbench(ACCEPTBENCH);
        command.args(["loadgen", "--target", SERVER, "--admin", "off", "--confirm", "greeting"]);
        command.args(["--rate", &rate.to_string(), "--duration", &format!("{seconds}s")]);
        command.output().expect("the load generator starts")
    });
    let mut handovers = Vec::new();
    for _ in 0..restarts {
        thread::sleep(Duration::from_secs(seconds.into()) / (restarts + 1));
        let began = Instant::now();
        servers.restart();
        handovers.push(began.elapsed());
    }
    let output = load.join().expect("the load generator ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // 2: the generator was slower than its plan on a busy machine. Every attempt counts all the same.
    assert!(matches!(output.status.code(), Some(0 | 2)), "{said}");
    let lines = servers.end();

    let planned = u64::from(rate) * u64::from(seconds);
    assert_eq!(verdicts(&said), [("served".to_owned(), planned)], "{said}\n{lines:#?}");
    let outcomes = outcomes(&lines);
    assert_eq!(outcomes.len(), restarts as usize + 1, "{lines:#?}");
    let accepted: Vec<u64> = outcomes.iter().map(|outcome| outcome.accepted).collect();
    assert!(accepted.iter().all(|accepted| *accepted > 0), "each has served: {accepted:?}");
    assert_eq!(accepted.iter().sum::<u64>(), passive_opens() - before, "{accepted:?}");
    assert_eq!(outcomes.iter().map(|outcome| outcome.greeted).sum::<u64>(), planned);
    assert!(outcomes.iter().all(|outcome| outcome.amiss.is_empty()), "{lines:#?}");
    let slowest = handovers.iter().max().expect("some").as_millis();
    eprintln!(
        "measured: {name}: {planned} attempts at {rate}/s, {restarts} restarts, 0 lost; accepted {accepted:?}; slowest \
         handover {slowest} ms"
    );
}

/// The verdicts a load generator prints, with their counts.
fn verdicts(said: &str) -> Vec<(String, u64)> {
    let lines = said.lines().skip_while(|line| !line.starts_with("planned ")).skip(1);
    let verdicts = lines.take_while(|line| line.starts_with("  ") && line.contains('%'));
    let words = verdicts.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.map(|words| (words[0].clone(), words[1].parse().expect("a count"))).collect()
}

/// What each server says it accepted, ascending: an old one may end after its successor.
fn sorted_accepts(lines: &[String]) -> Vec<u64> {
    let mut accepted: Vec<u64> = outcomes(lines).iter().map(|outcome| outcome.accepted).collect();
    accepted.sort_unstable();
    accepted
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(SERVER).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// A connection is greeted: somebody accepts.
fn greeted() {
    assert_eq!(connect().read(&mut [0; 2]).expect("a greeting"), 1);
}

#[test]
fn open_connections_are_served_to_their_end() {
    private("open_connections_are_served_to_their_end", || {
        for engine in ["epoll", "blocking"] {
            let mut servers =
                Servers::start(&["--listen", SERVER, "--admin", ADMIN, "--on-accept", "echo", "--engine", engine]);
            let mut early = connect();
            echo(&mut early, b"before");
            servers.restart();
            for text in [b"during", b"after!"] {
                echo(&mut early, text);
                thread::sleep(Duration::from_millis(200));
            }
            // Those who come now are served by the successor, whatever the old server still does.
            let mut late = connect();
            echo(&mut late, b"hello!");
            drop(early);
            let line = servers.line("accepted ");
            assert_eq!(outcomes(&[line])[0].accepted, 1, "the old server's own count");
            echo(&mut late, b"still!");
            drop(late);
            servers.end();
        }
    });
}

fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).expect("sent");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).expect("echoed");
    assert_eq!(back, text);
}

/// A copy of the program that can be replaced, and a server started from it.
struct Replaceable {
    directory: tempfile::TempDir,
}

impl Replaceable {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::copy(ACCEPTBENCH, directory.path().join("acceptbench")).expect("a copy");
        Self { directory }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("acceptbench")
    }

    fn start(&self) -> Servers {
        let mut command = acceptbench(self.path());
        command.args(["server", "--listen", SERVER, "--admin", ADMIN]);
        Servers::run(command)
    }

    /// As a package manager does: a new file takes the place of the old one.
    fn replace(&self, make: impl FnOnce(&Path)) {
        let new = self.directory.path().join("new");
        make(&new);
        fs::rename(new, self.path()).expect("renamed");
    }

    fn replace_by_script(&self, text: &str, mode: u32) {
        self.replace(|new| {
            fs::write(new, format!("#!/bin/sh\n{text}\n")).expect("written");
            fs::set_permissions(new, fs::Permissions::from_mode(mode)).expect("a mode");
        });
    }
}

#[test]
fn a_successor_that_fails_leaves_the_old_server_serving() {
    private("a_successor_that_fails_leaves_the_old_server_serving", || {
        let program = Replaceable::new();
        let mut servers = program.start();
        for (script, mode, reason) in [
            ("exit 0", 0o644, "Permission denied"),
            ("exit 69", 0o755, "the successor ended with exit status: 69"),
            ("exec sleep 60", 0o755, "the successor did not accept within 10 s"),
            ("echo nonsense >&0; exec sleep 60", 0o755, "the successor did not accept within 10 s"),
        ] {
            program.replace_by_script(script, mode);
            servers.signal(Signal::USR2);
            let line = servers.line("warning: no hot restart, serving on: ");
            assert!(line.contains(reason), "{line}");
            greeted();
            assert!(get_local(address(ADMIN), "/healthz", PATIENCE).is_ok_and(|(status, _)| status == 200));
        }
        // A working program, in place of the broken one.
        program.replace(|new| assert!(fs::copy(ACCEPTBENCH, new).expect("a copy") > 0));
        servers.restart();
        greeted();
        // Nothing at all: what runs goes on as its own successor.
        fs::remove_file(program.path()).expect("there");
        servers.restart();
        greeted();
        assert_eq!(sorted_accepts(&servers.end()), [1, 1, 4]);
    });
}

#[test]
fn a_stop_ends_the_wait_for_a_successor() {
    private("a_stop_ends_the_wait_for_a_successor", || {
        let program = Replaceable::new();
        let servers = program.start();
        program.replace_by_script("exec sleep 60", 0o755);
        servers.signal(Signal::USR2);
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        greeted();
        // The streams end with the last who has them: the would-be successor is gone, too.
        let lines = servers.end();
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert!(lines.iter().any(|line| line.ends_with("told to stop meanwhile")), "{lines:#?}");
    });
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn the_admin_port_answers_throughout() {
    private("the_admin_port_answers_throughout", || {
        let mut servers = Servers::start(&["--listen", SERVER, "--admin", ADMIN]);
        let done = AtomicBool::new(false);
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = get_local(address(ADMIN), "/metrics", PATIENCE);
                    assert!(matches!(&answer, Ok((200, page)) if !page.is_empty()), "{answer:?}");
                    asked += 1;
                    thread::sleep(Duration::from_millis(2));
                }
                asked
            });
            for _ in 0..5 {
                greeted();
                assert_eq!(accepted(), 1);
                servers.restart();
                // From now on the successor alone answers, and it has accepted nobody.
                for _ in 0..10 {
                    assert_eq!(accepted(), 0);
                }
            }
            done.store(true, Ordering::Relaxed);
            asking.join().expect("every page came")
        });
        assert!(asked > 10, "{asked} pages");
        assert_eq!(outcomes(&servers.end()).iter().map(|outcome| outcome.accepted).sum::<u64>(), 5);
    });
}

/// What the server that answers has accepted.
fn accepted() -> u64 {
    let (_, page) = get_local(address(ADMIN), "/snapshot", PATIENCE).expect("a page");
    let snapshot: server::Snapshot = serde_json::from_str(&page).expect("a snapshot");
    snapshot.accepted()
}

#[test]
fn more_listeners_than_one_message_carries_are_handed_over_once() {
    private("more_listeners_than_one_message_carries_are_handed_over_once", || {
        let mut servers = Servers::start(&["--listen", "127.0.0.1:9700,127.0.0.1:10000-10299", "--admin", ADMIN]);
        // Asked again while it is under way: the one restart is the answer to all.
        for _ in 0..5 {
            servers.signal(Signal::USR2);
            thread::sleep(Duration::from_millis(1));
        }
        servers.restart();
        greeted();
        for port in [10_000, 10_251, 10_252, 10_299] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
            assert_eq!(stream.read(&mut [0; 2]).expect("a greeting"), 1, "port {port}");
        }
        let lines = servers.end();
        assert_eq!(lines.iter().filter(|line| line.starts_with("taken over from pid ")).count(), 1, "{lines:#?}");
        assert_eq!(sorted_accepts(&lines), [0, 5]);
    });
}

#[test]
fn a_server_that_retires_a_listener_keeps_them_to_itself() {
    private("a_server_that_retires_a_listener_keeps_them_to_itself", || {
        let retiring = ["--reuseport", "--acceptors", "2", "--retire", "1@1h"];
        let mut servers = Servers::start(&[&["--listen", SERVER, "--admin", ADMIN], &retiring[..]].concat());
        servers.signal(Signal::USR2);
        let line = servers.line("no hot restart");
        assert!(line.contains("retires a listener"), "{line}");
        greeted();
        servers.end();
    });
}

#[test]
fn systemd_is_told_who_serves() {
    private("systemd_is_told_who_serves", || {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let told = || {
            let mut buffer = [0; 128];
            let length = socket.recv(&mut buffer).expect("told");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let mut command = acceptbench(ACCEPTBENCH);
        command.args(["server", "--listen", SERVER, "--admin", ADMIN]).env("NOTIFY_SOCKET", &path);
        let mut servers = Servers::run(command);
        assert_eq!(told(), "READY=1");
        for _ in 0..2 {
            servers.restart();
            assert_eq!(told(), format!("MAINPID={}\nREADY=1", servers.pid()));
        }
        servers.end();
        assert_eq!(told(), "STOPPING=1");
    });
}

#[test]
fn process_1_does_not_restart() {
    private("process_1_does_not_restart", || {
        let mut command = acceptbench("unshare");
        let script = format!(
            "(sleep 1; kill -USR2 1; sleep 1; kill -TERM 1) & exec {ACCEPTBENCH} server --listen {SERVER} --admin {ADMIN}"
        );
        command.args(["--pid", "--fork", "--kill-child", "sh", "-c", &script]);
        let mut servers = Servers::run(command);
        let line = servers.line("no hot restart");
        assert!(line.contains("process 1"), "{line}");
        greeted();
        let outcome = servers.line("accepted ");
        assert_eq!(outcomes(&[outcome])[0].accepted, 1);
    });
}
