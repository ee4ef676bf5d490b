//! What is said of a replay: what was recorded, what is assumed, and what came of it in a sentence.

use lab::Experiment;
use loadgen::Verdict;
use serde::Serialize;
use study::format;
use study::results::Trial;
use study::screen::wrap;

use super::model::{Model, seconds};
use crate::exit::Failure;

/// Columns.
const WIDTH: usize = 80;

/// Columns of the words that begin a part.
const HEAD: usize = 10;

/// Where the replay of what was recorded lets in so much more or less than the recording, the model does not fit.
const FITS: f64 = 0.05;

/// Everything that is said before it is run.
pub(super) fn opening(model: &Model<'_>) -> String {
    let header = &model.recording.header;
    let lasts = seconds(model.recording.lasts);
    let mut lines = vec![format!(
        "{}: {} for {lasts} from {:.0} on, Linux {}",
        model.file.display(),
        header.listener,
        header.started,
        header.kernel
    )];
    lines.extend(part("recorded", &recorded(model)));
    lines.extend(part("assumed", &model.assumed));
    lines.join("\n")
}

fn recorded(model: &Model<'_>) -> Vec<String> {
    let Model { arrivals, service, recording, .. } = model;
    let all = arrivals.attempts;
    let pace = match (service.mean_us, service.stall) {
        (Some(mean), _) => format!("one accepted per {} while others waited", seconds_f(mean)),
        (None, Some(_)) => "nobody accepted while others waited".to_owned(),
        (None, None) => "nobody was seen to wait for the acceptor".to_owned(),
    };
    let lost = match arrivals.lost {
        0 => "none lost".to_owned(),
        lost => format!("{lost} lost ({}): they never entered the queue", format::percent(model.lost_ratio())),
    };
    vec![
        format!(
            "{all} arrivals within {}, at most {} per ms",
            format::time(model.trace.last_ns() as f64 / 1e9),
            arrivals.most_per_ms()
        ),
        format!(
            "queue at most {} deep, after {}, limit {}",
            recording.deepest(),
            seconds(recording.deepest_at()),
            model.limit()
        ),
        pace,
        format!("{lost}; {} packets dropped", recording.dropped()),
    ]
}

fn seconds_f(us: f64) -> String {
    format::time(us / 1e6)
}

/// A part of the opening: its name, then one clause after the other, wrapped.
fn part(name: &str, clauses: &[String]) -> Vec<String> {
    wrap(&format!("{name:<HEAD$}{}", clauses.join("; ")), WIDTH, HEAD)
}

/// The opening for programs.
pub(super) fn json(model: &Model<'_>) -> Result<String, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Opening<'a> {
        event: &'static str,
        header: &'a recording::Header,
        seconds: f64,
        arrivals: u64,
        retries: u64,
        lost: u64,
        most_per_ms: u64,
        deepest: u32,
        packets_dropped: u64,
        service_seconds: Option<f64>,
        stall: Option<&'a str>,
        assumed: &'a [String],
    }
    let Model { arrivals, service, recording, .. } = model;
    let opening = Opening {
        event: "recording",
        header: &recording.header,
        seconds: recording.lasts as f64 / 1e6,
        arrivals: arrivals.attempts,
        retries: arrivals.retries,
        lost: arrivals.lost,
        most_per_ms: arrivals.most_per_ms(),
        deepest: recording.deepest(),
        packets_dropped: recording.dropped(),
        service_seconds: service.mean_us.map(|us| us / 1e6),
        stall: model.stall.as_deref(),
        assumed: &model.assumed,
    };
    serde_json::to_string(&opening).map_err(Failure::requirement)
}

/// What became of the arrivals in one cell, over the trials that count.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    /// Its settings in words.
    pub(super) name: String,
    /// Is it what was recorded?
    pub(super) recorded: bool,
    pub(super) planned: u64,
    pub(super) served: u64,
    /// Entered the accept queue.
    pub(super) entered: u64,
}

/// Every cell with a trial that counts.
pub(super) fn cells(experiment: &Experiment, trials: &[Trial]) -> Vec<Cell> {
    let design = &experiment.design;
    let of = |cell: &study::design::Cell| {
        let valid = || trials.iter().filter(|trial| trial.cell == cell.index && trial.is_valid());
        let cohort = |count: &dyn Fn(&Trial) -> u64| valid().map(count).sum();
        Cell {
            name: name(design.describe(cell).as_str(), cell),
            recorded: cell.index == 0,
            planned: cohort(&|trial| trial.loadgen.measured.planned),
            served: cohort(&|trial| trial.loadgen.measured.verdict(Verdict::Served)),
            entered: cohort(&|trial| trial.server.kernel.net.passive_opens),
        }
    };
    design.cells.iter().map(of).filter(|cell| cell.planned > 0).collect()
}

/// `backlog 4096 and somaxconn 4096`, from a cell's settings.
fn name(otherwise: &str, cell: &study::design::Cell) -> String {
    let short = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let settings: Vec<String> = cell.settings.iter().map(|(name, value)| format!("{} {value}", short(name))).collect();
    if settings.is_empty() { otherwise.to_owned() } else { settings.join(" and ") }
}

/// The answer.
pub(super) fn sentence(cells: &[Cell]) -> String {
    let lost = |cell: &Cell| match cell.planned - cell.served.min(cell.planned) {
        0 => "none".to_owned(),
        lost => format::percent(lost as f64 / cell.planned as f64),
    };
    let clauses: Vec<String> = cells
        .iter()
        .enumerate()
        .map(|(index, cell)| {
            let what = if cell.recorded { "as recorded".to_owned() } else { format!("with {}", cell.name) };
            match index {
                0 => format!("{what} {} of the arrivals were not served", lost(cell)),
                _ => format!("{what} {}", lost(cell)),
            }
        })
        .collect();
    let answer = if clauses.is_empty() { "no trial counts".to_owned() } else { clauses.join(", ") };
    part("Replay", &[answer]).join("\n")
}

/// Does the replay of what was recorded let in as many?
pub(super) fn check(model: &Model<'_>, cells: &[Cell]) -> Option<String> {
    let cell = cells.iter().find(|cell| cell.recorded)?;
    let recorded = model.arrivals.entered as f64 / model.arrivals.attempts as f64;
    let replayed = cell.entered as f64 / cell.planned as f64;
    let fits = if (recorded - replayed).abs() <= FITS {
        ""
    } else {
        ": the model does not fit, so take the answer for a hint (docs/replay.md)"
    };
    let figures = [recorded, replayed].map(format::percent);
    let text = format!("entered the queue: {} recorded, {} replayed as recorded{fits}", figures[0], figures[1]);
    Some(part("Check", &[text]).join("\n"))
}

#[cfg(test)]
mod tests;
