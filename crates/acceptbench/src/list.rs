//! `acceptbench list`: the shipped experiments, their questions, and how long they take.

use lab::Experiment;
use serde::Serialize;
use study::format;

use crate::check::duration;
use crate::cli::ListArgs;
use crate::exit::{End, Failure};
use crate::needs::{self, Need};
use crate::shipped::{EXPERIMENTS, find};
use crate::terminal::say;

/// One experiment in JSON.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    name: String,
    question: String,
    cells: usize,
    replicates: usize,
    trials: usize,
    /// How long it takes at most.
    seconds: f64,
    needs: Vec<Need>,
}

impl Listed {
    fn of(experiment: &Experiment) -> Self {
        Self {
            name: experiment.name.clone(),
            question: experiment.question.clone(),
            cells: experiment.design.cells.len(),
            replicates: experiment.replicates,
            trials: experiment.trials(),
            seconds: duration(experiment).as_secs_f64(),
            needs: needs::of(experiment),
        }
    }
}

/// Prints one line (or two) per experiment, or one document.
pub(crate) fn list(args: &ListArgs) -> Result<End, Failure> {
    let experiments = EXPERIMENTS.iter().map(|(name, _)| find(name)).collect::<Result<Vec<_>, _>>()?;
    if args.json {
        let listed: Vec<Listed> = experiments.iter().map(Listed::of).collect();
        let document = serde_json::json!({ "experiments": listed });
        say(&serde_json::to_string_pretty(&document).map_err(Failure::requirement)?);
        return Ok(End::Success);
    }
    let column = experiments.iter().map(|experiment| experiment.name.len()).max().unwrap_or_default();
    for experiment in &experiments {
        let attached = if experiment.place.attach().is_some() {
            "; attached: needs a running deployment, see docs/experiments.md"
        } else {
            ""
        };
        say(&format!(
            "{:<column$} {}  ({} trials, at most {}{attached})",
            experiment.name,
            experiment.question,
            experiment.trials(),
            format::time(duration(experiment).as_secs_f64())
        ));
    }
    Ok(End::Success)
}
