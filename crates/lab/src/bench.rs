//! What runs the trials of a run one after the other, and how each becomes its record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loadgen::LimitKind;
use study::ledger::Ledger;
use study::results::{Attached, Target, Timings, Trial};
use telemetry::{Stop, Warning};

use crate::directory::Directory;
use crate::experiment::{Applied, Experiment};
use crate::live::Live;
use crate::run::RunError;
use crate::schedule::Planned;
use crate::trial::TrialError;

/// Runs trials. Made before anything is changed: what the machine or the deployment lacks is known by then.
pub(crate) trait Bench {
    /// Prepares the first trial.
    fn begin(&mut self, _directory: &Directory) -> Result<(), RunError> {
        Ok(())
    }

    /// Runs one trial to its record.
    fn trial(&mut self, turn: &Turn<'_>) -> Result<Trial, TrialError>;

    /// Puts everything back, however the run ended.
    fn finish(&mut self, _directory: &Directory) -> Result<(), RunError> {
        Ok(())
    }

    /// What it changed on a running deployment.
    fn attached(&self) -> Option<&Attached> {
        None
    }
}

/// One place in the order, as a bench needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) experiment: &'a Experiment,
    pub(crate) planned: Planned,
    /// What comes after it if it counts.
    pub(crate) after: Option<Planned>,
    /// What it is run with.
    pub(crate) applied: &'a Applied,
    pub(crate) live: &'a Live,
    pub(crate) directory: &'a Directory,
    pub(crate) stop: &'a Stop,
}

/// What a trial came to, its accounts made up.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) started: Timestamp,
    pub(crate) timings: Timings,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// What ran in the server's place.
    pub(crate) target: Option<Target>,
    pub(crate) server: server::Snapshot,
    pub(crate) loadgen: loadgen::Snapshot,
    pub(crate) ledger: Ledger,
    /// Why it does not count, ledger and generator aside.
    pub(crate) invalid: Vec<String>,
    /// What else deserves attention, the warnings of both ends aside.
    pub(crate) warnings: Vec<Warning>,
}

impl Parts {
    /// The record of the trial.
    pub(crate) fn into_trial(self, turn: &Turn<'_>) -> Trial {
        let Self { started, timings, sysctls, target, server, loadgen, ledger, mut invalid, mut warnings } = self;
        for line in ledger.lines.iter().filter(|line| !line.balances()) {
            let allowed = if line.allowance > 0 {
                format!(", off by {} with {} allowed", line.residual, line.allowance)
            } else {
                String::new()
            };
            let (number, name, equation) = (line.number, &line.name, &line.equation);
            invalid.push(format!("ledger line {number} ({name}) does not balance: {equation}{allowed}"));
        }
        invalid.extend(generator_limits(&loadgen));
        warnings.extend(server.warnings.iter().chain(&loadgen.warnings).cloned());
        let Turn { experiment, planned, applied, .. } = turn;
        Trial {
            trial: planned.trial,
            retry: planned.retry,
            block: planned.block,
            cell: planned.cell,
            name: applied.name.clone(),
            settings: applied.settings.clone(),
            started,
            topology: experiment.place.topology(),
            timings,
            sysctls,
            target,
            server,
            loadgen,
            ledger,
            invalid,
            warnings,
        }
    }
}

/// Reasons why the generator, not the server, bound the trial. Ports may be what an experiment is about, and a worker without
/// headroom makes a trial invalid only once it is late beyond the limit.
fn generator_limits(loadgen: &loadgen::Snapshot) -> Vec<String> {
    let limits = loadgen::judgement::limits(loadgen).into_iter();
    let binding = limits.filter(|limit| matches!(limit.what, LimitKind::Lag | LimitKind::Descriptors));
    binding.map(|limit| format!("the generator was the bottleneck: {}", limit.cause())).collect()
}
