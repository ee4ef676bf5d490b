//! Programs a test starts: what they print, and that none outlives the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The program under test.
pub(crate) const ACCEPTBENCH: &str = env!("CARGO_BIN_EXE_acceptbench");

/// A child that is killed, by its process id, when the test is done with it or panics. The kernel kills it when the
/// test's own process is killed (setpriv sets `PR_SET_PDEATHSIG` and becomes the program).
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts a program, without settings of the caller's environment.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ACCEPTBENCH_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {program}: {error}"));
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("piped"), sender.clone());
        read_lines(child.stderr.take().expect("piped"), sender);
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that begins with `prefix` and returns the first word after it; `None` when the program ended
    /// without one.
    pub(crate) fn find(&mut self, prefix: &str) -> Option<String> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let word = line
                        .strip_prefix(prefix)
                        .map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned());
                    self.seen.push(line);
                    if word.is_some() {
                        return word;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no line {prefix:?} in {:#?}", self.seen),
            }
        }
    }

    /// Waits for the line that says where metrics are; `None` when the program ended before.
    pub(crate) fn find_admin(&mut self) -> Option<SocketAddr> {
        let url = self.find("metrics on http://")?;
        let addr = url.strip_suffix("/metrics").and_then(|addr| addr.parse().ok());
        Some(addr.unwrap_or_else(|| panic!("{url:?} is no page of metrics")))
    }

    /// Waits for the line that says where metrics are.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        self.find_admin().unwrap_or_else(|| panic!("ended without metrics: {:#?}", self.seen))
    }

    /// Has it ended?
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Waits for its end; its status and all it printed.
    pub(crate) fn finish(mut self, limit: Duration) -> (ExitStatus, Vec<String>) {
        let end = Instant::now() + limit;
        // Both streams close when it ends.
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running after {limit:?}: {:#?}", self.seen),
            }
        }
        let status = self.child.wait().expect("wait for a child");
        (status, std::mem::take(&mut self.seen))
    }

    /// Asks it to end, with SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signal a child that was not waited for");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // Fails only when it has ended since.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_lines(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
}
