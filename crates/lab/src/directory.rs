//! The results directory: written trial by trial, so that nothing but the trial in flight is lost by any crash, and by
//! one runner at a time, who holds a lock on `trials.jsonl` (flock(2)). The kernel lets go of it however the runner ends.

mod stored;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kernel::environment::Environment;
use study::results::{Attached, Course, Session, Trial};
use thiserror::Error;

use crate::experiment::{Experiment, ExperimentError};
use crate::schedule::Planned;

pub use self::stored::{Reopened, Stored};

/// What a run is, without which there is none: it is made last.
const EXPERIMENT: &str = "experiment.toml";
const ENVIRONMENT: &str = "environment.json";
const TRIALS: &str = "trials.jsonl";
/// How it went.
const COURSE: &str = "run.json";
/// What an attached run changed on the deployment.
const ATTACHED: &str = "attached.json";

/// A runner that was killed may still be on its way out, or have sysctls put back, for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What fsync(2) says of a directory where there is nothing to be had.
const UNSYNCED: [io::ErrorKind; 3] =
    [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported, io::ErrorKind::PermissionDenied];

/// A results directory that cannot be made, written or read.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The file system said no.
    #[error("cannot {operation} {path}: {source}{hint}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// What came back.
        source: io::Error,
        /// What to do, with leading punctuation, or nothing.
        hint: &'static str,
    },
    /// A line of `trials.jsonl` is no trial.
    #[error("{path}:{line}: not a trial: {source}")]
    Malformed {
        /// The file.
        path: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The stored experiment file is not valid any more.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// A file is not what a runner wrote, or not of this run.
    #[error("{path}:{line}: {message}")]
    Wrong {
        /// The file.
        path: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// It is no run, or its runner was killed before it became one.
    #[error(
        "{path} holds no {EXPERIMENT}: it is no run, or its runner was ended before it began; name the directory of a run, or \
         run the experiment again"
    )]
    NotBegun {
        /// The directory.
        path: String,
    },
    /// Another runner holds the lock.
    #[error("another runner is at work in {path}; wait for its end, or stop it first")]
    Busy {
        /// The directory.
        path: String,
    },
}

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// This runner made it.
    New,
    /// An earlier runner did.
    Resumed,
}

/// A directory being written.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Locked.
    trials: File,
    /// Trials in it.
    kept: usize,
    origin: Origin,
    pub(crate) course: Course,
}

/// The name of a run, everywhere: that of its directory, to be asked for by where it is ([`Stored::path`]), not by a link.
pub fn run_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What to do about an error of this kind, with leading punctuation, or nothing.
type Hint = fn(io::ErrorKind) -> &'static str;

/// About a run that is not there yet: its place can still be chosen.
fn elsewhere(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull => "; free some space, or write elsewhere with --results DIR",
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory => "; write elsewhere with --results DIR",
        _ => "",
    }
}

/// About a run that is there: it stays where it is.
fn in_place(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull => "; free some space, then go on with acceptbench run --resume DIR",
        io::ErrorKind::PermissionDenied => "; let this user read and write it",
        io::ErrorKind::ReadOnlyFilesystem => "; copy the run's directory to where it can be written",
        _ => "",
    }
}

/// About a run that is looked for.
fn reading(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "; name the directory of a run, or run an experiment first"
        }
        kind => in_place(kind),
    }
}

fn failed(operation: &'static str, path: &Path, hint: Hint) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.display().to_string();
    move |source| DirectoryError::Io { operation, path, hint: hint(source.kind()), source }
}

impl Directory {
    /// Makes `root/<name>-<UTC>` with the experiment and the environment in it. `root/latest` points at it once it
    /// holds a trial.
    pub(crate) fn create(
        root: &Path,
        experiment: &Experiment,
        environment: &Environment,
        session: Session,
    ) -> Result<Self, DirectoryError> {
        fs::create_dir_all(root).map_err(failed("make the results directory", root, elsewhere))?;
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let path = unused(root, &format!("{}-{stamp}", experiment.name))?;
        let logs = path.join("logs");
        fs::create_dir(&logs).map_err(failed("make", &logs, elsewhere))?;
        let file = path.join(TRIALS);
        let trials = OpenOptions::new().append(true).create_new(true).open(&file);
        let trials = trials.map_err(failed("make", &file, elsewhere))?;
        lock(&trials, &path)?;
        let course = Course { only: experiment.part.only.clone(), sessions: Vec::new() };
        let mut directory = Self { path, trials, kept: 0, origin: Origin::New, course };
        directory.write(ENVIRONMENT, &serde_json::to_vec_pretty(environment).unwrap_or_default())?;
        directory.begin(session)?;
        directory.write(EXPERIMENT, experiment.source.as_bytes())?;
        for made in root.ancestors().take(2) {
            sync(made).map_err(failed("write", made, elsewhere))?;
        }
        Ok(directory)
    }

    /// A runner takes the run up.
    pub(crate) fn begin(&mut self, session: Session) -> Result<(), DirectoryError> {
        self.course.sessions.push(session);
        self.write(COURSE, &serde_json::to_vec_pretty(&self.course).unwrap_or_default())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
        let file = self.path.join(name);
        write(&file, content).map_err(failed("write", &file, self.hint()))
    }

    /// What is to be done when it cannot be written. A run of no trials does not stay where it was begun.
    fn hint(&self) -> Hint {
        if self.origin == Origin::New && self.kept == 0 { elsewhere } else { in_place }
    }

    /// What is to be done about a lack of space.
    pub(crate) fn hint_of_space(&self) -> &'static str {
        self.hint()(io::ErrorKind::StorageFull)
    }

    /// Whoever holds this descriptor open, too, holds the lock.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.trials.as_fd()
    }

    /// Keeps what an attached run changes, before and after.
    pub(crate) fn write_attached(&self, attached: &Attached) -> Result<(), DirectoryError> {
        let file = self.attached();
        write_attached(&file, attached).map_err(failed("write", &file, self.hint()))
    }

    /// The file that says so.
    pub(crate) fn attached(&self) -> PathBuf {
        self.path.join(ATTACHED)
    }

    /// What the run is called.
    pub(crate) fn run(&self) -> String {
        run_name(&self.path)
    }

    /// Where the processes of a trial write.
    pub(crate) fn log(&self, planned: Planned) -> PathBuf {
        let Planned { trial, retry, .. } = planned;
        let retry = if retry > 0 { format!("-retry-{retry}") } else { String::new() };
        self.path.join("logs").join(format!("trial-{trial:04}{retry}.log"))
    }

    /// Appends one trial and waits until it is on the disk. A line that does not fit is taken back.
    pub(crate) fn append(&mut self, trial: &Trial) -> Result<(), DirectoryError> {
        let file = self.path.join(TRIALS);
        let hint = self.hint();
        let mut line = serde_json::to_vec(trial).map_err(|error| failed("write", &file, hint)(error.into()))?;
        line.push(b'\n');
        let end = self.trials.metadata().map_err(failed("write", &file, hint))?.len();
        let written = self.trials.write_all(&line).and_then(|()| self.trials.sync_data());
        written.map_err(|error| {
            let _ = self.trials.set_len(end);
            failed("write", &file, hint)(error)
        })?;
        self.kept += 1;
        if self.kept == 1 { point_latest(&self.path) } else { Ok(()) }
    }

    /// Removes the directory of a run that kept nothing, unless a log in it says why.
    pub(crate) fn remove_if_useless(&self) {
        if self.kept == 0 && fs::remove_dir(self.path.join("logs")).is_ok() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }

    /// Removes logs nobody wrote to.
    pub(crate) fn remove_empty_logs(&self) {
        let Ok(logs) = fs::read_dir(self.path.join("logs")) else { return };
        for log in logs.flatten() {
            if log.metadata().is_ok_and(|meta| meta.len() == 0) {
                let _ = fs::remove_file(log.path());
            }
        }
    }
}

/// A directory name not taken yet: two runs may start in the same second.
fn unused(root: &Path, name: &str) -> Result<PathBuf, DirectoryError> {
    let mut candidate = name.to_owned();
    for number in 2.. {
        let path = root.join(&candidate);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => candidate = format!("{name}-{number}"),
            Err(error) => return Err(failed("make", &path, elsewhere)(error)),
        }
    }
    Ok(root.join(candidate))
}

/// A link is replaced by rename, so `latest` always points somewhere.
fn point_latest(directory: &Path) -> Result<(), DirectoryError> {
    let (Some(root), Some(name)) = (directory.parent(), directory.file_name()) else { return Ok(()) };
    let (link, fresh) = (root.join("latest"), root.join(format!(".latest-{}", std::process::id())));
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(name, &fresh).map_err(failed("link", &fresh, in_place))?;
    fs::rename(&fresh, &link).map_err(|error| {
        let _ = fs::remove_file(&fresh);
        failed("link", &link, in_place)(error)
    })
}

/// Writes what an attached run changes to its file.
pub(crate) fn write_attached(file: &Path, attached: &Attached) -> io::Result<()> {
    write(file, &serde_json::to_vec_pretty(attached).unwrap_or_default())
}

/// Puts a file in its place whole and on the disk, or not at all: it may replace one that is needed to go on.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let written = File::create(&fresh).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    let placed = written.and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| drop(fs::remove_file(&fresh)));
    placed.and_then(|()| path.parent().map_or(Ok(()), sync))
}

/// Waits until the names in a directory are on the disk (fsync(2)). Where that is not to be had, because the file system
/// knows no such thing or the directory may not be read, things stay as they are.
fn sync(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        Err(error) if UNSYNCED.contains(&error.kind()) => Ok(()),
        result => result,
    }
}

/// Keeps every other runner out of `directory` for as long as `trials` is open.
fn lock(trials: &File, directory: &Path) -> Result<(), DirectoryError> {
    let began = Instant::now();
    loop {
        match trials.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &directory.join(TRIALS), in_place)(error)),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::Busy { path: directory.display().to_string() });
            }
        }
    }
}
