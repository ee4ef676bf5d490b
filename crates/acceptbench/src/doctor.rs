//! `acceptbench doctor`: what this machine allows, what that limits, and which shipped experiments can run. It reads, and lets
//! one process look around in namespaces of its own; nothing on the machine changes.

mod facts;
mod finding;
mod judge;
mod text;

use lab::Experiment;
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::exit::{End, Failure};
use crate::pages::{REVISION, VERSION};
use crate::shipped::{EXPERIMENTS, find};
use crate::terminal::say;
use facts::Facts;
use finding::{Finding, Verdict};

/// Columns of the text.
const WIDTH: usize = 80;

/// The experiment whose verdict is the program's.
const MAIN: &str = "backlog";

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Diagnosis {
    version: &'static str,
    revision: &'static str,
    /// Can `acceptbench run backlog` run?
    can_run: bool,
    findings: Vec<Finding>,
    experiments: Vec<Verdict>,
}

impl Diagnosis {
    fn of(facts: &Facts, experiments: &[Experiment]) -> Self {
        let findings = judge::findings(facts, experiments);
        let experiments = judge::verdicts(&findings, experiments);
        let can_run = experiments.iter().any(|verdict| verdict.name == MAIN && verdict.can_run());
        Self { version: VERSION, revision: REVISION, can_run, findings, experiments }
    }
}

/// Looks and says what it found.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<End, Failure> {
    let experiments = EXPERIMENTS.iter().map(|(name, _)| find(name)).collect::<Result<Vec<_>, _>>()?;
    let diagnosis = Diagnosis::of(&Facts::collect(&experiments), &experiments);
    if args.json {
        say(&serde_json::to_string_pretty(&diagnosis).map_err(Failure::requirement)?);
    } else {
        say(&text::render(&diagnosis, WIDTH));
    }
    if diagnosis.can_run {
        return Ok(End::Success);
    }
    let reasons =
        diagnosis.experiments.iter().find(|verdict| verdict.name == MAIN).map(|verdict| verdict.because.join(", "));
    Err(Failure::Requirement(format!("run {MAIN} cannot run here: {}", reasons.unwrap_or_default())))
}
