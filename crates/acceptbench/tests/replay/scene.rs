//! A server that is loaded and recorded in this test's own network, and trials in the lab.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadgen::Verdict;
use rustix::process::{Pid, Signal, kill_process};
use study::results::Trial;
use tempfile::TempDir;

use crate::burst::Burst;

const LISTEN: &str = "127.0.0.1:9700";
const COOKIES: &str = "net.ipv4.tcp_syncookies";

/// One measurement at a time: two would be each other's noise.
static MACHINE: Mutex<()> = Mutex::new(());

/// The machine, for as long as the guard lives.
pub(crate) fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attempts that were not served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) lost: u64,
    pub(crate) planned: u64,
}

/// A replay.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// With the knobs of the recording.
    pub(crate) recorded: Lost,
    /// With the others.
    pub(crate) other: Lost,
}

/// A program that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    /// From when it has printed a line that begins so.
    pub(crate) fn start(mut command: Command, ready: &str) -> Self {
        let mut running = Self(command.stdout(Stdio::piped()).spawn().expect("the program starts"));
        let mut lines = BufReader::new(running.0.stdout.take().expect("piped")).lines();
        let found = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with(ready));
        assert!(found, "{command:?} did not say {ready:?}");
        // Whoever prints later finds a reader.
        std::thread::spawn(move || lines.for_each(drop));
        running
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn ends_well(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("a child that was not waited for");
        let status = self.0.wait().expect("a child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn acceptbench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
    command.env_clear().args(args);
    command
}

pub(crate) fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// A directory for what is made.
pub(crate) struct Scene {
    directory: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `acceptbench ARGS` in this directory; the run came to its end, though on a busy machine a trial may not count.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output = acceptbench(args).current_dir(self.path()).output().expect("the program starts");
        let said = text(&output);
        assert!(matches!(output.status.code(), Some(0 | 2)), "{args:?}: {:?}: {said}", output.status);
        said
    }

    /// Loads a server of this network with the burst, and has `watch` record it.
    pub(crate) fn record(&self, burst: &Burst) -> PathBuf {
        kernel::sysctl::write(COOKIES, if burst.cookies { "1" } else { "0" }).expect("our own network");
        let path = self.path().join("burst.rec");
        let (backlog, delay) = (burst.backlog.to_string(), format!("{}us", burst.service_us));
        let server = ["server", "--admin", "off", "--listen", LISTEN, "--backlog", &backlog, "--accept-delay", &delay];
        let server = Running::start(acceptbench(&server), "listening on ");
        let watch = ["watch", "--admin", "off", "--port", "9700", "--record", path.to_str().expect("UTF-8")];
        let watch = Running::start(acceptbench(&watch), "recording 127.0.0.1:9700 ");
        let trace = self.path().join("trace");
        fs::write(&trace, burst.arrivals().trim_start_matches("trace:")).expect("written");
        let arrivals = format!("trace:@{}", trace.display());
        let deadline = format!("{}ms", burst.deadline_ms);
        self.run(&["loadgen", "--admin", "off", "--arrivals", &arrivals, "--duration", "1s", "--deadline", &deadline]);
        // Who gave up is still in the queue.
        std::thread::sleep(Duration::from_micros(burst.service_us * (burst.backlog + 2)) + Duration::from_millis(20));
        watch.ends_well();
        server.ends_well();
        path
    }

    /// Replays it.
    pub(crate) fn replay(&self, recording: &Path, burst: &Burst) -> Replayed {
        let deadline = format!("{}ms", burst.deadline_ms);
        let backlog = format!("server.backlog={}", burst.other_backlog);
        let somaxconn = format!("sysctl.net.core.somaxconn={}", burst.other_somaxconn);
        let recording = recording.to_str().expect("UTF-8");
        let options = ["--replicates", "1", "--admin", "off", "--deadline", &deadline];
        self.run(&[&["replay", recording, "--set", &backlog, "--set", &somaxconn], &options[..]].concat());
        let trials = self.trials();
        let of = |cell: usize| lost(trials.iter().rfind(|trial| trial.cell == cell).expect("a trial"));
        Replayed { recorded: of(0), other: of(1) }
    }

    /// The burst itself, with the other knobs.
    pub(crate) fn truth(&self, burst: &Burst) -> Lost {
        let file = format!(
            "[experiment]\nname = \"truth\"\nquestion = \"?\"\nreplicates = 1\nwarm-up = \"0s\"\nmeasure = \"1s\"\n\
             [server]\nbacklog = {}\naccept-delay = \"{}us\"\n[loadgen]\narrivals = \"{}\"\ndeadline = \"{}ms\"\n\
             [sysctl]\n\"net.core.somaxconn\" = {}\n\"{COOKIES}\" = {}\n",
            burst.other_backlog,
            burst.service_us,
            burst.arrivals(),
            burst.deadline_ms,
            burst.other_somaxconn,
            u8::from(burst.cookies),
        );
        fs::write(self.path().join("truth.toml"), file).expect("written");
        self.run(&["run", "truth.toml", "--admin", "off"]);
        lost(self.trials().last().expect("a trial"))
    }

    fn trials(&self) -> Vec<Trial> {
        let lines = fs::read_to_string(self.path().join("results/latest/trials.jsonl")).expect("trials");
        lines.lines().map(|line| serde_json::from_str(line).expect("a trial")).collect()
    }
}

fn lost(trial: &Trial) -> Lost {
    let cohort = &trial.loadgen.measured;
    Lost { lost: cohort.planned - cohort.verdict(Verdict::Served), planned: cohort.planned }
}
