//! Who is told what while an experiment runs: a bar that replaces itself on a terminal, a line a trial elsewhere, JSON lines
//! for programs.

use std::path::Path;

use jiff::Zoned;
use lab::{Agenda, Event, Experiment, Started};
use study::format;
use study::quantity::Quantity;
use study::results::Trial;

use super::budget::{Budget, roughly};
use super::json;
use crate::exit::{End, Failure};
use crate::report::Answer;
use crate::terminal::{self, clear_progress, complain, note, progress, say};

/// Columns of the bar's line at most, however wide the terminal is.
const WIDTH: usize = 80;

/// Columns of the bar itself.
const BAR: usize = 16;

/// How it is shown while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// One line on the terminal, in place.
    Bar,
    /// A line a trial.
    Lines,
    /// A JSON document a line.
    Json,
}

/// Shows a run from its start to its end.
#[derive(Debug)]
pub(super) struct Show<'a> {
    pub(super) experiment: &'a Experiment,
    how: How,
    /// Blocks whose end was shown.
    blocks: usize,
}

impl<'a> Show<'a> {
    /// For people on a terminal or with a journal, or for programs.
    pub(super) fn new(experiment: &'a Experiment, json: bool) -> Self {
        let how = match (json, terminal::error_columns()) {
            (true, _) => How::Json,
            (false, Some(_)) => How::Bar,
            (false, None) => How::Lines,
        };
        Self { experiment, how, blocks: 0 }
    }

    /// Something happened.
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        match *event {
            Event::Started(started) => self.started(started),
            Event::Began { planned, cell, agenda, trials } => {
                let budget = Budget::of(self.experiment, agenda, trials);
                match self.how {
                    How::Bar => {
                        let columns = terminal::error_columns().unwrap_or(WIDTH).min(WIDTH);
                        // The last column stays free: some terminals begin a new line as soon as it is filled.
                        progress(&bar(agenda, cell, &budget.end(&Zoned::now()), columns.saturating_sub(1)));
                    }
                    How::Lines => {}
                    How::Json => {
                        let began = json::Began::new(planned, cell, json::Progress::new(agenda, budget));
                        say(&json::Event::Began(began).line());
                    }
                }
            }
            Event::Ended { trial, agenda, trials } => self.ended(trial, agenda, trials),
            Event::Lingering => progress("waiting for the last scrape"),
        }
    }

    fn started(&mut self, started: Started<'_>) {
        let Started { path, serving, course, agenda, trials } = started;
        self.blocks = agenda.blocks_done();
        let budget = Budget::of(self.experiment, agenda, trials);
        if let Some((address, replaced)) = serving {
            let why = if replaced { " (the port asked for is taken)" } else { "" };
            note(&format!("metrics on http://{address}/metrics{why}"));
        }
        let most = if self.experiment.search.is_some() { "at most " } else { "" };
        note(&opening(&self.experiment.name, agenda, most, &budget.line(&Zoned::now())));
        for warning in course.sessions.last().map_or(&[][..], |session| &session.warnings) {
            note(&format!("warning: {warning}"));
        }
        if self.how == How::Json {
            let (metrics, progress) = (serving.map(|(address, _)| address), json::Progress::new(agenda, budget));
            say(&json::Event::Start(json::Start::new(self.experiment, path, metrics, course, progress)).line());
        }
    }

    fn ended(&mut self, trial: &Trial, agenda: &Agenda, trials: &[Trial]) {
        clear_progress();
        let main = self.experiment.compare.main;
        let budget = Budget::of(self.experiment, agenda, trials);
        match self.how {
            How::Bar => {}
            How::Json => {
                let ended = json::Ended::new(trial, main, agenda, json::Progress::new(agenda, budget));
                say(&json::Event::Ended(Box::new(ended)).line());
            }
            How::Lines => note(&line(trial, agenda, main, budget)),
        }
        for reason in &trial.invalid {
            complain(&format!("trial {} does not count: {reason}", trial.trial + 1));
        }
        let (blocks, all) = (agenda.blocks_done(), self.experiment.blocks());
        // A search says something when it is done.
        if self.experiment.search.is_none() && blocks > self.blocks && blocks < all {
            self.blocks = blocks;
            if self.how != How::Json
                && let Ok(answer) = Answer::of(self.experiment, trials, None)
            {
                note(&format!("\nafter {blocks} of {all}:"));
                note(&answer.table(self.experiment));
            }
        }
    }

    /// Words for people: among the results, unless those are for programs.
    pub(super) fn words(&self, text: &str) {
        clear_progress();
        if self.how == How::Json { note(text) } else { say(text) }
    }

    /// What came of it; `called` is how the results directory is called on the screen.
    pub(super) fn end(&self, directory: &Path, called: &Path, answer: Option<&Answer>, end: &Result<End, Failure>) {
        clear_progress();
        if let Some(answer) = answer {
            self.words(&answer.screen(self.experiment, called));
        }
        if self.how == How::Json {
            say(&json::Event::End(Box::new(json::End::new(self.experiment, directory, answer, end))).line());
        }
    }
}

/// What there is to do.
fn opening(name: &str, agenda: &Agenda, most: &str, budget: &str) -> String {
    let all = format::plural(agenda.places(), "trial");
    match (agenda.done(), agenda.left().count()) {
        (0, _) => format!("{name}: {most}{budget}"),
        (_, 0) if most.is_empty() => format!("{name}: all of {all} are stored"),
        (_, 0) => format!("{name}: the search is done"),
        // Of a search, `done` counts what it did not need.
        (_, _) if !most.is_empty() => format!("{name}: goes on with its search; {most}{budget}"),
        (done, _) => format!("{name}: {done} of {all} are stored; {budget}"),
    }
}

/// A trial that ended, in a line.
fn line(trial: &Trial, agenda: &Agenda, main: &Quantity, budget: Budget) -> String {
    let figure = match main.of(trial) {
        _ if !trial.is_valid() && agenda.repeats(trial.trial) => "does not count, will be repeated".to_owned(),
        _ if !trial.is_valid() => "does not count".to_owned(),
        Some(value) => format!("{} {}", main.name, format::value(value, main.unit)),
        None => String::new(),
    };
    let left = if budget.trials == 0 { String::new() } else { format!("  {} left", roughly(budget.left)) };
    format!("{:>4}/{}  {:<44} {figure}{left}", agenda.done(), agenda.places(), trial.name)
}

/// The bar's line while a trial of this cell runs, in at most `width` characters.
fn bar(agenda: &Agenda, cell: &str, end: &str, width: usize) -> String {
    let (done, places) = (agenda.done(), agenda.places());
    let full = (done * BAR).checked_div(places).unwrap_or(BAR);
    let line = format!("[{:<BAR$}] {done}/{places}  done by {end}  {cell}", "=".repeat(full));
    if line.chars().count() <= width {
        return line;
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
