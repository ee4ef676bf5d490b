//! `acceptbench run`: an experiment from its file to its answer.

use std::path::Path;

use lab::{Build, Event, Experiment, Finished, Place, Request, RunError, TrialError};
use study::results::Trial;
use study::{format, quantity::Quantity};

use crate::check::duration;
use crate::cli::{AttachArgs, RunArgs};
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::pages::{REVISION, VERSION};
use crate::report::{Answer, write_files};
use crate::shipped;
use crate::terminal::{clear_progress, complain, note, progress, say};

/// Runs the experiment and prints the first screen.
pub(crate) fn run(args: &RunArgs) -> Result<End, Failure> {
    let mut experiment = shipped::find(&args.experiment)?;
    attach_elsewhere(&mut experiment, &args.attach)?;
    let stop = interrupt::watch()?;
    note_environment();
    note(&format!(
        "{}: {}, at most {}",
        experiment.name,
        format::plural(experiment.trials(), "trial"),
        format::time(duration(&experiment).as_secs_f64())
    ));
    let request = Request {
        experiment: &experiment,
        results: &args.results,
        program: Path::new("/proc/self/exe"),
        admin: args.admin,
        build: Build { version: VERSION, revision: REVISION },
    };
    let mut teller = Teller { experiment: &experiment, shown_blocks: 0 };
    let finished = match lab::run(&request, &stop, &mut |event| teller.tell(&event)) {
        Ok(finished) => finished,
        Err(RunError::Interrupted) => return Ok(End::Interrupted),
        Err(error) => return Err(failure(error)),
    };
    clear_progress();
    conclude(&experiment, &args.results, finished)
}

/// Puts what the command line names in the place of the file's `[attach]`.
fn attach_elsewhere(experiment: &mut Experiment, args: &AttachArgs) -> Result<(), Failure> {
    let AttachArgs { attach_server, attach_loadgen, sysctl_path } = args;
    let given = [
        ("--attach-server", attach_server.is_some()),
        ("--attach-loadgen", !attach_loadgen.is_empty()),
        ("--sysctl-path", sysctl_path.is_some()),
    ];
    match (&mut experiment.place, given.iter().find(|(_, given)| *given)) {
        (Place::Attached(attach), _) => {
            if let Some(server) = attach_server {
                attach.server = server.clone();
            }
            if !attach_loadgen.is_empty() {
                attach.loadgens.clone_from(attach_loadgen);
            }
            if let Some(path) = sysctl_path {
                attach.sysctl_path.clone_from(path);
            }
            Ok(())
        }
        (Place::Private { .. }, Some((flag, _))) => Err(Failure::Usage(format!(
            "{flag} is for experiments with topology = \"attached\"; {} makes namespaces of its own",
            experiment.name
        ))),
        (Place::Private { .. }, None) => Ok(()),
    }
}

/// Everything after the last trial.
fn conclude(experiment: &Experiment, results: &Path, finished: Finished) -> Result<End, Failure> {
    if finished.trials.is_empty() {
        return match finished.failure {
            Some(error) => Err(failure(error)),
            None => Ok(End::Interrupted),
        };
    }
    let answer = Answer::tested(experiment, &finished.trials, finished.attached.as_ref()).map_err(Failure::usage)?;
    let shown = results.join("latest");
    let written = write_files(&finished.path, experiment, &finished.trials, &answer, Some(&finished.environment));
    say(&answer.screen(experiment, &shown, &notes(&finished)));
    if let Some(error) = finished.failure {
        return Err(failure(error));
    }
    written.map_err(Failure::requirement)?;
    Ok(match (finished.interrupted, answer.end()) {
        (true, _) => End::Interrupted,
        (false, end) => end,
    })
}

fn notes(finished: &Finished) -> Vec<String> {
    if finished.interrupted || finished.failure.is_some() {
        vec!["The run was cut short; what stands here is from the trials that were finished.".to_owned()]
    } else {
        Vec::new()
    }
}

/// The lab decides by the file alone.
fn note_environment() {
    let ignored: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("ACCEPTBENCH_SERVER_") || name.starts_with("ACCEPTBENCH_LOADGEN_"))
        .collect();
    if !ignored.is_empty() {
        note(&format!("an experiment is its file: {} ignored", ignored.join(", ")));
    }
}

/// Which exit code an error of the lab deserves.
pub(crate) fn failure(error: RunError) -> Failure {
    match &error {
        RunError::Trial { source: TrialError::Refused(refused), .. } if !refused.requirement => Failure::usage(error),
        RunError::Interrupted | RunError::Requirement(_) | RunError::Trial { .. } => Failure::requirement(error),
        RunError::Directory(_) | RunError::Admin(_) => Failure::usage(error),
    }
}

/// Shows what goes on.
struct Teller<'a> {
    experiment: &'a Experiment,
    shown_blocks: usize,
}

impl Teller<'_> {
    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Serving { address, replaced } => {
                let why = if *replaced { " (the port asked for is taken)" } else { "" };
                note(&format!("metrics on http://{address}/metrics{why}"));
            }
            Event::Began { planned, cell } => {
                progress(&format!("trial {}/{}  {cell}", planned.trial + 1, self.experiment.trials()));
            }
            Event::Ended { trial, trials } => self.ended(trial, trials),
            Event::Lingering => progress("waiting for the last scrape"),
        }
    }

    fn ended(&mut self, trial: &Trial, trials: &[Trial]) {
        clear_progress();
        let main = self.experiment.compare.metrics.first().and_then(|name| Quantity::named(name).ok());
        let figure = main.and_then(|quantity| {
            Some(format!("{} {}", quantity.name, format::value(quantity.of(trial)?, quantity.unit)))
        });
        note(&format!(
            "{:>4}/{}  {:<44} {}",
            trials.len(),
            self.experiment.trials(),
            trial.name,
            figure.unwrap_or_default()
        ));
        for reason in &trial.invalid {
            complain(&format!("trial {} does not count: {reason}", trial.trial + 1));
        }
        let blocks = trials.len() / self.experiment.design.cells.len();
        if blocks > self.shown_blocks && blocks < self.experiment.replicates {
            self.shown_blocks = blocks;
            if let Ok(answer) = Answer::of(self.experiment, trials, None) {
                note(&format!("\nafter {} of {}:", blocks, self.experiment.replicates));
                note(&answer.table(self.experiment));
            }
        }
    }
}
