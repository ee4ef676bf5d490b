//! `acceptbench run`: an experiment from its file to its answer, anew or where it was interrupted.

mod budget;
mod json;
mod show;
#[cfg(test)]
pub(crate) mod testing;

use std::path::Path;

use lab::{Experiment, Finished, Place, Reopened, Request, RunError, TrialError};
use study::merge::Build;
use study::results::Trial;
use telemetry::admin::Listen;

use crate::cli::{AttachArgs, MadeArgs, RunArgs};
use crate::exit::{End, Failure};
use crate::interrupt;
use crate::pages::{REVISION, VERSION};
use crate::report::{Answer, write_files};
use crate::shipped;
use crate::terminal::note;
use show::Show;

/// Runs the experiment, or what is left of it, and prints the first screen.
pub(crate) fn run(args: &RunArgs) -> Result<End, Failure> {
    match (&args.resume, &args.experiment) {
        (Some(directory), _) => resume(args, directory),
        (None, Some(name)) => anew(args, name),
        (None, None) => Err(Failure::Usage("name an experiment, or --resume a run".to_owned())),
    }
}

/// What a command has to say of the trials of its own experiment.
type First<'a> = &'a dyn Fn(&[Trial]) -> String;

fn anew(args: &RunArgs, name: &str) -> Result<End, Failure> {
    let mut experiment = shipped::find(name)?;
    attach_elsewhere(&mut experiment, &args.attach)?;
    experiment.select(&args.only).map_err(|error| Failure::flag(format!("only: {error}")))?;
    from_the_start(&experiment, (args.json, &args.results, args.admin), None)
}

/// Runs an experiment that a command has made; what `first` says of its trials comes before the screen.
pub(crate) fn made(experiment: &Experiment, into: &MadeArgs, first: First<'_>) -> Result<End, Failure> {
    from_the_start(experiment, (into.json, &into.results, into.admin), Some(first))
}

fn from_the_start(
    experiment: &Experiment,
    (json, results, admin): (bool, &Path, Listen),
    first: Option<First<'_>>,
) -> Result<End, Failure> {
    let stop = interrupt::watch()?;
    note_environment();
    let mut show = Show::new(experiment, json);
    let ended = lab::run(&request(admin, experiment), results, &stop, &mut |event| show.tell(&event));
    conclude(&show, &results.join("latest"), ended, first)
}

fn resume(args: &RunArgs, directory: &Path) -> Result<End, Failure> {
    let stop = interrupt::watch()?;
    let reopened = Reopened::open(directory).map_err(Failure::usage)?;
    let mut experiment = reopened.stored.experiment.clone();
    attach_elsewhere(&mut experiment, &args.attach)?;
    note_environment();
    let mut show = Show::new(&experiment, args.json);
    let ended = lab::resume(&request(args.admin, &experiment), reopened, &stop, &mut |event| show.tell(&event));
    conclude(&show, directory, ended, None)
}

fn request(admin: Listen, experiment: &Experiment) -> Request<'_> {
    Request {
        experiment,
        program: Path::new("/proc/self/exe"),
        admin,
        build: Build { version: VERSION.to_owned(), revision: REVISION.to_owned() },
    }
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

/// Everything after the last trial. `called` is how the results directory is called on the screen; what is kept or read by
/// programs has its own name, for a link leads elsewhere soon.
fn conclude(
    show: &Show<'_>,
    called: &Path,
    ended: Result<Finished, RunError>,
    first: Option<First<'_>>,
) -> Result<End, Failure> {
    let finished = match ended {
        Ok(finished) => finished,
        Err(RunError::Interrupted) => return Ok(End::Interrupted),
        Err(error) => return Err(failure(error)),
    };
    let experiment = show.experiment;
    if let Some(first) = first.filter(|_| !finished.trials.is_empty()) {
        show.words(&first(&finished.trials));
    }
    let answer = if finished.trials.is_empty() {
        None
    } else {
        let answer =
            Answer::tested(experiment, &finished.trials, finished.attached.as_ref()).map_err(Failure::usage)?;
        Some(answer.noting(notes(experiment, &finished)))
    };
    let written = answer.as_ref().map_or(Ok(()), |answer| {
        write_files(&finished.path, experiment, &finished.trials, answer, Some(&finished.environment), None)
    });
    let Finished { path, failure: failed, interrupted, .. } = finished;
    let end = match (failed, written, &answer) {
        (Some(error), ..) => Err(failure(error)),
        (None, Err(error), _) => Err(Failure::requirement(error)),
        (None, Ok(()), Some(answer)) if !interrupted => Ok(answer.end()),
        (None, Ok(()), _) => Ok(End::Interrupted),
    };
    show.end(&path, called, answer.as_ref(), &end);
    end
}

fn notes(experiment: &Experiment, finished: &Finished) -> Vec<String> {
    let mut notes = finished.course.notes(experiment.part.cells.len(), experiment.design.cells.len());
    if finished.interrupted || finished.failure.is_some() {
        notes.push(format!(
            "The run was cut short; what stands here is from the trials that were finished. `acceptbench run --resume \
             {}` runs the others.",
            finished.path.display()
        ));
    }
    notes
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
        RunError::Program(_) | RunError::Directory(_) | RunError::Admin(_) => Failure::usage(error),
    }
}
