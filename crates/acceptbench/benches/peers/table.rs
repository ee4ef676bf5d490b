//! Tables: aligned text for a terminal of 80 columns, or Markdown for the documentation. Pure.

use std::fmt::Write;

use crate::settings::Format;

/// Wider than this does not fit.
pub(crate) const WIDTH: usize = 80;

/// A table with words above and below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// What it shows, one line.
    pub(crate) title: String,
    /// One name per column. The first `words` columns are words, the others are numbers.
    pub(crate) head: Vec<&'static str>,
    /// How many columns are words.
    pub(crate) words: usize,
    /// As many cells as there are columns.
    pub(crate) rows: Vec<Vec<String>>,
    /// What to know when reading it.
    pub(crate) notes: Vec<String>,
}

impl Table {
    /// The whole of it, with a line break at the end.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Markdown => self.markdown(),
        }
    }

    fn text(&self) -> String {
        let mut out = wrapped(&self.title);
        let widths = self.widths();
        let head: Vec<String> = self.head.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column < self.words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        for note in &self.notes {
            out.push_str(&wrapped(note));
        }
        out
    }

    fn markdown(&self) -> String {
        let mut out = format!("**{}**\n\n", self.title);
        let rule: Vec<&str> = (0..self.head.len()).map(|i| if i < self.words { "---" } else { "---:" }).collect();
        let _ = writeln!(out, "| {} |\n|{}|", self.head.join(" | "), rule.join("|"));
        for row in &self.rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        out
    }

    /// Characters per column.
    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        (0..self.head.len()).map(width).collect()
    }
}

/// `text` in lines of [`WIDTH`] characters at most.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

/// A rate or a count, in whole numbers with a thin group separator every three digits (160 432).
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digits.as_bytes()[place - 1].is_ascii_digit() {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A number of three significant digits or so.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 99.95 => whole(value),
        middle if middle >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A probability.
pub(crate) fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}
