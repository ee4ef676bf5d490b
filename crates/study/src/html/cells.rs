//! The cells of a grid as tables: one of levels by levels for a quantity, and one with every quantity that is shown.

use std::fmt::Write;

use super::markup::{Column, Field, Table, escape};
use crate::design::{Cell, Design};
use crate::finding::{Contrast, Findings, Judgement};
use crate::quantity::Quantity;
use crate::report::{MedianAndSpread, Named, median_and_spread};
use crate::summary::Summary;
use crate::table::{levels_in_words, median};

/// What the tables are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    pub(super) design: &'a Design,
    pub(super) summary: &'a Summary,
    pub(super) grid: usize,
    /// What comparing the cells came to, if they were compared.
    pub(super) findings: Option<&'a Findings>,
}

impl Cells<'_> {
    /// One quantity, rows by the first factor and columns by the second; nothing when the grid has other than one or two
    /// factors.
    pub(super) fn matrix(&self, quantity: &Quantity) -> String {
        let grid = &self.design.grids[self.grid];
        let (corner, columns, rows) = match grid.factors.as_slice() {
            [only] => (only.label.clone(), only, vec![(quantity.title.to_owned(), None)]),
            [rows, columns] => {
                let names = (0..rows.levels.len()).map(|level| (rows.at(level), Some(level)));
                (format!("{} \\ {}", rows.label, columns.label), columns, names.collect())
            }
            _ => return String::new(),
        };
        let cells: Vec<&Cell> = self.design.cells_of(self.grid).collect();
        let scale = self.scale(&cells, quantity);
        let row = |(name, level): (String, Option<usize>)| {
            let of_row = cells.iter().filter(|cell| level.is_none_or(|level| cell.levels[0] == level));
            let fields = of_row.map(|cell| self.figure(cell, quantity, scale));
            [Field::text(&name)].into_iter().chain(fields).collect()
        };
        let mut header = vec![Column::plain(&corner)];
        let alone = grid.factors.len() == 1;
        header.extend(
            columns
                .levels
                .iter()
                .enumerate()
                .map(|(index, level)| Column::plain(&if alone { level.label.clone() } else { columns.at(index) })),
        );
        Table {
            caption: format!("{}: median, and range unless it says CI", quantity.title),
            columns: header,
            rows: rows.into_iter().map(row).collect(),
            class: "matrix",
        }
        .html()
    }

    /// Least and greatest median of the cells.
    fn scale(&self, cells: &[&Cell], quantity: &Quantity) -> [f64; 2] {
        let medians = cells.iter().filter_map(|cell| self.summary.spread(cell.index, quantity.name));
        medians.fold([f64::INFINITY, f64::NEG_INFINITY], |[least, greatest], spread| {
            [least.min(spread.median), greatest.max(spread.median)]
        })
    }

    /// Median over range, shaded between the least and the greatest of the table.
    fn figure(&self, cell: &Cell, quantity: &Quantity, [least, greatest]: [f64; 2]) -> Field {
        let MedianAndSpread { median, spread } = median_and_spread(self.summary, cell.index, quantity);
        let part = self
            .summary
            .spread(cell.index, quantity.name)
            .map_or(0.0, |spread| if greatest > least { (spread.median - least) / (greatest - least) } else { 0.0 });
        let mut html = format!("<span class=\"heat\" style=\"--part:{part:.2}\"><b>{}</b>", escape(&median));
        // The caption says that what has no name is a range.
        let spread = spread.map(|(name, ends)| if name == Named::Range { ends } else { format!("{name} {ends}") });
        if let Some(spread) = spread {
            // Writing to a String cannot fail.
            let _ = write!(html, "<small>{}</small>", escape(&spread));
        }
        if let Some(word) = self.judgement(cell, quantity) {
            let _ = write!(html, "<small>{word}</small>");
        }
        html.push_str("</span>");
        Field::markup(html, None)
    }

    /// What comparing a cell came to, in a word or two; of a cell that others are compared with, that it is.
    fn judgement(&self, cell: &Cell, quantity: &Quantity) -> Option<&'static str> {
        let findings = self.findings?;
        if findings.grids.iter().any(|grid| grid.baseline == cell.index) {
            return Some("baseline");
        }
        let of = |contrast: &&Contrast| contrast.cell == cell.index && contrast.metric == quantity.name;
        let contrast = findings.contrasts.iter().find(of)?;
        Some(match contrast.judgement {
            Judgement::Inconclusive if contrast.p.is_none() => "not tested",
            judgement => judgement.name(),
        })
    }

    /// Every cell with every quantity: what `shown` says of it, then what was asked of it.
    pub(super) fn table(&self, shown: &[&Quantity]) -> String {
        let has_value = |quantity: &&&Quantity| {
            self.design.cells_of(self.grid).any(|cell| self.summary.spread(cell.index, quantity.name).is_some())
        };
        let quantities: Vec<&Quantity> = shown.iter().filter(has_value).copied().collect();
        let mut columns = vec![Column::plain("cell"), Column::new("valid", "Valid trials of those run")];
        columns.extend(quantities.iter().map(|quantity| Column::new(quantity.title, quantity.help)));
        let row = |cell: &Cell| {
            let (valid, trials) = self.summary.cells.get(cell.index).map_or((0, 0), |cell| (cell.valid, cell.trials));
            let mut row = vec![
                Field::text(&levels_in_words(self.design, cell)),
                Field::number(&format!("{valid}/{trials}"), Some(valid as f64)),
            ];
            row.extend(quantities.iter().map(|quantity| {
                let key = self.summary.spread(cell.index, quantity.name).map(|spread| spread.median);
                Field::number(&median_and_spread(self.summary, cell.index, quantity).to_string(), key)
            }));
            row
        };
        let title = self.design.grids[self.grid].name.as_deref().unwrap_or("main grid");
        Table {
            caption: format!(
                "{title}: median of the valid trials and their range; from six trials on an interval (CI)"
            ),
            columns,
            rows: self.design.cells_of(self.grid).map(row).collect(),
            class: "sortable",
        }
        .html()
    }

    /// The medians of a quantity in words, for those who cannot see a chart.
    pub(super) fn in_words<'c>(
        &self,
        cells: impl Iterator<Item = &'c Cell>,
        quantity: &Quantity,
        factor: usize,
    ) -> String {
        let grid = &self.design.grids[self.grid];
        let figure = |cell: &Cell| {
            let level = &grid.factors[factor].levels[cell.levels[factor]].label;
            format!("{level} {}", median(self.summary, cell.index, quantity))
        };
        cells.map(figure).collect::<Vec<_>>().join(", ")
    }
}
