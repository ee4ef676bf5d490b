//! report.md: everything a reader needs to judge a run, and to run it again. A function of what is stored, so it can be
//! written again from the trials at any time.

pub(crate) mod facts;

use std::fmt;

use crate::capacity::{CAPACITY, Capacity, LEVELS};
use crate::design::{Cell, Design};
use crate::expectation::Judgement;
use crate::explanation;
use crate::format;
use crate::quantity::{Quantity, UnknownQuantity};
use crate::report::facts::LedgerLine;
use crate::results::Trial;
use crate::screen::Screen;
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
        let names = self.shown();
        let summary = Summary::of(self.screen.design, self.trials, &names)?;
        let quantities = names.iter().map(|name| Quantity::named(name)).collect::<Result<Vec<_>, _>>()?;
        match &self.screen.summary.capacity {
            Some(capacity) => sections.push(searched(capacity)),
            None => sections.extend(
                (0..self.screen.design.grids.len())
                    .map(|grid| grid_table(self.screen.design, grid, &summary, &quantities)),
            ),
        }
        sections.extend(self.screen.summary.explanation.sections().iter().map(explained));
        sections.extend([self.ledger(), self.sysctls(), self.warnings(), self.environment(), self.reproduce()]);
        sections.retain(|section| !section.is_empty());
        Ok(sections.join("\n"))
    }

    /// Names of the quantities in the tables, the one that answers the question first.
    pub(crate) fn shown(&self) -> Vec<&'static str> {
        let mut names = SHOWN.to_vec();
        names.retain(|name| *name != self.screen.quantity.name);
        names.insert(0, self.screen.quantity.name);
        names
    }

    fn opening(&self) -> String {
        let Screen { name, question, summary, .. } = self.screen;
        format!(
            "# {name}\n\n{question}\n\n**Answer:** {}\n\n{}, {} valid, {} with a balanced ledger.\n",
            self.screen.answer(),
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
        body.push_str(&table(&facts::CONTRAST.map(str::to_owned), &facts::contrasts(self.screen.design, findings)?));
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
        let row = |line: LedgerLine<'_>| {
            vec![
                line.title,
                format!("{}/{}", line.balanced.0, line.balanced.1),
                line.worst.residual.to_string(),
                format!("trial {}: {}", line.trial, line.worst.equation),
            ]
        };
        let rows: Vec<Vec<String>> = facts::ledger(self.trials).into_iter().map(row).collect();
        if rows.is_empty() {
            return String::new();
        }
        section("Ledger", &table(&["line", "balanced", "worst residual", "for example"].map(str::to_owned), &rows))
    }

    /// Effective sysctls that were not the same everywhere, by value.
    fn sysctls(&self) -> String {
        let rows: Vec<Vec<String>> = facts::sysctls(self.trials)
            .iter()
            .filter(|(_, values)| values.len() > 1)
            .flat_map(|(name, values)| values.iter().map(move |(value, of)| (name, value, of)))
            .map(|(name, value, of)| {
                vec![(*name).to_owned(), (*value).to_owned(), facts::cells_in_words(self.screen.design, of)]
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let header = ["sysctl", "effective value", "cells"].map(str::to_owned);
        section("Sysctls that differ", &table(&header, &rows))
    }

    fn warnings(&self) -> String {
        section("Warnings and notes", &list(&facts::warnings(self.trials, self.screen.notes)))
    }

    fn environment(&self) -> String {
        let mut lines = self.environment.to_vec();
        lines.push(facts::caveat(self.screen.place));
        section("Environment", &list(&lines))
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
        row.extend(quantities.iter().map(|quantity| median_and_spread(summary, cell.index, quantity).to_string()));
        row
    };
    let rows: Vec<Vec<String>> = design.cells_of(grid).map(row).collect();
    let note = "Median of the valid trials and their range; from six trials on an interval (CI) that covers the median as often \
                as it says, by order statistics. The unit is the trial.\n\n";
    section(&title, &format!("{note}{}", table(&header, &rows)))
}

/// The capacity of each cell, and the levels it rests on.
fn searched(capacity: &Capacity) -> String {
    let cells = table(&CAPACITY.map(str::to_owned), &capacity.rows());
    let levels = table(&LEVELS.map(str::to_owned), &capacity.level_rows());
    let body = format!("{}\n\n{cells}\n{levels}", capacity.method());
    section("Capacity", &body)
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

/// A median in words, and its spread where that reads differently: `17.2 % (range 17.0–17.4 %)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MedianAndSpread {
    pub(crate) median: String,
    pub(crate) spread: Option<(Named, String)>,
}

/// What a spread is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Named {
    Range,
    /// With its coverage, from 0 to 1.
    Interval(f64),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range => f.write_str("range"),
            Self::Interval(coverage) => write!(f, "{} CI", format::percent(*coverage)),
        }
    }
}

impl fmt::Display for MedianAndSpread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spread {
            Some((name, ends)) => write!(f, "{} ({name} {ends})", self.median),
            None => f.write_str(&self.median),
        }
    }
}

/// Of a cell; without a value, why there is none.
pub(crate) fn median_and_spread(summary: &Summary, cell: usize, quantity: &Quantity) -> MedianAndSpread {
    let median = crate::table::median(summary, cell, quantity);
    let Some(found) = summary.spread(cell, quantity.name) else { return MedianAndSpread { median, spread: None } };
    let (name, ends) = match found.interval {
        Some(interval) => (Named::Interval(interval.coverage), [interval.low, interval.high]),
        None => (Named::Range, found.range),
    };
    let ends = format::range(ends, quantity.unit);
    let spread = (ends != median).then_some((name, ends));
    MedianAndSpread { median, spread }
}

/// A Markdown list.
fn list(lines: &[String]) -> String {
    let line = |line: &String| format!("- {line}\n");
    lines.iter().map(line).collect()
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
