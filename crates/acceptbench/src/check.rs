//! `acceptbench check`: is an experiment file valid, and what would it do?

use std::time::Duration;

use lab::Experiment;
use loadgen::opts::RunTime;
use study::format;

use crate::cli::CheckArgs;
use crate::exit::{End, Failure};
use crate::shipped;
use crate::terminal::say;

/// Namespaces, processes and standing still, per trial.
const OVERHEAD: Duration = Duration::from_millis(90);

/// Checks every experiment named, the first wrong one ends it.
pub(crate) fn check(args: &CheckArgs) -> Result<End, Failure> {
    for argument in &args.experiments {
        let experiment = shipped::find(argument)?;
        say(&format!(
            "{}: valid; {} × {} = {}, at most {}",
            experiment.name,
            format::plural(experiment.design.cells.len(), "cell"),
            format::plural(experiment.replicates, "replicate"),
            format::plural(experiment.trials(), "trial"),
            format::time(duration(&experiment).as_secs_f64())
        ));
        let first = lab::order(experiment.design.cells.len(), experiment.replicates, experiment.seed);
        for planned in first.iter().take_while(|planned| planned.block == 0) {
            say(&format!("  {}", experiment.design.describe(&experiment.design.cells[planned.cell])));
        }
    }
    Ok(End::Success)
}

/// How long a run takes when every last attempt waits for its deadline.
pub(crate) fn duration(experiment: &Experiment) -> Duration {
    let block: Duration = experiment
        .resolved
        .iter()
        .map(|cell| {
            let load = match cell.loadgen.duration {
                RunTime::For(span) => span.duration(),
                RunTime::Forever => Duration::ZERO,
            };
            cell.loadgen.warm_up.duration() + load + cell.loadgen.deadline.duration() + OVERHEAD
        })
        .sum();
    block * u32::try_from(experiment.replicates).unwrap_or(u32::MAX)
}
