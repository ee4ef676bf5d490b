//! Trials in private namespaces: each builds its own, runs both ends inside, and leaves nothing.

use std::path::Path;

use jiff::Timestamp;
use kernel::namespace::{self, Privilege};
use study::ledger;
use study::results::Trial;

use crate::bench::{Bench, Parts, Turn};
use crate::directory::Directory;
use crate::experiment::{Experiment, Family, Wiring};
use crate::run::RunError;
use crate::schedule::Planned;
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

    fn run(&mut self, turn: &Turn<'_>) -> Result<Outcome, TrialError> {
        let Turn { experiment, planned, applied, live, stop, .. } = *turn;
        // One that was started for another trial goes: the last one did not count, and is repeated first.
        let ready = self.next.take().filter(|(next, _)| *next == planned).map(|(_, holder)| holder);
        let holder = ready.map_or_else(|| Holder::spawn(self.program, &turn.directory.log(planned)), Ok)?;
        if stop.is_requested() {
            return Err(TrialError::Interrupted);
        }
        let recipe = Recipe {
            wiring: self.wiring,
            family: self.family,
            resolved: &applied.resolved,
            // The same arrivals for every cell of a block, others in every block.
            seed: experiment.seed.wrapping_add(planned.block as u64),
        };
        live.preparing(planned);
        let trial = trial::Trial::start(&recipe, holder)?;
        live.loading(trial.ends.clone());
        trial.run(&recipe, stop)
    }
}

impl Bench for PrivateBench<'_> {
    fn trial(&mut self, turn: &Turn<'_>) -> Result<Trial, TrialError> {
        let started = Timestamp::now();
        let Outcome { sysctls, server, loadgen, timings, settled } = self.run(turn)?;
        // The next trial's process starts while the record of this one is made and written.
        self.next =
            turn.after.and_then(|after| Some((after, Holder::spawn(self.program, &turn.directory.log(after)).ok()?)));
        let ledger = ledger::balance(&server, &loadgen, turn.experiment.place.topology());
        let mut invalid = Vec::new();
        if !settled {
            invalid.push("the books never stood still".to_owned());
        }
        if !loadgen.finished {
            invalid.push("attempts were left without a verdict".to_owned());
        }
        let parts = Parts { started, timings, sysctls, server, loadgen, ledger, invalid, warnings: Vec::new() };
        Ok(parts.into_trial(turn))
    }

    fn finish(&mut self, directory: &Directory) -> Result<(), RunError> {
        self.next = None;
        directory.remove_empty_logs();
        Ok(())
    }
}

/// Checks what the machine must have for every cell, before anything is made.
fn check_machine(experiment: &Experiment) -> Result<(), RunError> {
    if namespace::privilege() == Privilege::UserNamespace {
        namespace::user_namespaces_work().map_err(|error| RunError::Requirement(error.to_string()))?;
    }
    let nofile = loadgen::Machine::read().nofile;
    for (resolved, cell) in experiment.resolved.iter().zip(&experiment.design.cells) {
        loadgen::check_descriptors(&resolved.loadgen, resolved.half_open, nofile)
            .map_err(|error| RunError::Requirement(format!("cell {}: {error}", experiment.design.describe(cell))))?;
    }
    Ok(())
}
