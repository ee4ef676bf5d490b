//! report.md: everything a reader needs to judge a run, and to run it again. A function of what is stored, so it can be
//! written again from the trials at any time.

use std::collections::{BTreeMap, BTreeSet};

use crate::design::{Cell, Design};
use crate::expectation::Judgement;
use crate::explanation;
use crate::format;
use crate::quantity::{Quantity, UnknownQuantity};
use crate::results::Trial;
use crate::screen::{Place, Screen};
use crate::summary::Summary;

/// Quantities that the tables show, after the one that answers the question.
pub const SHOWN: [&str; 8] = [
    "served-ratio",
    "unserved-ratio",
    "timed-out-ratio",
    "reset-ratio",
    "confirm-latency.p50",
    "confirm-latency.p99",
    "overflows",
    "phantoms",
];

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The first screen; its summary is used as it is.
    pub screen: &'a Screen<'a>,
    /// Every trial.
    pub trials: &'a [Trial],
    /// Host, kernel, CPUs and so on, a sentence each.
    pub environment: &'a [String],
    /// The command that runs this again.
    pub command: &'a str,
}

impl Report<'_> {
    /// The report as Markdown.
    ///
    /// # Errors
    /// [`UnknownQuantity`] never happens with [`SHOWN`] as it is; a test keeps it so.
    pub fn markdown(&self) -> Result<String, UnknownQuantity> {
        let mut sections = vec![self.opening(), self.findings()?, self.expectations(), self.invalid()];
        let mut names = SHOWN.to_vec();
        names.retain(|name| *name != self.screen.quantity.name);
        names.insert(0, self.screen.quantity.name);
        let summary = Summary::of(self.screen.design, self.trials, &names)?;
        let quantities = names.iter().map(|name| Quantity::named(name)).collect::<Result<Vec<_>, _>>()?;
        for grid in 0..self.screen.design.grids.len() {
            sections.push(grid_table(self.screen.design, grid, &summary, &quantities));
        }
        sections.extend(self.screen.summary.explanation.sections().iter().map(explained));
        sections.extend([self.ledger(), self.sysctls(), self.warnings(), self.environment(), self.reproduce()]);
        sections.retain(|section| !section.is_empty());
        Ok(sections.join("\n"))
    }

    fn opening(&self) -> String {
        let Screen { name, question, summary, .. } = self.screen;
        format!(
            "# {name}\n\n{question}\n\n**Answer:** {}\n\n{}, {} valid, {} with a balanced ledger.\n",
            self.screen.evidence().sentence(),
            format::plural(summary.trials, "trial"),
            summary.valid,
            summary.balanced,
        )
    }

    /// Every contrast, its figures and what it came to.
    fn findings(&self) -> Result<String, UnknownQuantity> {
        let Some(findings) = &self.screen.summary.findings else { return Ok(String::new()) };
        let Some(sentence) = findings.sentence() else { return Ok(String::new()) };
        let mut body = format!("{sentence}.\n\n");
        if findings.tested().is_some() {
            body.push_str(&findings.method());
            body.push_str("\n\n");
        }
        let header = ["cell", "against", "metric", "medians", "effect", "adjusted p", "judgement"].map(str::to_owned);
        let words = |cell: usize| self.screen.design.cells.get(cell).map(|cell| self.screen.design.describe(cell));
        let mut rows = Vec::new();
        for contrast in &findings.contrasts {
            let quantity = Quantity::named(&contrast.metric)?;
            let [from, to] = contrast.medians;
            rows.push(vec![
                contrast.name.clone(),
                words(contrast.baseline).unwrap_or_default(),
                quantity.title.to_owned(),
                format::change(from, to, quantity.unit),
                contrast.effect_and_interval(quantity.unit),
                contrast.p.map_or_else(|| "–".to_owned(), format::p_value),
                contrast.judgement_in_words(),
            ]);
        }
        body.push_str(&table(&header, &rows));
        Ok(section("Findings", &body))
    }

    fn expectations(&self) -> String {
        let rows = self.screen.expectations.iter().map(|outcome| {
            let judgement = match outcome.judgement {
                Judgement::Holds => "holds",
                Judgement::Fails => "**fails**",
                Judgement::Untested => "**untested**",
            };
            format!("- {judgement}: {}\n", outcome.sentence())
        });
        section("Expectations", &rows.collect::<String>())
    }

    fn invalid(&self) -> String {
        let rows = self.screen.summary.invalid.iter().map(|invalid| {
            let retry = if invalid.retry > 0 { format!(", retry {}", invalid.retry) } else { String::new() };
            format!("- trial {}{retry} ({}): {}\n", invalid.trial, invalid.name, invalid.reasons.join("; "))
        });
        section("Invalid trials", &rows.collect::<String>())
    }

    /// Per line: how many trials balance, and the equation of the one that is furthest off (or of the first).
    fn ledger(&self) -> String {
        let numbers: BTreeSet<u8> =
            self.trials.iter().flat_map(|trial| &trial.ledger.lines).map(|line| line.number).collect();
        let mut rows = Vec::new();
        for number in numbers {
            let lines: Vec<_> = self
                .trials
                .iter()
                .filter_map(|trial| Some((trial.trial, trial.ledger.lines.iter().find(|line| line.number == number)?)))
                .collect();
            let balanced = lines.iter().filter(|(_, line)| line.balances()).count();
            // max_by_key keeps the last of equals; reversed, that is the first trial.
            let Some((trial, worst)) = lines.iter().rev().max_by_key(|(_, line)| line.residual.unsigned_abs()) else {
                continue;
            };
            let derived =
                if lines.iter().any(|(_, line)| line.derived) { " (derived where cookies were sent)" } else { "" };
            rows.push(vec![
                format!("{number} {}{derived}", worst.name),
                format!("{balanced}/{}", lines.len()),
                worst.residual.to_string(),
                format!("trial {trial}: {}", worst.equation),
            ]);
        }
        if rows.is_empty() {
            return String::new();
        }
        section("Ledger", &table(&["line", "balanced", "worst residual", "for example"].map(str::to_owned), &rows))
    }

    /// Effective sysctls that were not the same everywhere, by value.
    fn sysctls(&self) -> String {
        let mut seen = BTreeMap::<&str, BTreeMap<&str, BTreeSet<usize>>>::new();
        for trial in self.trials {
            for (name, value) in &trial.sysctls {
                seen.entry(name).or_default().entry(value).or_default().insert(trial.cell);
            }
        }
        let cells = |cells: &BTreeSet<usize>| {
            let known = cells.iter().filter_map(|index| self.screen.design.cells.get(*index));
            known.map(|cell| self.screen.design.describe(cell)).collect::<Vec<_>>().join("; ")
        };
        let rows: Vec<Vec<String>> = seen
            .iter()
            .filter(|(_, values)| values.len() > 1)
            .flat_map(|(name, values)| values.iter().map(move |(value, of)| (name, value, of)))
            .map(|(name, value, of)| vec![(*name).to_owned(), (*value).to_owned(), cells(of)])
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let header = ["sysctl", "effective value", "cells"].map(str::to_owned);
        section("Sysctls that differ", &table(&header, &rows))
    }

    /// Warnings of trials and of both ends, each once, with how many trials had it.
    fn warnings(&self) -> String {
        let mut seen = BTreeMap::<(&str, &str), BTreeSet<usize>>::new();
        for trial in self.trials {
            let all = trial.warnings.iter().chain(&trial.server.warnings).chain(&trial.loadgen.warnings);
            for warning in all {
                seen.entry((&warning.cause, &warning.hint)).or_default().insert(trial.trial);
            }
        }
        let rows = seen
            .iter()
            .map(|((cause, hint), trials)| format!("- {cause} ({hint}): {}\n", format::plural(trials.len(), "trial")))
            .chain(self.screen.notes.iter().map(|note| format!("- {note}\n")));
        section("Warnings and notes", &rows.collect::<String>())
    }

    fn environment(&self) -> String {
        let caveat = match self.screen.place {
            Place::Lab { cpus } => {
                let cpus = format::plural(cpus, "CPU");
                format!("both ends share {cpus}: rates are not those of a network card")
            }
            Place::Attached(attached) => format!(
                "of the runner; attached to the server at {} and the load generators at {}, sysctls in {}",
                attached.server,
                attached.loadgens.join(", "),
                attached.sysctl_path.display()
            ),
        };
        let rows = self.environment.iter().chain([&caveat]).map(|line| format!("- {line}\n"));
        section("Environment", &rows.collect::<String>())
    }

    fn reproduce(&self) -> String {
        let text = format!(
            "```\n{}\n```\n\nEvery number comes from `trials.jsonl`; `trials.csv` has one row per trial.\n",
            self.command
        );
        section("Run it again", &text)
    }
}

/// The cells of one grid: a row each, medians with their spreads.
fn grid_table(design: &Design, grid: usize, summary: &Summary, quantities: &[&Quantity]) -> String {
    let title = design.grids[grid].name.clone().unwrap_or_else(|| "Cells".to_owned());
    let mut header = vec!["cell".to_owned(), "valid".to_owned()];
    header.extend(quantities.iter().map(|quantity| quantity.title.to_owned()));
    let row = |cell: &Cell| {
        let counts = summary.cells.get(cell.index).map_or((0, 0), |cell| (cell.valid, cell.trials));
        let mut row = vec![crate::table::levels_in_words(design, cell), format!("{}/{}", counts.0, counts.1)];
        row.extend(quantities.iter().map(|quantity| median_and_spread(summary, cell.index, quantity)));
        row
    };
    let rows: Vec<Vec<String>> = design.cells_of(grid).map(row).collect();
    let note = "Median of the valid trials and their range; from six trials on an interval (CI) that covers the median as often \
                as it says, by order statistics. The unit is the trial.\n\n";
    section(&title, &format!("{note}{}", table(&header, &rows)))
}

/// A section of the explanation.
fn explained(part: &explanation::Section) -> String {
    let mut body = String::new();
    if !part.rows.is_empty() {
        body = format!("{}\n\n{}", part.note, table(&part.header, &part.rows));
    }
    if !part.warnings.is_empty() {
        let between = if body.is_empty() { "" } else { "\n" };
        body = format!("{body}{between}- {}\n", part.warnings.join("\n- "));
    }
    section(part.title, &body)
}

/// The spread stands beside the median where it reads differently.
fn median_and_spread(summary: &Summary, cell: usize, quantity: &Quantity) -> String {
    let median = crate::table::median(summary, cell, quantity);
    let Some(spread) = summary.spread(cell, quantity.name) else { return median };
    let (name, ends) = match spread.interval {
        Some(interval) => (format!("{} CI", format::percent(interval.coverage)), [interval.low, interval.high]),
        None => ("range".to_owned(), spread.range),
    };
    match format::range(ends, quantity.unit) {
        ends if ends == median => median,
        ends => format!("{median} ({name} {ends})"),
    }
}

/// A section with a heading; nothing when it is empty.
fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("## {title}\n\n{body}") }
}

/// A Markdown table. A bar inside a field would begin a new column.
fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |fields: &[String]| {
        let fields: Vec<String> = fields.iter().map(|field| field.replace('|', "\\|")).collect();
        format!("| {} |\n", fields.join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(header.len()));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{rule}{rows}", line(header))
}

#[cfg(test)]
mod tests;
