//! `acceptbench list`: the shipped experiments, their questions, and how long they take.

use study::format;

use crate::check::duration;
use crate::exit::{End, Failure};
use crate::shipped::{EXPERIMENTS, find};
use crate::terminal::say;

/// Prints one line (or two) per experiment.
pub(crate) fn list() -> Result<End, Failure> {
    for (name, _) in EXPERIMENTS {
        let experiment = find(name)?;
        let needs = if experiment.place.attach().is_some() {
            "; attached: needs a running deployment, see docs/experiments.md"
        } else {
            ""
        };
        say(&format!(
            "{name:<12} {}  ({} trials, at most {}{needs})",
            experiment.question,
            experiment.trials(),
            format::time(duration(&experiment).as_secs_f64())
        ));
    }
    Ok(End::Success)
}
