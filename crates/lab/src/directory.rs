//! The results directory: written trial by trial, so that nothing but the trial in flight is lost by any crash, and by
//! one runner at a time, who holds a lock on `trials.jsonl` (flock(2)). The kernel lets go of it however the runner ends.

mod stored;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
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
    /// Its runner was killed before the first trial.
    #[error("{path} holds no {EXPERIMENT}: its runner was ended before the run began; run the experiment again")]
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

/// A directory being written.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Locked.
    trials: File,
    /// Trials in it.
    kept: usize,
    pub(crate) course: Course,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.display().to_string();
    move |source| {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull => "; free some space, or write elsewhere with --results DIR",
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if operation.starts_with("read") => {
                "; name the directory of a run, or run an experiment first"
            }
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory => "; write elsewhere with --results DIR",
            _ => "",
        };
        DirectoryError::Io { operation, path, source, hint }
    }
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
        fs::create_dir_all(root).map_err(failed("make the results directory", root))?;
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let path = unused(root, &format!("{}-{stamp}", experiment.name))?;
        let logs = path.join("logs");
        fs::create_dir(&logs).map_err(failed("make", &logs))?;
        let environment = serde_json::to_vec_pretty(environment).unwrap_or_default();
        write(&path.join(ENVIRONMENT), &environment)?;
        let file = path.join(TRIALS);
        let trials = OpenOptions::new().append(true).create_new(true).open(&file).map_err(failed("make", &file))?;
        lock(&trials, &path)?;
        let course = Course { only: experiment.part.only.clone(), sessions: Vec::new() };
        let mut directory = Self { path, trials, kept: 0, course };
        directory.begin(session)?;
        write(&directory.path.join(EXPERIMENT), experiment.source.as_bytes())?;
        Ok(directory)
    }

    /// A runner takes the run up.
    pub(crate) fn begin(&mut self, session: Session) -> Result<(), DirectoryError> {
        self.course.sessions.push(session);
        write(&self.path.join(COURSE), &serde_json::to_vec_pretty(&self.course).unwrap_or_default())
    }

    /// Whoever holds this descriptor open, too, holds the lock.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.trials.as_fd()
    }

    /// Keeps what an attached run changes, before and after.
    pub(crate) fn write_attached(&self, attached: &Attached) -> Result<(), DirectoryError> {
        write(&self.path.join(ATTACHED), &serde_json::to_vec_pretty(attached).unwrap_or_default())
    }

    /// The name of the directory: the run's name everywhere.
    pub(crate) fn run(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
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
        let mut line = serde_json::to_vec(trial).map_err(|error| failed("write", &file)(error.into()))?;
        line.push(b'\n');
        let end = self.trials.stream_position().and_then(|_| self.trials.seek(io::SeekFrom::End(0)));
        let end = end.map_err(failed("write", &file))?;
        let written = self.trials.write_all(&line).and_then(|()| self.trials.sync_data());
        written.map_err(|error| {
            let _ = self.trials.set_len(end);
            failed("write", &file)(error)
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
            Err(error) => return Err(failed("make", &path)(error)),
        }
    }
    Ok(root.join(candidate))
}

/// A link is replaced by rename, so `latest` always points somewhere.
fn point_latest(directory: &Path) -> Result<(), DirectoryError> {
    let (Some(root), Some(name)) = (directory.parent(), directory.file_name()) else { return Ok(()) };
    let (link, fresh) = (root.join("latest"), root.join(format!(".latest-{}", std::process::id())));
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(name, &fresh).map_err(failed("link", &fresh))?;
    fs::rename(&fresh, &link).map_err(|error| {
        let _ = fs::remove_file(&fresh);
        failed("link", &link)(error)
    })
}

/// Puts a file in its place whole and on the disk, or not at all: it may replace one that is needed to go on.
fn write(path: &Path, content: &[u8]) -> Result<(), DirectoryError> {
    let fresh = path.with_extension("new");
    let written = File::create(&fresh).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&fresh, path)).map_err(|error| {
        let _ = fs::remove_file(&fresh);
        failed("write", path)(error)
    })
}

/// Keeps every other runner out of `directory` for as long as `trials` is open.
fn lock(trials: &File, directory: &Path) -> Result<(), DirectoryError> {
    let began = Instant::now();
    loop {
        match trials.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &directory.join(TRIALS))(error)),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::Busy { path: directory.display().to_string() });
            }
        }
    }
}
