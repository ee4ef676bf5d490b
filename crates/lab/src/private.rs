//! Trials in private namespaces: each builds its own, runs both ends inside, and leaves nothing.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use kernel::namespace::{self, Privilege};
use study::ledger;
use study::results::{self, Trial};

use crate::bench::{Bench, Parts, Turn};
use crate::control::Failure;
use crate::directory::Directory;
use crate::experiment::{Experiment, Family, Wiring};
use crate::run::RunError;
use crate::schedule::Planned;
use crate::target::keeper::NOT_PAUSED;
use crate::target::{Order, Site, Target, program};
use crate::trial::addresses::addresses;
use crate::trial::{self, Holder, Outcome, Recipe, TrialError};

/// Runs trials in namespaces of their own.
#[derive(Debug)]
pub(crate) struct PrivateBench<'a> {
    program: &'a Path,
    wiring: Wiring,
    family: Family,
    /// The next trial's first process, started while the record of the last one was made.
    next: Option<(Planned, Holder)>,
}

impl<'a> PrivateBench<'a> {
    /// A bench for this experiment.
    pub(crate) fn new(
        experiment: &Experiment,
        program: &'a Path,
        wiring: Wiring,
        family: Family,
    ) -> Result<Self, RunError> {
        check_machine(experiment)?;
        Ok(Self { program, wiring, family, next: None })
    }

    fn run(&mut self, turn: &Turn<'_>) -> Result<(Outcome, Option<results::Target>), TrialError> {
        let Turn { experiment, planned, applied, live, stop, .. } = *turn;
        // One that was started for another trial goes: the last one did not count, and is repeated first.
        let ready = self.next.take().filter(|(next, _)| *next == planned).map(|(_, holder)| holder);
        let holder = ready.map_or_else(|| Holder::spawn(self.program, &turn.directory.log(planned)), Ok)?;
        if stop.is_requested() {
            return Err(TrialError::Interrupted);
        }
        let log = turn.directory.log(planned);
        let order = applied.resolved.target.as_ref().map(|target| self.order(target, &log)).transpose()?;
        let recipe = Recipe {
            wiring: self.wiring,
            family: self.family,
            resolved: &applied.resolved,
            target: order.as_ref(),
            // The same arrivals for every cell of a block, others in every block.
            seed: experiment.seed.wrapping_add(planned.block as u64),
        };
        live.preparing(planned);
        let trial = trial::Trial::start(&recipe, holder, stop)?;
        live.loading(trial.ends.clone());
        let outcome = trial.run(&recipe, stop)?;
        let Some(order) = order else { return Ok((outcome, None)) };
        // What is left of it says nothing that the record does not; of a trial that came to nothing it stays.
        let _ = fs::remove_dir_all(&order.directory);
        let settings = applied.resolved.target.as_ref().map(Target::settings).unwrap_or_default();
        Ok((outcome, Some(results::Target { command: order.command, port: order.port.get(), settings })))
    }

    /// What the trial's target is started as. Its directory is beside its log.
    fn order(&self, target: &Target, log: &Path) -> Result<Order, TrialError> {
        let refused = |message: String| TrialError::Refused(Failure::usage(message));
        let log = std::path::absolute(log).map_err(|source| TrialError::Start { what: "the target", source })?;
        let directory = log.with_extension("target");
        let address = addresses(self.wiring, self.family).server.0;
        let mut order = target.order(Site { address, directory: &directory, log: &log }).map_err(refused)?;
        if let Some(found) = order.command.first().and_then(|name| program::find(name)) {
            order.command[0] = found.display().to_string();
        }
        // What an interrupted trial of this number left.
        let _ = fs::remove_dir_all(&order.directory);
        Ok(order)
    }
}

impl Bench for PrivateBench<'_> {
    fn trial(&mut self, turn: &Turn<'_>) -> Result<Trial, TrialError> {
        let started = Timestamp::now();
        let (Outcome { sysctls, server, loadgen, timings, settled }, target) = self.run(turn)?;
        // The next trial's process starts while the record of this one is made and written.
        self.next =
            turn.after.and_then(|after| Some((after, Holder::spawn(self.program, &turn.directory.log(after)).ok()?)));
        let topology = turn.experiment.place.topology();
        let ledger = match target {
            Some(_) => ledger::target::balance(&server, &loadgen, topology),
            None => ledger::balance(&server, &loadgen, topology),
        };
        let mut invalid = Vec::new();
        if let Some(warning) = server.warnings.iter().find(|warning| warning.code == NOT_PAUSED) {
            invalid.push(warning.cause.clone());
        }
        if !settled {
            invalid.push("the books never stood still".to_owned());
        }
        if !loadgen.finished {
            invalid.push("attempts were left without a verdict".to_owned());
        }
        let parts = Parts { started, timings, sysctls, target, server, loadgen, ledger, invalid, warnings: Vec::new() };
        Ok(parts.into_trial(turn))
    }

    fn finish(&mut self, directory: &Directory) -> Result<(), RunError> {
        self.next = None;
        directory.remove_empty_logs();
        Ok(())
    }
}

/// Every cell's target can be started.
fn check_programs(experiment: &Experiment) -> Result<(), RunError> {
    for target in experiment.resolved.iter().filter_map(|cell| cell.target.as_ref()) {
        let Some(program) = target.program().map_err(RunError::Requirement)? else { continue };
        if program::find(&program).is_some() {
            continue;
        }
        return Err(match program::package_of(&program) {
            Some(package) => RunError::Requirement(format!(
                "target.command: `{program}` is not installed; Debian has it in the package {package} (apt-get install \
                 {package})"
            )),
            None => RunError::Program(format!(
                "{}: target.command: `{program}` is nowhere in PATH; check its spelling, write its whole path, or install it",
                experiment.name
            )),
        });
    }
    Ok(())
}

/// Checks what the machine must have for every cell, before anything is made.
fn check_machine(experiment: &Experiment) -> Result<(), RunError> {
    if namespace::privilege() == Privilege::UserNamespace {
        namespace::user_namespaces_work().map_err(|error| RunError::Requirement(error.to_string()))?;
    }
    check_programs(experiment)?;
    let nofile = loadgen::Machine::read().nofile;
    for (resolved, cell) in experiment.resolved.iter().zip(&experiment.design.cells) {
        loadgen::check_descriptors(&resolved.loadgen, resolved.half_open, nofile)
            .map_err(|error| RunError::Requirement(format!("cell {}: {error}", experiment.design.describe(cell))))?;
    }
    Ok(())
}
