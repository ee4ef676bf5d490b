//! What `acceptbench run --json` prints: one JSON document a line, told apart by `event`. `start` and `end` come once, `began`
//! and `ended` for every trial between them. Keys are kebab-case, times seconds. Pure: records in, data out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use lab::{Agenda, Experiment, Planned};
use loadgen::Verdict;
use serde::Serialize;
use study::condition::Condition;
use study::expectation::Judgement;
use study::quantity::{Quantity, Unit};
use study::results::{Course, Trial};
use study::summary::Summary;
use telemetry::Warning;

use super::budget::Budget;
use crate::exit::{End as Exit, Failure};
use crate::report::Answer;

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event<'a> {
    /// The first trial is about to begin.
    Start(Start<'a>),
    /// A trial began.
    Began(Began<'a>),
    /// A trial ended.
    Ended(Box<Ended<'a>>),
    /// The run is over.
    End(Box<End<'a>>),
}

impl Event<'_> {
    /// The line. Serialising plain data cannot fail; if it did, the line would be missing.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Progress {
    /// Places of the order that need no further run, of all.
    done: usize,
    trials: usize,
    /// Time that the others will take.
    expected_seconds: f64,
}

impl Progress {
    pub(super) fn new(agenda: &Agenda, budget: Budget) -> Self {
        Self { done: agenda.done(), trials: agenda.places(), expected_seconds: budget.left.as_secs_f64() }
    }
}

/// What is going to happen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Start<'a> {
    pub(super) experiment: &'a str,
    pub(super) question: &'a str,
    pub(super) directory: &'a Path,
    /// Where the metrics are, if anywhere.
    pub(super) metrics: Option<String>,
    pub(super) cells: usize,
    pub(super) replicates: usize,
    pub(super) retries: usize,
    pub(super) only: &'a [Condition],
    /// Runners before this one.
    pub(super) resumed: usize,
    #[serde(flatten)]
    pub(super) progress: Progress,
    pub(super) warnings: &'a [Warning],
}

impl<'a> Start<'a> {
    pub(super) fn new(
        experiment: &'a Experiment,
        directory: &'a Path,
        metrics: Option<SocketAddr>,
        course: &'a Course,
        progress: Progress,
    ) -> Self {
        Self {
            experiment: &experiment.name,
            question: &experiment.question,
            directory,
            metrics: metrics.map(|address| format!("http://{address}/metrics")),
            cells: experiment.part.cells.len(),
            replicates: experiment.replicates,
            retries: experiment.retries,
            only: &experiment.part.only,
            resumed: course.sessions.len().saturating_sub(1),
            progress,
            warnings: course.sessions.last().map_or(&[], |session| &session.warnings),
        }
    }
}

/// Which trial begins.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Began<'a> {
    trial: usize,
    retry: usize,
    block: usize,
    cell: usize,
    name: &'a str,
    #[serde(flatten)]
    progress: Progress,
}

impl<'a> Began<'a> {
    pub(super) fn new(planned: Planned, name: &'a str, progress: Progress) -> Self {
        let Planned { trial, block, cell, retry } = planned;
        Self { trial, retry, block, cell, name, progress }
    }
}

/// What came of a trial.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ended<'a> {
    trial: usize,
    retry: usize,
    block: usize,
    cell: usize,
    name: &'a str,
    /// Set-up and tear-down included.
    seconds: f64,
    /// Does it count?
    valid: bool,
    /// Will it be repeated?
    repeated: bool,
    /// Of the measured phase.
    verdicts: &'a BTreeMap<Verdict, u64>,
    /// The one that answers the question.
    quantity: Figure,
    /// What does not balance, by the number of the ledger's line.
    residuals: BTreeMap<u8, i64>,
    invalid: &'a [String],
    warnings: &'a [Warning],
    #[serde(flatten)]
    progress: Progress,
}

/// A quantity's value in a trial.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    /// Null where the trial has none.
    value: Option<f64>,
    unit: Unit,
}

impl<'a> Ended<'a> {
    pub(super) fn new(trial: &'a Trial, main: &'static Quantity, agenda: &Agenda, progress: Progress) -> Self {
        let lines = trial.ledger.lines.iter().filter(|line| !line.balances());
        Self {
            trial: trial.trial,
            retry: trial.retry,
            block: trial.block,
            cell: trial.cell,
            name: &trial.name,
            seconds: trial.timings.seconds(),
            valid: trial.is_valid(),
            repeated: !trial.is_valid() && agenda.repeats(trial.trial),
            verdicts: &trial.loadgen.measured.verdicts,
            quantity: Figure { name: main.name, value: main.of(trial), unit: main.unit },
            residuals: lines.map(|line| (line.number, line.residual)).collect(),
            invalid: &trial.invalid,
            warnings: &trial.warnings,
            progress,
        }
    }
}

/// What came of the run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct End<'a> {
    directory: &'a Path,
    /// Null when no trial was finished, as all that follows from trials.
    answer: Option<String>,
    expectations: Vec<Expected>,
    /// As in summary.json.
    summary: Option<&'a Summary>,
    notes: &'a [String],
    exit: Meaning<'a>,
}

/// What became of an expectation.
#[derive(Debug, Serialize)]
struct Expected {
    judgement: Judgement,
    sentence: String,
}

/// The exit code in words.
#[derive(Debug, Serialize)]
struct Meaning<'a> {
    code: u8,
    meaning: &'a str,
}

impl<'a> End<'a> {
    pub(super) fn new(
        experiment: &Experiment,
        directory: &'a Path,
        answer: Option<&'a Answer>,
        end: &'a Result<Exit, Failure>,
    ) -> Self {
        let expected = |answer: &Answer| {
            let outcomes = answer.expectations().iter();
            outcomes.map(|o| Expected { judgement: o.judgement, sentence: o.sentence() }).collect()
        };
        Self {
            directory,
            answer: answer.map(|answer| answer.sentence(experiment)),
            expectations: answer.map_or_else(Vec::new, expected),
            summary: answer.map(Answer::summary),
            notes: answer.map_or(&[], Answer::notes),
            exit: match end {
                Ok(end) => Meaning { code: end.code(), meaning: meaning(*end) },
                Err(failure) => Meaning { code: failure.code(), meaning: failure.message() },
            },
        }
    }
}

fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Success => "all well",
        Exit::Unexpected => "an expectation failed",
        Exit::Invalid => "too few trials of a cell count",
        Exit::Interrupted => "interrupted",
    }
}

#[cfg(test)]
mod tests;
