//! A comparison for a terminal: what was different, then a table per quantity.

use std::fmt::Write;

use crate::compare::{CellPair, Compared, Comparison, Overall, Unlike};
use crate::finding::Judgement;
use crate::format;
use crate::quantity::{Quantity, Unit};
use crate::reach::SIGNIFICANCE;
use crate::summary::Spread;
use crate::table::width;

/// Widths of the columns after the first: A, B, difference, outcome.
const COLUMNS: [usize; 4] = [15, 15, 11, 9];

/// Longest value that stands beside the other one.
const SHORT: usize = 22;

impl Comparison {
    /// The whole comparison, lines of `limit` characters at most where names allow it.
    pub fn text(&self, limit: usize) -> String {
        let [a, b] = &self.runs;
        let mut lines = vec![format!("A  {a}  {}", self.count(0)), format!("B  {b}  {}", self.count(1))];
        for (title, unlike) in [("Machines", &self.environment), ("Effective sysctls", &self.sysctls)] {
            lines.push(String::new());
            if unlike.is_empty() {
                lines.push(format!("{title}: no difference"));
            } else {
                lines.push(format!("{title}: what is different"));
                lines.extend(unlike.iter().flat_map(lines_of));
            }
        }
        let tables = self.quantities().into_iter().map(|quantity| self.table(quantity, limit));
        let (alike, tables): (Vec<_>, Vec<_>) = tables.partition(|table| table.len() == 1);
        for block in [alike.concat()].into_iter().chain(tables).filter(|block| !block.is_empty()) {
            lines.push(String::new());
            lines.extend(block);
        }
        lines.push(String::new());
        lines.extend(self.legend());
        lines.join("\n")
    }

    fn count(&self, side: usize) -> String {
        let sum = |of: fn(&CellPair) -> [usize; 2]| self.cells.iter().map(|cell| of(cell)[side]).sum::<usize>();
        format!("{}, {} valid", format::plural(sum(|cell| cell.trials), "trial"), sum(|cell| cell.valid))
    }

    /// In the order in which cells name them.
    fn quantities(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for compared in self.cells.iter().flat_map(|cell| &cell.quantities) {
            if !names.contains(&compared.quantity) {
                names.push(compared.quantity);
            }
        }
        names
    }

    /// The cells in which the runs differ at all; those in which they do not are counted.
    fn table(&self, name: &str, limit: usize) -> Vec<String> {
        let first = limit.saturating_sub(COLUMNS.iter().sum());
        let title = Quantity::named(name).map_or(name, |quantity| quantity.title);
        let compared = |cell: &'_ CellPair| cell.quantities.iter().find(|compared| compared.quantity == name).cloned();
        let cells = self.cells.iter().filter_map(|cell| Some((cell.name.as_str(), compared(cell)?)));
        let (same, other): (Vec<_>, Vec<_>) = cells.partition(|(_, compared)| compared.difference == Some(0.0));
        if other.is_empty() {
            return vec![format!("{title}: the same median in every cell")];
        }
        let mut lines = vec![row(title, first, ["A", "B", "B − A", ""])];
        for (cell, compared) in &other {
            let value = |spread: Option<Spread>| {
                spread.map_or_else(|| "–".to_owned(), |spread| format::value(spread.median, compared.unit))
            };
            let [a, b] = compared.spreads.map(value);
            lines.push(row(cell, first, [&a, &b, &difference(compared), compared.outcome.name()]));
            let [a, b] =
                compared.spreads.map(|spread| spread.map_or_else(String::new, |spread| range(spread, compared.unit)));
            if !a.is_empty() || !b.is_empty() {
                lines.push(row("", first, [&a, &b, "", ""]));
            }
        }
        if !same.is_empty() {
            lines.push(format!("The same median in both: {}", format::plural(same.len(), "cell")));
        }
        lines.extend(self.overall.iter().filter(|overall| overall.quantity == name).map(in_words));
        lines
    }

    fn legend(&self) -> Vec<String> {
        let effect = format::percent(self.smallest_effect);
        vec![
            "Medians of the valid trials, their ranges below. Of ratios the difference is in".to_owned(),
            "points, of everything else a share of A.".to_owned(),
            format!("  apart    {effect} or more, and no trial of A lies within B's"),
            format!("  overlap  {effect} or more, but trials of both share values"),
            format!("  small    less than {effect}"),
            "p: how likely so great a difference is if it does not matter whose a trial is;".to_owned(),
            "adjusted for all quantities. Whatever changed between the runs is in it.".to_owned(),
        ]
    }
}

/// `Over all cells: B better, +10.0 pts in the median (p 0.0001)`.
fn in_words(overall: &Overall) -> String {
    let unit = Quantity::named(overall.quantity).map_or(Unit::Count, |quantity| quantity.unit);
    let change = overall.change.map_or_else(|| "from 0".to_owned(), |change| points(change, unit));
    let p = overall.p.map_or_else(|| "not tested".to_owned(), |p| format!("p {}", format::p_value(p)));
    let finding = overall.finding.name();
    if overall.finding == Judgement::Inconclusive && overall.p.is_some_and(|p| p <= SIGNIFICANCE) {
        return format!("Over all cells: {finding}, median {change}, mean the other way ({p})");
    }
    format!("Over all cells: {finding}, {change} in the median ({p})")
}

/// A name, then its two values beside or below each other.
fn lines_of(unlike: &Unlike) -> Vec<String> {
    let [a, b] = unlike.values.each_ref().map(|value| value.as_deref().unwrap_or("–"));
    if width(&unlike.name) <= 30 && width(a) <= SHORT && width(b) <= SHORT {
        return vec![format!("  {:<30} {a:<SHORT$} {b}", unlike.name)];
    }
    vec![format!("  {}", unlike.name), format!("    A  {a}"), format!("    B  {b}")]
}

/// The difference in a table; empty without one.
fn difference(compared: &Compared) -> String {
    match (compared.difference, compared.change) {
        (None, _) => String::new(),
        (Some(_), Some(change)) => points(change, compared.unit),
        // From nothing to something has no share.
        (Some(difference), None) => format!("+{}", format::value(difference, compared.unit)),
    }
}

/// `+0.3 pts`, `−12.0 %`, `+35 ×`: a change with its sign.
fn points(change: f64, unit: Unit) -> String {
    let sign = if change < 0.0 { "−" } else { "+" };
    match unit {
        _ if change == 0.0 => "0".to_owned(),
        Unit::Ratio => format!("{sign}{:.1} pts", change.abs() * 100.0),
        _ if change.abs() < 10.0 => format!("{sign}{:.1} %", change.abs() * 100.0),
        _ => format!("{sign}{:.0} ×", change.abs()),
    }
}

/// Nothing for one trial, or for trials that read the same.
fn range(spread: Spread, unit: Unit) -> String {
    let range = format::range(spread.range, unit);
    if range == format::value(spread.median, unit) { String::new() } else { range }
}

/// A name and right-aligned columns; a longer name has a line of its own.
fn row(name: &str, first: usize, texts: [&str; 4]) -> String {
    let mut line = if width(name) > first { format!("{name}\n{:first$}", "") } else { format!("{name:<first$}") };
    for (text, size) in texts.iter().zip(COLUMNS) {
        // Writing to a String cannot fail.
        let _ = write!(line, " {text:>0$}", size - 1);
    }
    line.trim_end().to_owned()
}
