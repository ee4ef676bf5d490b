//! A whole run: every trial of the schedule, its record appended as it ends, its pages served meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kernel::environment;
use kernel::namespace::{self, Privilege};
use study::ledger;
use study::results::Trial;
use study::summary::Summary;
use telemetry::admin::{Admin, AdminError, Listen};
use telemetry::{Stop, Warning};
use thiserror::Error;

use crate::directory::{Directory, DirectoryError};
use crate::experiment::Experiment;
use crate::live::{Build, Live};
use crate::schedule::{self, Planned};
use crate::trial::{self, Holder, Outcome, Recipe, TrialError};

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
}

/// Why a run could not start or go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The machine lacks what the experiment needs.
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

/// Lateness (99th percentile of issued − planned) beyond which a generator was busy with itself: a twentieth of the
/// deadline, since that is what verdicts are measured against, but not below 20 ms nor above 100 ms.
fn lag_limit_ns(loadgen: &loadgen::Snapshot) -> u64 {
    (loadgen.opts.deadline.as_ns() / 20).clamp(20_000_000, 100_000_000)
}

/// Bytes a trial's record takes on the disk at most, roughly.
const RECORD_BYTES: u64 = 64 * 1024;

/// Checks what the machine must have for every cell, before anything is made.
///
/// # Errors
/// [`RunError::Requirement`], naming what is missing.
pub fn check_machine(experiment: &Experiment) -> Result<(), RunError> {
    if namespace::privilege() == Privilege::UserNamespace {
        namespace::user_namespaces_work().map_err(|error| RunError::Requirement(error.to_string()))?;
    }
    let nofile = loadgen::Machine::read().nofile;
    for (resolved, cell) in experiment.resolved.iter().zip(&experiment.design.cells) {
        loadgen::check_descriptors(&resolved.loadgen, nofile)
            .map_err(|error| RunError::Requirement(format!("cell {}: {error}", experiment.design.describe(cell))))?;
    }
    Ok(())
}

/// Runs every trial.
///
/// # Errors
/// When the run cannot start. What stops it later is in [`Finished::failure`], beside what was kept.
pub fn run(request: &Request<'_>, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) -> Result<Finished, RunError> {
    let experiment = request.experiment;
    check_machine(experiment)?;
    let environment = environment::collect();
    let mut directory = Directory::create(request.results, experiment, &environment)?;
    let result = run_in(request, &mut directory, environment, stop, tell);
    directory.remove_if_useless();
    result
}

fn run_in(
    request: &Request<'_>,
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
    let mut trials = Vec::new();
    let (mut interrupted, mut failure) = (false, None);
    let order = schedule::order(experiment.design.cells.len(), experiment.replicates, experiment.seed);
    let mut next = None;
    for planned in order.iter().copied() {
        let cell = experiment.design.describe(&experiment.design.cells[planned.cell]);
        tell(Event::Began { planned, cell: &cell });
        let started = Timestamp::now();
        let holder = next.take().map_or_else(|| Holder::spawn(request.program, &directory.log(planned.trial)), Ok);
        match holder.and_then(|holder| one(request, &live, planned, holder, stop)) {
            Ok(outcome) => {
                // The next trial's process starts while the record of this one is made and written.
                let after = order.get(planned.trial + 1);
                next = after.and_then(|after| Holder::spawn(request.program, &directory.log(after.trial)).ok());
                let trial = record(experiment, planned, &cell, started, outcome);
                let kept = directory.append(&trial);
                trials.push(trial);
                let summary = Summary::of(&experiment.design, &trials, &quantities(experiment)).ok();
                live.finished(trials.last(), summary);
                if let Err(error) = kept {
                    trials.pop();
                    failure = Some(error.into());
                    break;
                }
                if let Some(trial) = trials.last() {
                    tell(Event::Ended { trial, trials: &trials });
                }
            }
            Err(TrialError::Interrupted) => {
                live.finished(None, None);
                interrupted = true;
                break;
            }
            Err(source) => {
                live.finished(None, None);
                failure = Some(RunError::Trial { trial: planned.trial, cell, source });
                break;
            }
        }
    }
    drop(next);
    directory.remove_empty_logs();
    if let Some(admin) = admin {
        if !interrupted {
            linger(&admin, stop, tell);
        }
        admin.stop();
    }
    Ok(Finished { path: directory.path.clone(), trials, interrupted, failure, environment })
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

fn one(
    request: &Request<'_>,
    live: &Live,
    planned: Planned,
    holder: Holder,
    stop: &Stop,
) -> Result<Outcome, TrialError> {
    if stop.is_requested() {
        return Err(TrialError::Interrupted);
    }
    let experiment = request.experiment;
    let recipe = Recipe {
        topology: experiment.topology,
        family: experiment.family,
        resolved: &experiment.resolved[planned.cell],
        // The same arrivals for every cell of a block, others in every block.
        seed: experiment.seed.wrapping_add(planned.block as u64),
    };
    live.preparing(planned);
    let trial = trial::Trial::start(&recipe, holder)?;
    live.loading(trial.ends.clone());
    trial.run(&recipe, stop)
}

/// The record of a trial, its accounts made up.
fn record(experiment: &Experiment, planned: Planned, name: &str, started: Timestamp, outcome: Outcome) -> Trial {
    let Outcome { sysctls, server, loadgen, timings, settled } = outcome;
    let ledger = ledger::balance(&server, &loadgen, experiment.topology);
    let mut invalid = Vec::new();
    if !settled {
        invalid.push("the books never stood still".to_owned());
    }
    if !loadgen.finished {
        invalid.push("attempts were left without a verdict".to_owned());
    }
    for line in ledger.lines.iter().filter(|line| line.residual != 0) {
        invalid.push(format!("ledger line {} ({}) does not balance: {}", line.number, line.name, line.equation));
    }
    invalid.extend(generator_limits(&loadgen));
    let warnings: Vec<Warning> = server.warnings.iter().chain(&loadgen.warnings).cloned().collect();
    Trial {
        trial: planned.trial,
        block: planned.block,
        cell: planned.cell,
        name: name.to_owned(),
        settings: experiment.design.cells[planned.cell].settings.clone(),
        started,
        topology: experiment.topology,
        timings,
        sysctls,
        server,
        loadgen,
        ledger,
        invalid,
        warnings,
    }
}

/// Reasons why the generator, not the server, bound the trial.
pub fn generator_limits(loadgen: &loadgen::Snapshot) -> Vec<String> {
    let mut reasons = Vec::new();
    let measured = &loadgen.measured;
    let shed = measured.verdict(loadgen::Verdict::Shed);
    if shed > 0 && loadgen.opts.max_in_flight == loadgen::opts::AutoCount::Auto {
        reasons.push(format!("the generator was the bottleneck: {shed} attempts shed for want of descriptors"));
    }
    let limit = lag_limit_ns(loadgen);
    if let Some(lag) = measured.lag.quantile(0.99)
        && lag > limit
    {
        reasons.push(format!(
            "the generator was the bottleneck: 1 % of the attempts were issued more than {} ms late (limit {} ms)",
            lag / 1_000_000,
            limit / 1_000_000
        ));
    }
    reasons
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
