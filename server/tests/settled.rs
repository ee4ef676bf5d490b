//! Acceptors run where and as they are told to, whatever engine they use.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kernel::process::{allowed_cpus, monotonic_ns};
use server::opts::{Cpus, Engine, Reuseport, Scheduling};
use server::{Opts, Origin, Plan, Server};
use telemetry::namespace::Detail;

/// `SCHED_OTHER` and `SCHED_BATCH`, sched(7).
const POLICIES: [(Scheduling, &str); 2] = [(Scheduling::Normal, "0"), (Scheduling::Batch, "3")];

/// A thread settles before it accepts.
const SETTLED: Duration = Duration::from_secs(5);

/// Policy and CPUs of every thread of this process that accepts: its name begins with one of these.
fn acceptors() -> Vec<(String, String)> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").map(|task| task.expect("a task").path());
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let accepts = |task: &PathBuf| {
        let name = read(task.join("comm"));
        name.starts_with("acceptor-") || name.starts_with("tokio-worker")
    };
    let settings = |task: PathBuf| {
        // proc_pid_stat(5): field 41, and the second, in parentheses, may hold blanks.
        let stat = read(task.join("stat"));
        let policy = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(38)).unwrap_or_default();
        let status = read(task.join("status"));
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        (policy.to_owned(), cpus.trim().to_owned())
    };
    let mut found: Vec<_> = tasks.filter(accepts).map(settings).collect();
    found.sort_unstable();
    found
}

#[test]
fn every_engine_has_the_policy_and_the_cpus_that_were_asked_for() {
    let cpus = allowed_cpus().expect("CPUs");
    for engine in server::opts::values::<Engine>() {
        for (scheduling, policy) in POLICIES {
            let opts = Opts {
                listen: "127.0.0.1:0".parse().expect("an address"),
                acceptors: 2.try_into().expect("above 0"),
                reuseport: Reuseport::Hash,
                engine: *engine,
                cpus: Cpus::Auto,
                scheduling,
                ..Opts::default()
            };
            let server = Server::start(&Plan::try_from(opts).expect("valid"), Origin::default()).expect("listens");
            server.begin(monotonic_ns());
            let mut wanted: Vec<_> =
                cpus.iter().cycle().take(2).map(|cpu| (policy.to_owned(), cpu.to_string())).collect();
            wanted.sort_unstable();
            let began = Instant::now();
            while acceptors() != wanted {
                assert!(began.elapsed() < SETTLED, "{engine:?} {scheduling}: {:?}, not {wanted:?}", acceptors());
                std::thread::sleep(Duration::from_millis(2));
            }
            server.finish(Detail::Books);
        }
    }
}
