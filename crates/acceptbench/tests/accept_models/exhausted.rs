//! No descriptor left: no busy loop, nobody stranded, and everyone served once descriptors return.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use server::opts::{Engine, Workers, values};
use server::{Plan, Snapshot};

use crate::apart::{apart, in_namespaces};

/// Connections that come while no descriptor is left.
const N: u32 = 40;

const SERVER: &str = "127.0.0.1:9700";
const ADMIN: &str = "127.0.0.1:9710";

#[test]
fn without_descriptors_the_server_waits_quietly_and_then_serves_everyone() {
    in_namespaces("exhausted::without_descriptors_the_server_waits_quietly_and_then_serves_everyone", || {
        let seconds = std::env::var("ACCEPTBENCH_EMFILE_SECONDS").ok().and_then(|text| text.parse().ok());
        let lasts = Duration::from_secs(seconds.unwrap_or(1));
        for engine in values::<Engine>() {
            for workers in values::<Workers>() {
                let opts = server::Opts { engine: *engine, workers: *workers, ..server::Opts::default() };
                if Plan::try_from(opts.clone()).is_err() {
                    continue;
                }
                // An accept of io_uring has the limit of when it was submitted (`io_accept_prep`), which is for good.
                if *engine != Engine::IoUringMultishot {
                    let opts = opts.clone();
                    apart(move || exhaust(&opts, lasts));
                }
                if *engine != Engine::Blocking {
                    apart(move || exhaust_by_holding(&opts, lasts));
                }
            }
        }
    });
}

/// A server of the built program. Killed when dropped.
struct Program(Child);

impl Program {
    fn start(opts: &server::Opts) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_acceptbench")), opts)
    }

    /// With so many descriptors, and no right to more: prlimit(1) of util-linux.
    fn start_limited(opts: &server::Opts, descriptors: u32) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors}:{descriptors}")).arg(env!("CARGO_BIN_EXE_acceptbench"));
        Self::spawn(command, opts)
    }

    fn spawn(mut command: Command, opts: &server::Opts) -> Self {
        let mut child = command
            .arg("server")
            .args(opts.to_args())
            .args(["--admin", ADMIN])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("metrics on")));
        assert!(ready, "the server says where its metrics are");
        // The rest of what it says fits the pipe.
        std::mem::forget(lines);
        Self(child)
    }

    fn snapshot() -> Snapshot {
        let admin: SocketAddr = ADMIN.parse().expect("an address");
        let (_, page) = telemetry::admin::get_local(admin, "/snapshot", Duration::from_secs(5)).expect("a snapshot");
        serde_json::from_str(&page).expect("JSON")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// Sets the soft limit of descriptors of a process; what is open stays open.
fn set_limit(pid: u32, soft: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    let hard = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: soft.or(hard), maximum: hard }).expect("prlimit");
}

/// CPU time a process has used, s. Fields 14 and 15 of `proc_pid_stat(5)`, in ticks of 10 ms.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after_name) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).map(|text| text.parse::<u64>().expect("ticks")).sum();
    ticks as f64 / 100.0
}

fn connect() -> TcpStream {
    let client = TcpStream::connect(SERVER).expect("the queue has room");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    client
}

fn exhaust(opts: &server::Opts, lasts: Duration) {
    let server = Program::start(opts);
    connect().read_exact(&mut [0]).expect("greeted while all is well");
    let acceptors: Vec<u32> = Program::snapshot().acceptors.iter().map(|acceptor| acceptor.pid).collect();
    let pids: Vec<u32> = acceptors.into_iter().map(|pid| if pid == 0 { server.0.id() } else { pid }).collect();
    let limit = |soft| {
        for pid in &pids {
            set_limit(*pid, soft);
        }
    };
    limit(Some(3));
    let used = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
    let before = used();
    let mut clients: Vec<TcpStream> = (0..N).map(|_| connect()).collect();
    std::thread::sleep(lasts);
    let share = (used() - before) / lasts.as_secs_f64();
    let early = clients.iter().filter(|client| {
        client.set_nonblocking(true).expect("set");
        let peeked = client.peek(&mut [0]).is_ok();
        client.set_nonblocking(false).expect("set");
        peeked
    });
    let early = early.count();
    limit(None);
    let after = clients.iter_mut().filter_map(|client| client.read_exact(&mut [0]).ok()).count();
    let books = Program::snapshot();
    let errors: u64 = books.acceptors.iter().filter_map(|acceptor| acceptor.errors.get("EMFILE")).sum();
    let pauses = books.total(|acceptor| acceptor.pauses);
    println!(
        "{:<9} {:<18} {:>4.1} % of a core, {errors} EMFILE, {pauses} pauses, {early} served early, {after} of {N} after",
        opts.workers,
        opts.engine,
        100.0 * share
    );
    // Ticks of 10 ms, of two threads.
    assert!(share < 0.05 + 0.02 / lasts.as_secs_f64(), "{}: {share} of a core", opts.engine);
    assert!(early <= 1, "{}: at most one was accepted before the limit was lowered", opts.engine);
    assert!(errors > 0 && errors <= pauses, "{}: {errors} errors, {pauses} pauses", opts.engine);
    assert_eq!(after, N as usize, "{}: everyone is served once descriptors return", opts.engine);
    assert_eq!(books.accepted(), u64::from(N) + 1, "{}", opts.engine);
}

/// More clients than descriptors, each kept for `lasts`: descriptors return when connections are closed, by the acceptor
/// that has none left.
fn exhaust_by_holding(opts: &server::Opts, lasts: Duration) {
    const DESCRIPTORS: u32 = 64;
    const CLIENTS: u64 = 100;
    let opts = server::Opts { hold: lasts.into(), ..opts.clone() };
    let server = Program::start_limited(&opts, DESCRIPTORS);
    let pids: Vec<u32> = match opts.workers {
        Workers::Threads => vec![server.0.id()],
        Workers::Processes => Program::snapshot().acceptors.iter().map(|acceptor| acceptor.pid).collect(),
    };
    let used = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
    let before = used();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    std::thread::sleep(lasts.mul_f64(0.8));
    let share = (used() - before) / lasts.mul_f64(0.8).as_secs_f64();
    let greeted = || {
        let waiting = |mut client: &TcpStream| client.read_exact(&mut [0]).is_ok();
        clients.iter().filter(|client| waiting(client)).count()
    };
    let got = greeted() as u64;
    // Nobody is held any more, so a descriptor for this is there.
    std::thread::sleep(lasts + Duration::from_millis(100));
    let books = Program::snapshot();
    let errors: u64 = books.acceptors.iter().filter_map(|acceptor| acceptor.errors.get("EMFILE")).sum();
    let what = format!("{} {}", opts.workers, opts.engine);
    println!(
        "{what:<28} {:>4.1} % of a core, {errors} EMFILE, {got} of {CLIENTS} through {DESCRIPTORS} descriptors",
        100.0 * share
    );
    assert!(errors > 0, "{what}: too few descriptors for all");
    assert!(share < 0.05 + 0.04 / lasts.as_secs_f64(), "{what}: {share} of a core");
    assert_eq!((got, books.accepted()), (CLIENTS, CLIENTS), "{what}");
}
