//! A whole run: every trial that is left of the schedule, its record appended as it ends, its pages served meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kernel::environment::{self, Environment};
use study::merge::Build;
use study::results::{Attached, Course, Session, Trial};
use telemetry::admin::{Admin, AdminError, Listen};
use telemetry::{Stop, Warning};
use thiserror::Error;

use crate::agenda::Agenda;
use crate::attached::{self, AttachedBench};
use crate::bench::{Bench, Turn};
use crate::directory::{Directory, DirectoryError, Reopened, Stored};
use crate::experiment::{Experiment, Place};
use crate::live::Live;
use crate::private::PrivateBench;
use crate::resume::{Now, Then, differences};
use crate::schedule::Planned;
use crate::trial::TrialError;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
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
    /// Everything stands ready for the first trial, unless none is left.
    Started(Started<'a>),
    /// A trial begins.
    Began {
        /// Which.
        planned: Planned,
        /// Its cell in words.
        cell: &'a str,
        /// What is left, this one included.
        agenda: &'a Agenda,
        /// All so far.
        trials: &'a [Trial],
    },
    /// A trial ended.
    Ended {
        /// Its record.
        trial: &'a Trial,
        /// What is left.
        agenda: &'a Agenda,
        /// All so far, this one included.
        trials: &'a [Trial],
    },
    /// The run is over and waits for the last scrape.
    Lingering,
}

/// A run as its runner finds it.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    /// The results directory.
    pub path: &'a Path,
    /// Where metrics are served, if anywhere, and whether that is because the port asked for was taken.
    pub serving: Option<(SocketAddr, bool)>,
    /// How the run went so far, this runner included.
    pub course: &'a Course,
    /// What is left.
    pub agenda: &'a Agenda,
    /// The trials of earlier runners.
    pub trials: &'a [Trial],
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
    /// The machine it began on.
    pub environment: Environment,
    /// How it went.
    pub course: Course,
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
    /// The experiment names a program that is not there.
    #[error("{0}")]
    Program(String),
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

/// Runs every trial into a results directory of its own below `results`.
///
/// # Errors
/// When the run cannot start. What stops it later is in [`Finished::failure`], beside what was kept.
pub fn run(
    request: &Request<'_>,
    results: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, RunError> {
    let experiment = request.experiment;
    let mut bench = bench(request, stop)?;
    let environment = environment::collect();
    let directory = Directory::create(results, experiment, &environment, session(&request.build, Vec::new()))?;
    let mut work = Work { directory, agenda: Agenda::new(experiment), trials: Vec::new(), environment };
    let result = run_in(request, &mut *bench, &mut work, stop, tell);
    work.directory.remove_if_useless();
    result
}

/// Runs what is left of a run that was interrupted. `request.experiment` is the one that is stored, or differs from it in
/// what it is attached to.
///
/// # Errors
/// When it cannot go on; sysctls that an attached run left changed and that cannot be put back. Nothing is run then.
pub fn resume(
    request: &Request<'_>,
    reopened: Reopened,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, RunError> {
    let Reopened { stored, agenda, directory } = reopened;
    let Stored { mut attached, environment, trials, .. } = stored;
    if let Some(changed) = attached.as_mut().filter(|changed| !changed.restored) {
        attached::repair(changed)?;
        changed.restored = true;
        directory.write_attached(changed)?;
    }
    let now = environment::collect();
    let mut work = Work { directory, agenda, trials, environment: environment.clone().unwrap_or_else(|| now.clone()) };
    if work.agenda.upcoming().is_none() {
        tell(work.started(None));
        return Ok(work.finished(Ok(()), attached));
    }
    let mut bench = bench(request, stop)?;
    let then = Then {
        environment: environment.as_ref(),
        session: work.directory.course.sessions.first(),
        attached: attached.as_ref(),
    };
    let warnings = differences(then, Now { environment: &now, build: &request.build, attached: bench.attached() });
    work.directory.begin(session(&request.build, warnings))?;
    run_in(request, &mut *bench, &mut work, stop, tell)
}

fn bench<'a>(request: &Request<'a>, stop: &Stop) -> Result<Box<dyn Bench + 'a>, RunError> {
    let experiment = request.experiment;
    Ok(match &experiment.place {
        Place::Private { wiring, family } => {
            Box::new(PrivateBench::new(experiment, request.program, *wiring, *family)?)
        }
        Place::Attached(attach) => Box::new(AttachedBench::new(experiment, request.program, attach, stop)?),
    })
}

fn session(build: &Build, warnings: Vec<Warning>) -> Session {
    let Build { version, revision } = build.clone();
    Session { started: Timestamp::now(), version, revision, warnings }
}

/// A results directory that is being filled.
#[derive(Debug)]
struct Work {
    directory: Directory,
    agenda: Agenda,
    /// In it, in order.
    trials: Vec<Trial>,
    /// Where the run began.
    environment: Environment,
}

impl Work {
    fn started(&self, serving: Option<(SocketAddr, bool)>) -> Event<'_> {
        let Self { directory, agenda, trials, .. } = self;
        Event::Started(Started { path: &directory.path, serving, course: &directory.course, agenda, trials })
    }

    fn finished(&mut self, ended: Result<(), RunError>, attached: Option<Attached>) -> Finished {
        let interrupted = matches!(ended, Err(RunError::Interrupted));
        Finished {
            path: self.directory.path.clone(),
            trials: std::mem::take(&mut self.trials),
            interrupted,
            failure: ended.err().filter(|error| !matches!(error, RunError::Interrupted)),
            environment: self.environment.clone(),
            course: self.directory.course.clone(),
            attached,
        }
    }
}

fn run_in(
    request: &Request<'_>,
    bench: &mut dyn Bench,
    work: &mut Work,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Finished, RunError> {
    check_space(&work.directory, work.agenda.left().count())?;
    let live = Live::new(
        request.experiment.clone(),
        work.directory.run(),
        work.environment.kernel_release.clone().unwrap_or_default(),
        request.build.clone(),
    );
    let live = Arc::new(live);
    let mut run = Run { experiment: request.experiment, work, live: &live, stop };
    run.recall();
    let admin = match request.admin {
        Listen::Off => None,
        Listen::Addr(address) => Some(Admin::start_or_free_port(address, live.clone())?),
    };
    bench.begin(&run.work.directory)?;
    tell(run.work.started(admin.as_ref().map(|(admin, replaced)| (admin.local_addr(), *replaced))));
    let ended = run.all(bench, tell);
    // Before anything else: who was told to stop may be killed next.
    let put_back = bench.finish(&work.directory);
    let interrupted = matches!(ended, Err(RunError::Interrupted));
    if let Some((admin, _)) = admin {
        if !interrupted {
            linger(&admin, stop, tell);
        }
        admin.stop();
    }
    // What could not be put back is worse news than that it was interrupted.
    Ok(Finished { interrupted, ..work.finished(put_back.and(ended), bench.attached().cloned()) })
}

/// A run under way.
struct Run<'a> {
    experiment: &'a Experiment,
    work: &'a mut Work,
    live: &'a Live,
    stop: &'a Stop,
}

impl Run<'_> {
    /// Every trial that is left, in its order, until one comes to nothing.
    fn all(&mut self, bench: &mut dyn Bench, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), RunError> {
        let experiment = self.experiment;
        while let Some(planned) = self.work.agenda.upcoming() {
            let Work { directory, agenda, trials, .. } = &*self.work;
            let applied = experiment.apply(planned.cell, trials).map_err(RunError::Requirement)?;
            tell(Event::Began { planned, cell: &applied.name, agenda, trials });
            let turn = Turn {
                experiment,
                planned,
                after: agenda.after(planned),
                applied: &applied,
                live: self.live,
                directory,
                stop: self.stop,
            };
            let trial = bench.trial(&turn).map_err(|source| {
                self.live.finished(None, None);
                match source {
                    TrialError::Interrupted => RunError::Interrupted,
                    source => RunError::Trial { trial: planned.trial, cell: applied.name.clone(), source },
                }
            })?;
            let counts = trial.is_valid();
            self.keep(trial)?;
            let Work { agenda, trials, .. } = &mut *self.work;
            agenda.ran(planned, counts);
            agenda.close_found(experiment, trials).map_err(|error| RunError::Requirement(error.to_string()))?;
            let Work { agenda, trials, .. } = &*self.work;
            if let Some(trial) = trials.last() {
                tell(Event::Ended { trial, agenda, trials });
            }
        }
        Ok(())
    }

    /// Writes a record down; one that could not be written does not count.
    fn keep(&mut self, trial: Trial) -> Result<(), RunError> {
        let Work { directory, trials, .. } = &mut *self.work;
        let written = directory.append(&trial);
        trials.push(trial);
        self.live.finished(self.work.trials.last(), self.live.summary(&self.work.trials));
        if written.is_err() {
            self.work.trials.pop();
        }
        Ok(written?)
    }

    /// Has the pages show what earlier runners of this run counted: they are about the whole run.
    fn recall(&self) {
        let Some((last, before)) = self.work.trials.split_last() else { return };
        for trial in before {
            self.live.finished(Some(trial), None);
        }
        self.live.finished(Some(last), self.live.summary(&self.work.trials));
    }
}

fn check_space(directory: &Directory, trials: usize) -> Result<(), RunError> {
    let Ok(stat) = rustix::fs::statvfs(&directory.path) else { return Ok(()) };
    let (free, needed) = (stat.f_bavail * stat.f_frsize, trials as u64 * RECORD_BYTES);
    if free < needed {
        return Err(RunError::Requirement(format!(
            "{} has {} KiB free, {trials} trials may need {} KiB{}",
            directory.path.display(),
            free / 1024,
            needed / 1024,
            directory.hint_of_space()
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

#[cfg(test)]
mod tests;
