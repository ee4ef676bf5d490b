//! The tools, each with the options with which it does one thing fastest: a new connection per request. Pure command lines,
//! but for looking whether a program is there.

use std::path::PathBuf;

use crate::child::Process;
use crate::scene::Scene;

/// What every tool asks.
const URL: &str = "http://127.0.0.1:9700/";

/// The same as a text for `acceptbench loadgen --send`.
const REQUEST: &str = r"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A tool that Debian packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Its program.
    pub(crate) program: &'static str,
    /// The package that has it.
    pub(crate) package: &'static str,
}

/// wrk: threads, a connection count, a time.
pub(crate) const WRK: Tool = Tool { program: "wrk", package: "wrk" };
/// ab: one thread, so one process per CPU.
pub(crate) const AB: Tool = Tool { program: "ab", package: "apache2-utils" };
/// httperf: one thread, and one connection at a time unless it is given a rate.
pub(crate) const HTTPERF: Tool = Tool { program: "httperf", package: "httperf" };
/// h2load: threads, a connection count, a number of requests.
pub(crate) const H2LOAD: Tool = Tool { program: "h2load", package: "nghttp2-client" };

impl Tool {
    /// Its program, if it is installed.
    pub(crate) fn path(self) -> Option<PathBuf> {
        let directories = std::env::var_os("PATH").unwrap_or_default();
        let mut paths = std::env::split_paths(&directories).map(|directory| directory.join(self.program));
        paths.find(|path| path.is_file()).and_then(|path| path.canonicalize().ok())
    }

    /// What its row says when it is not.
    pub(crate) fn missing(self) -> String {
        format!("{} is not installed (Debian package {})", self.program, self.package)
    }
}

/// The built acceptbench.
fn acceptbench(args: &[&str]) -> Process {
    Process::new(env!("CARGO_BIN_EXE_acceptbench"), args)
}

/// The project's server as it is fastest, closing what it accepts.
pub(crate) fn acceptbench_server(threads: usize) -> Process {
    let threads = threads.to_string();
    acceptbench(&[
        "server",
        "--admin=off",
        "--backlog=65535",
        "--reuseport=incoming-cpu",
        "--acceptors",
        &threads,
        "--cpus=auto",
        "--on-accept=close",
    ])
}

/// The project's generator, with a worker per CPU unless `more` says otherwise.
pub(crate) fn loadgen(more: &[&str]) -> Process {
    let mut process = acceptbench(&["loadgen", "--admin=off", "--cpus=auto"]);
    process.args.extend(more.iter().map(ToString::to_string));
    // 2: it says that it was itself the bottleneck, which a closed loop is meant to find.
    process.also_fine = vec![2];
    process
}

/// The arguments of a closed loop with `level` connections in flight.
pub(crate) fn closed(level: u32, seconds: u32) -> [String; 2] {
    [format!("--arrivals=closed:{level}"), format!("--duration={seconds}s")]
}

/// The arguments that make the generator ask as HTTP tools do.
pub(crate) fn asking() -> [String; 3] {
    ["--confirm=reply".to_owned(), format!("--send={REQUEST}"), "--expect=HTTP/1.1 200".to_owned()]
}

/// wrk with all connections together.
pub(crate) fn wrk(program: PathBuf, threads: usize, connections: u32, seconds: u32) -> Process {
    let (threads, connections) = (format!("-t{threads}"), format!("-c{connections}"));
    Process::new(program, &[&threads, &connections, &format!("-d{seconds}s"), "-H", "Connection: close", URL])
}

/// One ab of several.
pub(crate) fn ab(program: PathBuf, connections: u32, seconds: u32) -> Process {
    // -t alone ends at 50 000 requests; -n behind it lifts that, and costs 40 bytes for each. No -k: no keep-alive.
    let (connections, requests) = (connections.max(1).to_string(), (seconds * 200_000).to_string());
    Process::new(program, &["-q", "-r", "-c", &connections, "-t", &seconds.to_string(), "-n", &requests, URL])
}

/// One httperf of several, which connects as soon as the connection before is over.
pub(crate) fn httperf(program: PathBuf, connections: u64) -> Process {
    httperf_with(program, connections, &[])
}

/// One httperf that begins `rate` connections per second, or `period` apart.
pub(crate) fn httperf_paced(program: PathBuf, connections: u64, pace: &str) -> Process {
    httperf_with(program, connections, &[pace])
}

fn httperf_with(program: PathBuf, connections: u64, more: &[&str]) -> Process {
    let connections = format!("--num-conns={connections}");
    let mut process = Process::new(
        program,
        &["--hog", "--server=127.0.0.1", "--port=9700", "--uri=/", &connections, "--num-calls=1", "--timeout=5"],
    );
    process.args.extend(more.iter().map(ToString::to_string));
    process
}

/// h2load over HTTP/1.1. By number, not by time (`-D`): told to close, its timed mode connects for ever.
pub(crate) fn h2load(program: PathBuf, threads: usize, connections: u32, requests: u64) -> Process {
    let (threads, connections) = (format!("-t{threads}"), format!("-c{connections}"));
    Process::new(program, &["--h1", &threads, &connections, &format!("-n{requests}"), URL])
}

/// h2load that makes `per_ms` clients every ms, each of which makes one request on its connection.
pub(crate) fn h2load_paced(program: PathBuf, connections: u64, per_ms: u64) -> Process {
    let (clients, requests) = (format!("-c{connections}"), format!("-n{connections}"));
    Process::new(program, &["--h1", "-t1", &clients, &requests, "-r", &per_ms.to_string(), "--rate-period=1ms", URL])
}

/// Clients that answerers serve: the responder, with a listener per thread.
pub(crate) fn against_responder(threads: usize, clients: Vec<Process>, seconds: u32) -> Scene {
    let server = Process::own(&["responder", &format!("threads={threads}")]);
    Scene { server, listeners: threads, clients, client_cpus: Vec::new(), limit: limit(seconds) }
}

/// When clients that should take `seconds` are given up.
pub(crate) fn limit(seconds: u32) -> u64 {
    u64::from(seconds) * 4 + 20
}
