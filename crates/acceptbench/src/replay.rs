//! `acceptbench replay`: a recording of `watch`, run again in the lab with its own queue limit and with other knobs.
//!
//! The recording becomes an ordinary experiment ([`experiment`]), so the runner, the results directory, the ledger and the
//! report are those of every run. What is said of it before and after ([`text`]) rests on [`model`]: what the recording
//! says, and what is assumed where it cannot.

mod experiment;
mod model;
mod text;

use lab::Experiment;
use recording::Recording;

use crate::cli::ReplayArgs;
use crate::exit::{End, Failure};
use crate::run;
use crate::terminal::{note, say};
use model::Model;

/// Replays a recording.
pub(crate) fn replay(args: &ReplayArgs) -> Result<End, Failure> {
    if let Some(gap) = args.measure_gap.filter(|gap| *gap < args.deadline) {
        return Err(Failure::flag(format!(
            "measure-gap {gap}: clients of one burst would still be trying in the next; give {} (--deadline) or more",
            args.deadline
        )));
    }
    let recording = Recording::read(&args.recording).map_err(Failure::usage)?;
    let from = args.from.as_ns() / 1000;
    if from > 0 && from >= recording.lasts {
        let (lasts, from) = (model::seconds(recording.lasts), args.from);
        return Err(Failure::flag(format!(
            "from {from}: {} lasts {lasts}; give less than that",
            args.recording.display()
        )));
    }
    let to = args.length.map_or(u64::MAX, |length| from.saturating_add(length.as_ns() / 1000));
    let part = recording.part(from, to);
    let model = Model::of(&part, args)?;
    let experiment = experiment::of(&model, args)?;
    if args.print {
        say(experiment.source.trim_end());
        return Ok(End::Success);
    }
    let opening = text::opening(&model);
    if args.into.json {
        note(&opening);
        say(&text::json(&model)?);
    } else {
        say(&opening);
    }
    run::made(&experiment, &args.into, &|trials| closing(&model, &experiment, trials))
}

/// What came of it, before the screen.
fn closing(model: &Model<'_>, experiment: &Experiment, trials: &[study::results::Trial]) -> String {
    let cells = text::cells(experiment, trials);
    let mut lines = vec![text::sentence(&cells)];
    if let [_] = experiment.design.cells.as_slice() {
        lines.push("          what would other knobs have come to? e.g. --set server.backlog=4096".to_owned());
    }
    lines.extend(text::check(model, &cells));
    lines.push(String::new());
    lines.join("\n")
}
