//! A server and its successors, by process id, and all that they print.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The program under test.
pub(crate) const ACCEPTBENCH: &str = env!("CARGO_BIN_EXE_acceptbench");

/// By then anything has happened that is going to.
const LIMIT: Duration = Duration::from_secs(30);

/// Servers that replace each other. They share their output, which ends with the last of them.
#[derive(Debug)]
pub(crate) struct Servers {
    first: Child,
    pids: Vec<Pid>,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// A command of this program without settings of the caller's environment.
pub(crate) fn acceptbench(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").stdin(Stdio::null());
    command
}

impl Servers {
    /// The first server, from when it listens and shows metrics.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = acceptbench(ACCEPTBENCH);
        command.arg("server").args(args);
        Self::run(command)
    }

    /// The first server as this command starts it.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut first = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the server starts");
        let (sender, lines) = mpsc::channel();
        read_lines(first.stdout.take().expect("piped"), sender.clone());
        read_lines(first.stderr.take().expect("piped"), sender);
        let pids = vec![Pid::from_child(&first)];
        let mut servers = Self { first, pids, lines, said: Vec::new() };
        servers.line("metrics on http://");
        servers
    }

    /// Waits for a line that contains `part`.
    pub(crate) fn line(&mut self, part: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                panic!("no line {part:?} in {:#?}", self.said);
            };
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Signals the server that is the last so far.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(*self.pids.last().expect("the first"), signal).expect("it runs");
    }

    /// The process id of the last so far.
    pub(crate) fn pid(&self) -> i32 {
        self.pids.last().expect("the first").as_raw_nonzero().get()
    }

    /// A hot restart, from the signal to when the last server has handed over.
    pub(crate) fn restart(&mut self) {
        self.signal(Signal::USR2);
        let line = self.line("handed over to pid ");
        let pid = line.rsplit(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        self.pids.push(pid.expect("a process id"));
    }

    /// SIGTERM ends the last, and with it all have ended well; everything they printed.
    pub(crate) fn end(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        // Both streams end only when nobody holds them any more: no successor and no child of one is left.
        let end = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("somebody still runs: {:#?}", self.said),
            }
        }
        let first = self.first.wait().expect("a child");
        assert!(first.success(), "{first}: {:#?}", self.said);
        for pid in &self.pids[1..] {
            let (_, status) = waitpid(Some(*pid), WaitOptions::empty()).expect("an orphan of ours").expect("ended");
            assert_eq!(status.exit_status(), Some(0), "{pid:?}: {:#?}", self.said);
        }
        self.said
    }
}

fn read_lines(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
}

/// What a server says at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) accepted: u64,
    pub(crate) greeted: u64,
    /// What it says of dead on accept, accept errors and left in the queue, which it leaves out when there was none.
    pub(crate) amiss: Vec<String>,
}

/// The outcomes among these lines: each begins with what was accepted and goes on in indented lines.
pub(crate) fn outcomes(lines: &[String]) -> Vec<Outcome> {
    let number = |line: &str, name: &str| {
        let rest = line.split_once(name).unwrap_or_else(|| panic!("no {name:?} in {line:?}")).1;
        rest.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).expect("a number")
    };
    let mut found: Vec<Outcome> = Vec::new();
    for line in lines {
        if line.starts_with("accepted ") {
            let (accepted, greeted) = (number(line, "accepted "), number(line, "greeted "));
            found.push(Outcome { accepted, greeted, amiss: Vec::new() });
        }
        let amiss = ["dead on accept", "accept errors", "left in the queue"].iter().any(|what| line.contains(what));
        if let Some(outcome) = found.last_mut().filter(|_| amiss) {
            outcome.amiss.push(line.clone());
        }
    }
    found
}
