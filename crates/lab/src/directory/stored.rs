//! A results directory read back: to say again what came of a run, or to go on with one that was interrupted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use kernel::environment::Environment;
use serde::de::DeserializeOwned;
use study::results::{Attached, Course, Trial};

use super::{
    ATTACHED, COURSE, Directory, DirectoryError, ENVIRONMENT, EXPERIMENT, Origin, TRIALS, failed, in_place, lock,
    point_latest, reading,
};
use crate::agenda::Agenda;
use crate::experiment::{Experiment, Place};

/// Links that are followed from one to the next, at most (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A finished (or unfinished) run, read back.
#[derive(Debug)]
pub struct Stored {
    /// Where it is, whatever link led there.
    pub path: PathBuf,
    /// Its experiment, and the part of it that is run.
    pub experiment: Experiment,
    /// Its trials, in the order they were run.
    pub trials: Vec<Trial>,
    /// The machine it began on.
    pub environment: Option<Environment>,
    /// How it went; nothing is known of a run of an older version.
    pub course: Course,
    /// What it changed on a running deployment, if it was attached to one.
    pub attached: Option<Attached>,
}

impl Stored {
    /// Reads a results directory.
    ///
    /// # Errors
    /// A missing or malformed file, named with its line.
    pub fn read(path: &Path) -> Result<Self, DirectoryError> {
        Ok(Self::read_up_to(&found(path)?)?.0)
    }

    /// Reads it, and up to where `trials.jsonl` is whole, in bytes.
    fn read_up_to(path: &Path) -> Result<(Self, u64), DirectoryError> {
        let mut experiment = Experiment::read_stored(&path.join(EXPERIMENT))?;
        let course: Course = read_json(&path.join(COURSE))?.unwrap_or_default();
        experiment
            .select(&course.only)
            .map_err(|error| wrong(&path.join(COURSE), 1, format!("{error}; was {EXPERIMENT} changed?")))?;
        let attached: Option<Attached> = read_json(&path.join(ATTACHED))?;
        if let (Place::Attached(attach), Some(attached)) = (&mut experiment.place, &attached) {
            attach.stand_in(attached).map_err(|error| wrong(&path.join(ATTACHED), 1, error.to_string()))?;
        }
        let (trials, whole) = read_trials(&path.join(TRIALS))?;
        let environment = read_json(&path.join(ENVIRONMENT))?;
        Ok((Self { path: path.to_owned(), experiment, trials, environment, course, attached }, whole))
    }

    /// What became of its order, and what is left to run.
    ///
    /// # Errors
    /// A trial that is none of this run, named with its line.
    pub fn agenda(&self) -> Result<Agenda, DirectoryError> {
        let mut agenda = Agenda::new(&self.experiment);
        for (index, trial) in self.trials.iter().enumerate() {
            agenda.admit(trial).map_err(|message| {
                wrong(
                    &self.path.join(TRIALS),
                    index + 1,
                    format!("{message}; was a file of the directory changed? run the experiment again"),
                )
            })?;
        }
        agenda
            .close_found(&self.experiment, &self.trials)
            .map_err(|error| wrong(&self.path.join(EXPERIMENT), 1, error.to_string()))?;
        Ok(agenda)
    }

    /// What a reader of the results has to know of how the run went, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        self.course.notes(self.experiment.part.cells.len(), self.experiment.design.cells.len())
    }
}

/// A results directory to go on with: locked, and `trials.jsonl` whole.
#[derive(Debug)]
pub struct Reopened {
    /// What is there.
    pub stored: Stored,
    /// What is left.
    pub agenda: Agenda,
    pub(crate) directory: Directory,
}

impl Reopened {
    /// Locks and reads a results directory; `results/latest` is the one that it points at. A last line that its runner
    /// did not come to write to its end is cut off.
    ///
    /// # Errors
    /// Another runner is at work in it; a file is missing or is not what a runner wrote, named with its line.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let path = found(path)?;
        let file = path.join(TRIALS);
        let trials = OpenOptions::new().read(true).append(true).open(&file).map_err(failed("open", &file, in_place))?;
        lock(&trials, &path)?;
        let (stored, whole) = Stored::read_up_to(&path)?;
        cut(&trials, whole).map_err(failed("cut the unfinished line off", &file, in_place))?;
        let agenda = stored.agenda()?;
        let (kept, course) = (stored.trials.len(), stored.course.clone());
        let directory = Directory { path, trials, kept, origin: Origin::Resumed, course };
        if directory.kept > 0 {
            point_latest(&directory.path)?;
        }
        Ok(Self { stored, agenda, directory })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }
}

/// The directory of a run that began.
fn found(path: &Path) -> Result<PathBuf, DirectoryError> {
    fs::read_dir(path).map_err(failed("read the results directory", path, reading))?;
    let path = followed(path).map_err(failed("read the results directory", path, reading))?;
    if !path.join(EXPERIMENT).exists() {
        return Err(DirectoryError::NotBegun { path: path.display().to_string() });
    }
    Ok(path)
}

/// A link may point elsewhere while we are at work: its target does not. And a run is called by the name of its directory,
/// which `.` and `..` are not.
fn followed(path: &Path) -> io::Result<PathBuf> {
    // Components have no slash at the end, behind which a link is not seen.
    let mut path: PathBuf = path.components().collect();
    for _ in 0..MOST_LINKS {
        let (Ok(target), Some(parent)) = (fs::read_link(&path), path.parent()) else { break };
        path = parent.join(target).components().collect();
    }
    if path.file_name().is_none() { path.canonicalize() } else { Ok(path) }
}

fn cut(trials: &File, whole: u64) -> io::Result<()> {
    if trials.metadata()?.len() == whole {
        return Ok(());
    }
    trials.set_len(whole)?;
    trials.sync_all()
}

/// The trials, and up to where the file is whole, in bytes. A last line without its end, or that ends amid a document, is
/// what a runner (or its machine) left that went down while it was written: that trial was not kept.
fn read_trials(file: &Path) -> Result<(Vec<Trial>, u64), DirectoryError> {
    let bytes = fs::read(file).map_err(failed("read", file, reading))?;
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    lines.pop_if(|line| !line.ends_with(b"\n"));
    let (mut trials, mut whole) = (Vec::new(), 0);
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_slice(line) {
            Ok(trial) => trials.push(trial),
            Err(error) if index + 1 == lines.len() && !error.is_data() => break,
            Err(source) => {
                let path = file.display().to_string();
                return Err(DirectoryError::Malformed { path, line: index + 1, source });
            }
        }
        whole += line.len() as u64;
    }
    Ok((trials, whole))
}

/// A file that is there for some runs and older versions did not write.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DirectoryError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(path, error.line(), error.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, reading)(error)),
    }
}

fn wrong(path: &Path, line: usize, message: String) -> DirectoryError {
    DirectoryError::Wrong { path: path.display().to_string(), line, message }
}

#[cfg(test)]
mod tests;
