//! The processes of a target: started, stopped and continued together, and ended.
//!
//! Every process below the keeper is the target's. Those are found anew each time, until a walk over `/proc` finds nobody new:
//! whoever is stopped forks no more.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use kernel::descendants;
use rustix::process::{Pid, Signal, kill_process};
use telemetry::Warning;

use super::{Order, in_words, lock};
use crate::control::Failure;

/// Walks at most until all are stopped. Each finds the children of those who forked during the one before.
const WALKS: usize = 20;

/// Time between two looks at whether it has ended.
const POLL: Duration = Duration::from_millis(2);

/// Signals that a program has to get: those that end it, and those it waits for.
const OF_ITS_OWN: [Signal; 9] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::PIPE,
    Signal::ALARM,
    Signal::CHILD,
];

/// How a log begins, so that it is there and says whose it is also when the target says nothing.
const STARTED: &str = "acceptbench starts: ";

/// How much of a log is looked at for its last line, and how much of that is told.
const TAIL_BYTES: u64 = 4096;
const WORDS: usize = 200;

/// The warning of a pause that did not come about.
pub(crate) const NOT_PAUSED: &str = "target-not-paused";

/// How a target ended, and whether processes of it go on.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) how: How,
    pub(super) others: bool,
}

/// How its first process ended.
#[derive(Debug)]
pub(super) struct How(ExitStatus);

impl How {
    pub(super) fn is_success(&self) -> bool {
        self.0.success()
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, signal) => write!(f, "signal {}", signal.unwrap_or_default()),
        }
    }
}

/// What is done to all of them.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum State {
    #[default]
    Running,
    Paused,
    /// Stopped, or ending: no plan changes that any more.
    Over,
}

/// A target's processes.
#[derive(Debug)]
pub(super) struct Processes {
    first: Mutex<Child>,
    state: Mutex<State>,
    /// Found before they are to be stopped, or stopped.
    known: Mutex<Vec<Pid>>,
    warnings: Mutex<Vec<Warning>>,
}

impl Processes {
    /// Writes the files and starts the command.
    pub(super) fn start(order: &Order) -> Result<Self, Failure> {
        let cannot =
            |what: String| move |error: io::Error| Failure::requirement(format!("target: cannot {what}: {error}"));
        fs::create_dir_all(&order.directory).map_err(cannot(format!("make {}", order.directory.display())))?;
        for (name, text) in &order.files {
            let path = order.directory.join(name);
            fs::write(&path, text).map_err(cannot(format!("write {}", path.display())))?;
            // One of them may be the program.
            let program = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&path, program).map_err(cannot(format!("let {} be started", path.display())))?;
        }
        descendants::adopt_orphans().map_err(cannot("become the parent of its orphans".to_owned()))?;
        // The runner takes some as data, and whoever is started inherits what is blocked: nobody could end it.
        kernel::process::unblock(&OF_ITS_OWN).map_err(cannot("unblock signals".to_owned()))?;
        let log = || io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
        let [program, arguments @ ..] = order.command.as_slice() else {
            return Err(Failure::usage("target.command names no program"));
        };
        // A log that cannot be written is no reason not to run.
        let _ = writeln!(io::stderr(), "{STARTED}{}", in_words(&order.command));
        let first = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", &order.path)
            .current_dir(&order.directory)
            .stdin(Stdio::null())
            .stdout(log().map_err(cannot("open its log".to_owned()))?)
            .stderr(log().map_err(cannot("open its log".to_owned()))?)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Failure::usage(format!("target.command: cannot start `{}`: {error}", in_words(&order.command)))
            })?;
        Ok(Self {
            first: Mutex::new(first),
            state: Mutex::default(),
            known: Mutex::default(),
            warnings: Mutex::default(),
        })
    }

    /// How the first process ended, if it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        let how = lock(&self.first).try_wait().ok()??;
        let others = descendants::of_this_process().is_ok_and(|found| !found.is_empty());
        Some(Ended { how: How(how), others })
    }

    /// What did not go as planned.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        lock(&self.warnings).clone()
    }

    /// Finds them, so that stopping them takes no walk first.
    pub(super) fn look_ahead(&self) {
        *lock(&self.known) = descendants::of_this_process().unwrap_or_default();
    }

    /// Stops them all.
    pub(super) fn pause(&self) {
        let mut state = lock(&self.state);
        if *state == State::Running {
            *state = State::Paused;
            self.note(self.stop_all());
        }
    }

    /// Continues them all: those that were stopped at once, then whoever a walk over `/proc` finds.
    pub(super) fn go_on(&self) {
        let mut state = lock(&self.state);
        if *state == State::Paused {
            *state = State::Running;
            for pid in lock(&self.known).drain(..) {
                let _ = kill_process(pid, Signal::CONT);
            }
            self.note(signal_all(Signal::CONT).map(drop));
        }
    }

    /// Stops them, whatever was planned: nobody accepts any more.
    pub(super) fn stop_for_good(&self) -> io::Result<()> {
        *lock(&self.state) = State::Over;
        self.stop_all()
    }

    fn note(&self, result: io::Result<()>) {
        if let Err(error) = result {
            let hint =
                "the trial is not what was asked for: see that /proc is mounted, and shows this user's processes";
            lock(&self.warnings).push(Warning::new(NOT_PAUSED, format!("the target was not paused: {error}"), hint));
        }
    }

    /// Keeps whom it stopped, to be continued.
    fn stop_all(&self) -> io::Result<()> {
        let mut known = lock(&self.known);
        let mut stopped = BTreeSet::new();
        for pid in known.drain(..) {
            stop(pid, &mut stopped);
        }
        let result = walk_and_stop(&mut stopped);
        known.extend(stopped.into_iter().filter_map(Pid::from_raw));
        result
    }

    /// Asks the first process to end, and waits. Whoever is left is killed; false when that was the first.
    pub(super) fn end(&self, signal: Signal, limit: Duration) -> bool {
        *lock(&self.state) = State::Over;
        let mut first = lock(&self.first);
        let pid = i32::try_from(first.id()).ok().and_then(Pid::from_raw);
        // It cannot be gone: nobody has waited for it.
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
        let _ = signal_all(Signal::CONT);
        let deadline = Instant::now() + limit;
        let mut orderly = true;
        while matches!(first.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                orderly = false;
                break;
            }
            thread::sleep(POLL);
        }
        drop(first);
        self.kill();
        orderly
    }

    /// Kills whatever is left of it.
    pub(super) fn kill(&self) {
        *lock(&self.state) = State::Over;
        // What this misses ends with the trial.
        let _ = signal_all(Signal::KILL);
        let mut first = lock(&self.first);
        let _ = first.kill();
        let _ = first.wait();
    }
}

/// Stops everybody below the keeper, until a walk finds nobody new.
fn walk_and_stop(stopped: &mut BTreeSet<i32>) -> io::Result<()> {
    for _ in 0..WALKS {
        let before = stopped.len();
        for pid in descendants::of_this_process()? {
            stop(pid, stopped);
        }
        if stopped.is_empty() {
            return Err(io::Error::other("/proc shows no process of it"));
        }
        if stopped.len() == before {
            return Ok(());
        }
    }
    Err(io::Error::other("it forks faster than it can be stopped"))
}

/// Sends SIGSTOP to a process that has not had it yet.
fn stop(pid: Pid, stopped: &mut BTreeSet<i32>) {
    if stopped.insert(pid.as_raw_nonzero().get()) {
        let _ = kill_process(pid, Signal::STOP);
    }
}

fn signal_all(signal: Signal) -> io::Result<()> {
    for pid in descendants::of_this_process()? {
        let _ = kill_process(pid, signal);
    }
    Ok(())
}

/// The last line of a log, in so many characters, without what a terminal would act on.
pub(super) fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with(STARTED))?;
    Some(line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_told() {
        let mut log = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(last_words(log.path()), None);
        writeln!(log, "{STARTED}nginx").expect("written");
        assert_eq!(last_words(log.path()), None, "those are ours");
        let lengthy = "x".repeat(5000);
        write!(log, "{lengthy}\nfirst\nlast\u{1b}[0m words \n\n").expect("written");
        assert_eq!(last_words(log.path()).as_deref(), Some("last [0m words"));
        writeln!(log, "{lengthy}").expect("written");
        assert_eq!(last_words(log.path()).expect("words").len(), WORDS);
        assert_eq!(last_words(Path::new("/nowhere")), None);
    }
}
