//! A whole run: every trial of the schedule, its record appended as it ends, its pages served meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::environment;
use study::results::{Attached, Trial};
use study::summary::Summary;
use telemetry::Stop;
use telemetry::admin::{Admin, AdminError, Listen};
use thiserror::Error;

use crate::attached::AttachedBench;
use crate::bench::{Bench, Turn};
use crate::directory::{Directory, DirectoryError};
use crate::experiment::{Experiment, Place};
use crate::live::{Build, Live};
use crate::private::PrivateBench;
use crate::schedule::Planned;
use crate::trial::TrialError;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Where results directories are made.
    pub results: &'a Path,
    /// This program, for the trial's processes.
    pub program: &'a Path,
    /// Where to serve metrics.
    pub admin: Listen,
    /// Version and revision.
    pub build: Build,
}

/// Something happened that a terminal may want to show.
#[derive(Debug)]
pub enum Event<'a> {
    /// Metrics are served here; `replaced` says that the port asked for was taken.
    Serving {
        /// The address.
        address: SocketAddr,
        /// Was another port asked for?
        replaced: bool,
    },
    /// A trial begins.
    Began {
        /// Which.
        planned: Planned,
        /// Its cell in words.
        cell: &'a str,
    },
    /// A trial ended.
    Ended {
        /// Its record.
        trial: &'a Trial,
        /// All so far, this one included.
        trials: &'a [Trial],
    },
    /// The run is over and waits for the last scrape.
    Lingering,
}

/// A run that has ended, whole or not.
#[derive(Debug)]
pub struct Finished {
    /// Its results directory.
    pub path: PathBuf,
    /// Its trials in order.
    pub trials: Vec<Trial>,
    /// Was it told to stop?
    pub interrupted: bool,
    /// What kept it from going on, if anything.
    pub failure: Option<RunError>,
    /// The machine.
    pub environment: environment::Environment,
    /// What it changed on a running deployment, if it was attached to one.
    pub attached: Option<Attached>,
}

/// Why a run could not start or go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// The machine, or the deployment it is attached to, lacks what the experiment needs.
    #[error("{0}")]
    Requirement(String),
    /// The results cannot be kept.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A trial came to nothing.
    #[error("trial {trial} ({cell}): {source}")]
    Trial {
        /// Its number.
        trial: usize,
        /// Its cell.
        cell: String,
        /// Why.
        source: TrialError,
    },
}

/// Bytes a trial's record takes on the disk at most, roughly.
const RECORD_BYTES: u64 = 64 * 1024;

/// Runs every trial.
///
/// # Errors
/// When the run cannot start. What stops it later is in [`Finished::failure`], beside what was kept.
pub fn run(request: &Request<'_>, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) -> Result<Finished, RunError> {
    let experiment = request.experiment;
    let mut bench: Box<dyn Bench + '_> = match &experiment.place {
        Place::Private { wiring, family } => {
            Box::new(PrivateBench::new(experiment, request.program, *wiring, *family)?)
        }
        Place::Attached(attach) => Box::new(AttachedBench::new(experiment, request.program, attach, stop)?),
    };
    let environment = environment::collect();
    let mut directory = Directory::create(request.results, experiment, &environment)?;
    let result = run_in(request, &mut *bench, &mut directory, environment, stop, tell);
    directory.remove_if_useless();
    result
}

fn run_in(
    request: &Request<'_>,
    bench: &mut dyn Bench,
    directory: &mut Directory,
    environment: environment::Environment,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, RunError> {
    let experiment = request.experiment;
    check_space(&directory.path, experiment.trials())?;
    let live = Live::new(
        experiment.clone(),
        directory.run(),
        environment.kernel_release.clone().unwrap_or_default(),
        request.build,
    );
    let live = Arc::new(live);
    let admin = match request.admin {
        Listen::Off => None,
        Listen::Addr(address) => {
            let (admin, replaced) = Admin::start_or_free_port(address, live.clone())?;
            tell(Event::Serving { address: admin.local_addr(), replaced });
            Some(admin)
        }
    };
    bench.begin(directory)?;
    let mut run = Run { experiment, directory, live: &live, stop, trials: Vec::new() };
    let ended = run.all(bench, tell);
    let trials = run.trials;
    // Before anything else: who was told to stop may be killed next.
    let put_back = bench.finish(directory);
    let interrupted = matches!(ended, Err(RunError::Interrupted));
    let failure = put_back.and(ended).err().filter(|error| !matches!(error, RunError::Interrupted));
    if let Some(admin) = admin {
        if !interrupted {
            linger(&admin, stop, tell);
        }
        admin.stop();
    }
    let attached = bench.attached().cloned();
    Ok(Finished { path: directory.path.clone(), trials, interrupted, failure, environment, attached })
}

/// A run under way.
struct Run<'a> {
    experiment: &'a Experiment,
    directory: &'a mut Directory,
    live: &'a Live,
    stop: &'a Stop,
    trials: Vec<Trial>,
}

impl Run<'_> {
    /// Every trial in its order, until one comes to nothing.
    fn all(&mut self, bench: &mut dyn Bench, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), RunError> {
        let experiment = self.experiment;
        let order = experiment.order.plan(experiment.design.cells.len(), experiment.replicates, experiment.seed);
        for (index, planned) in order.iter().copied().enumerate() {
            let cell = experiment.design.describe(&experiment.design.cells[planned.cell]);
            tell(Event::Began { planned, cell: &cell });
            let turn = Turn {
                experiment,
                planned,
                after: order.get(index + 1).copied(),
                name: &cell,
                live: self.live,
                directory: self.directory,
                stop: self.stop,
            };
            match bench.trial(&turn) {
                Ok(trial) => self.keep(trial)?,
                Err(source) => {
                    self.live.finished(None, None);
                    return Err(match source {
                        TrialError::Interrupted => RunError::Interrupted,
                        source => RunError::Trial { trial: planned.trial, cell, source },
                    });
                }
            }
            if let Some(trial) = self.trials.last() {
                tell(Event::Ended { trial, trials: &self.trials });
            }
        }
        Ok(())
    }

    /// Writes a record down; one that could not be written does not count.
    fn keep(&mut self, trial: Trial) -> Result<(), RunError> {
        let written = self.directory.append(&trial);
        self.trials.push(trial);
        let summary = Summary::of(&self.experiment.design, &self.trials, &quantities(self.experiment)).ok();
        self.live.finished(self.trials.last(), summary);
        if written.is_err() {
            self.trials.pop();
        }
        Ok(written?)
    }
}

fn quantities(experiment: &Experiment) -> Vec<&str> {
    experiment.compare.metrics.iter().map(String::as_str).collect()
}

fn check_space(path: &Path, trials: usize) -> Result<(), RunError> {
    let Ok(stat) = rustix::fs::statvfs(path) else { return Ok(()) };
    let (free, needed) = (stat.f_bavail * stat.f_frsize, trials as u64 * RECORD_BYTES);
    if free < needed {
        return Err(RunError::Requirement(format!(
            "{} has {} KiB free, {trials} trials may need {} KiB; free some space, or write elsewhere with --results DIR",
            path.display(),
            free / 1024,
            needed / 1024
        )));
    }
    Ok(())
}

/// Scrapers faster than this are waited for this long all the same.
const LINGER_FLOOR: Duration = Duration::from_millis(500);

/// Waits until every page that is scraped at all was scraped once more after the last trial: at most two intervals.
fn linger(admin: &Admin, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) {
    if admin.last_scrape().is_none() {
        return;
    }
    let began = Instant::now();
    let interval = admin.scrape_interval().unwrap_or(Duration::from_secs(15)).min(Duration::from_mins(1));
    let limit = (interval * 2).max(LINGER_FLOOR);
    tell(Event::Lingering);
    while began.elapsed() < limit && !admin.all_scraped_since(began) && !stop.wait_timeout(Duration::from_millis(20)) {}
}
