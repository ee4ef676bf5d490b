//! Grids of cells as text for a terminal: rows by the first factor, columns by the second. What does not fit the width
//! or has more than two factors becomes a list.

use crate::design::{Cell, Design, Grid};
use crate::format;
use crate::interval::Interval;
use crate::quantity::Quantity;
use crate::summary::{Spread, Summary};

/// Narrowest column: `100 %` and two spaces.
const NARROWEST: usize = 7;
/// Most cells a list shows; the report has them all.
const LONGEST_LIST: usize = 24;

/// One quantity over the cells of a design.
pub(crate) struct Table<'a> {
    pub(crate) design: &'a Design,
    pub(crate) summary: &'a Summary,
    pub(crate) quantity: &'a Quantity,
    /// Characters per line.
    pub(crate) width: usize,
}

/// Rows under common columns.
struct Block {
    title: String,
    /// What the columns are levels of.
    factor: String,
    labels: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    label: String,
    texts: Vec<String>,
    /// Given up where the block is too wide.
    spare: bool,
}

impl Row {
    fn new(label: String, texts: Vec<String>) -> Self {
        Self { label, texts, spare: false }
    }
}

impl Table<'_> {
    /// All grids: the main one first; another one with the same levels becomes a further row of it, the rest follow as
    /// tables of their own.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut blocks: Vec<(usize, Option<Block>)> = Vec::new();
        for (index, grid) in self.design.grids.iter().enumerate() {
            let main = blocks.first_mut().and_then(|(_, block)| block.as_mut());
            if let Some(main) = main.filter(|main| shares_columns(main, grid)) {
                main.rows.push(Row::new(row_name(main, grid), self.texts(self.design.cells_of(index))));
            } else {
                blocks.push((index, self.block(index, grid)));
            }
        }
        blocks
            .into_iter()
            .flat_map(|(grid, block)| {
                block.and_then(|block| block.lines(self.width)).unwrap_or_else(|| self.list(grid))
            })
            .collect()
    }

    fn block(&self, index: usize, grid: &Grid) -> Option<Block> {
        let labels = |factor: usize| grid.factors[factor].levels.iter().map(|level| level.label.clone()).collect();
        let title = grid.name.clone().unwrap_or_else(|| self.quantity.title.to_owned());
        let cells: Vec<&Cell> = self.design.cells_of(index).collect();
        match grid.factors.as_slice() {
            [only] => Some(Block {
                title,
                factor: only.label.clone(),
                labels: labels(0),
                rows: self.median_and_spread(&cells, grid),
            }),
            [rows, columns] => {
                let deepest = rows.levels.iter().map(|level| width(&level.label)).max().unwrap_or(0);
                let named = |row: usize, label: &str| {
                    let name = if row == 0 { rows.label.clone() } else { " ".repeat(width(&rows.label)) };
                    format!("{name} {}", right(label, deepest))
                };
                let texts = |row: usize| self.texts(cells.iter().copied().filter(move |cell| cell.levels[0] == row));
                let rows =
                    rows.levels.iter().enumerate().map(|(row, level)| Row::new(named(row, &level.label), texts(row)));
                Some(Block { title, factor: columns.label.clone(), labels: labels(1), rows: rows.collect() })
            }
            _ => None,
        }
    }

    /// With one factor there is room for the spread: intervals where every cell has one, else ranges.
    fn median_and_spread(&self, cells: &[&Cell], grid: &Grid) -> Vec<Row> {
        let label = if grid.name.is_some() { self.quantity.title } else { "median" };
        let mut rows = vec![Row::new(label.to_owned(), self.texts(cells.iter().copied()))];
        let spread = |cell: &&Cell| self.summary.spread(cell.index, self.quantity.name);
        let spreads: Vec<Spread> = cells.iter().filter_map(spread).collect();
        if spreads.iter().any(|spread| spread.trials > 1) {
            let intervals: Option<Vec<Interval>> = spreads.iter().map(|spread| spread.interval).collect();
            let least = intervals.iter().flatten().map(|interval| interval.coverage).min_by(f64::total_cmp);
            let ends = |spread: Spread| match (&intervals, spread.interval) {
                (Some(_), Some(interval)) => [interval.low, interval.high],
                _ => spread.range,
            };
            let text = |cell| spread(cell).map_or_else(String::new, |s| format::range(ends(s), self.quantity.unit));
            let label = least.map_or_else(|| "range".to_owned(), |least| format!("{} CI", format::percent(least)));
            rows.push(Row { label, texts: cells.iter().map(text).collect(), spare: true });
        }
        rows
    }

    fn texts<'c>(&self, cells: impl Iterator<Item = &'c Cell>) -> Vec<String> {
        cells.map(|cell| median(self.summary, cell.index, self.quantity)).collect()
    }

    fn list(&self, grid: usize) -> Vec<String> {
        let grid_name = self.design.grids[grid].name.as_deref();
        let mut lines = vec![
            grid_name.map_or_else(|| self.quantity.title.to_owned(), |name| format!("{name}: {}", self.quantity.title)),
        ];
        let cells: Vec<&Cell> = self.design.cells_of(grid).collect();
        for cell in cells.iter().take(LONGEST_LIST) {
            let name = levels_in_words(self.design, cell);
            let value = median(self.summary, cell.index, self.quantity);
            let room = self.width.saturating_sub(width(&value) + 4);
            lines.push(format!("  {}  {value}", left(&cut(&name, room), room.min(48))));
        }
        if cells.len() > LONGEST_LIST {
            lines.push(format!("  … and {} more in the report", format::plural(cells.len() - LONGEST_LIST, "cell")));
        }
        lines
    }
}

/// Does a grid have one factor with the levels of `main`'s columns?
fn shares_columns(main: &Block, grid: &Grid) -> bool {
    match grid.factors.as_slice() {
        [factor] => factor.levels.iter().map(|level| &level.label).eq(&main.labels),
        _ => false,
    }
}

/// A further row says what its levels are of, unless the columns say the same.
fn row_name(main: &Block, grid: &Grid) -> String {
    let name = grid.name.as_deref().unwrap_or("further");
    match grid.factors.first().filter(|factor| factor.label != main.factor) {
        Some(factor) => format!("{name}, {}", factor.label),
        None => name.to_owned(),
    }
}

/// The median of a cell, or why there is none.
pub(crate) fn median(summary: &Summary, cell: usize, quantity: &Quantity) -> String {
    match (summary.spread(cell, quantity.name), summary.cells.get(cell)) {
        (Some(spread), _) => format::value(spread.median, quantity.unit),
        (None, Some(cell)) if cell.trials > 0 && cell.valid == 0 => "invalid".to_owned(),
        _ => "–".to_owned(),
    }
}

/// The levels of a cell without its grid's name.
pub(crate) fn levels_in_words(design: &Design, cell: &Cell) -> String {
    let grid = &design.grids[cell.grid];
    if grid.factors.is_empty() { design.describe(cell) } else { grid.at(&cell.levels) }
}

impl Block {
    /// `None` when it is wider than `limit`; spreads are given up first.
    fn lines(mut self, limit: usize) -> Option<Vec<String>> {
        if self.total() > limit {
            self.rows.retain(|row| !row.spare);
        }
        if self.total() > limit {
            return None;
        }
        let (first, column) = (self.first(), self.column());
        let row = |label: &str, texts: &[String]| {
            let texts: String = texts.iter().map(|text| right(text, column)).collect();
            format!("{}{texts}", left(label, first)).trim_end().to_owned()
        };
        let gap = first - width(&self.factor);
        let mut lines = vec![row(&format!("{}{}", left(&self.title, gap), self.factor), &self.labels)];
        lines.extend(self.rows.iter().map(|Row { label, texts, .. }| row(label, texts)));
        Some(lines)
    }

    /// Width of the labels' column.
    fn first(&self) -> usize {
        let heading = width(&self.title) + 2 + width(&self.factor);
        self.rows.iter().map(|row| width(&row.label)).chain([heading]).max().unwrap_or(heading)
    }

    /// Width of each column of values.
    fn column(&self) -> usize {
        let texts = self.rows.iter().flat_map(|row| &row.texts).chain(&self.labels);
        texts.map(|text| width(text) + 2).max().unwrap_or(NARROWEST).max(NARROWEST)
    }

    fn total(&self) -> usize {
        self.first() + self.column() * self.labels.len()
    }
}

/// Characters; every one used here is one column wide.
pub(crate) fn width(text: &str) -> usize {
    text.chars().count()
}

fn left(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

/// At most `limit` characters, the last one `…` where something was cut.
fn cut(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}
