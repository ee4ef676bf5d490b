//! The results directory: written trial by trial, so that nothing but the trial in flight is lost by any crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kernel::environment::Environment;
use serde::de::DeserializeOwned;
use study::results::{Attached, Trial};
use thiserror::Error;

use crate::experiment::{Experiment, ExperimentError};

/// What an attached run changed on the deployment.
const ATTACHED: &str = "attached.json";

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
}

/// A directory being written.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    trials: File,
    /// Trials in it.
    kept: usize,
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
    ) -> Result<Self, DirectoryError> {
        fs::create_dir_all(root).map_err(failed("make the results directory", root))?;
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let path = unused(root, &format!("{}-{stamp}", experiment.name))?;
        let logs = path.join("logs");
        fs::create_dir(&logs).map_err(failed("make", &logs))?;
        write(&path.join("experiment.toml"), experiment.source.as_bytes())?;
        let environment = serde_json::to_vec_pretty(environment).unwrap_or_default();
        write(&path.join("environment.json"), &environment)?;
        let file = path.join("trials.jsonl");
        let trials = OpenOptions::new().append(true).create_new(true).open(&file).map_err(failed("make", &file))?;
        Ok(Self { path, trials, kept: 0 })
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
    pub(crate) fn log(&self, trial: usize) -> PathBuf {
        self.path.join("logs").join(format!("trial-{trial:04}.log"))
    }

    /// Appends one trial and waits until it is on the disk. A line that does not fit is taken back.
    pub(crate) fn append(&mut self, trial: &Trial) -> Result<(), DirectoryError> {
        let file = self.path.join("trials.jsonl");
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

fn write(path: &Path, content: &[u8]) -> Result<(), DirectoryError> {
    fs::write(path, content).map_err(failed("write", path))
}

/// A finished (or unfinished) run, read back.
#[derive(Debug)]
pub struct Stored {
    /// Its experiment.
    pub experiment: Experiment,
    /// Its trials, in the order they were run.
    pub trials: Vec<Trial>,
    /// The machine it ran on.
    pub environment: Option<Environment>,
    /// What it changed on a running deployment, if it was attached to one.
    pub attached: Option<Attached>,
}

impl Stored {
    /// Reads a results directory.
    ///
    /// # Errors
    /// A missing or malformed file, named with its line.
    pub fn read(path: &Path) -> Result<Self, DirectoryError> {
        fs::read_dir(path).map_err(failed("read the results directory", path))?;
        let experiment = Experiment::read_stored(&path.join("experiment.toml"))?;
        let file = path.join("trials.jsonl");
        let mut text = fs::read_to_string(&file).map_err(failed("read", &file))?;
        // A runner killed while it wrote leaves a line without its end: that trial was not kept.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        let mut trials = Vec::new();
        for (index, line) in text.lines().enumerate() {
            trials.push(serde_json::from_str(line).map_err(|source| DirectoryError::Malformed {
                path: file.display().to_string(),
                line: index + 1,
                source,
            })?);
        }
        Ok(Self {
            experiment,
            trials,
            environment: read_json(&path.join("environment.json")),
            attached: read_json(&path.join(ATTACHED)),
        })
    }
}

/// A file that is there for some runs and older versions did not write.
fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
