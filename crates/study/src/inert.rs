//! INERT: swept knobs that cannot have mattered. Where the kernel's own code says that a knob was not asked for, or that its
//! values come to the same, cells that differ in nothing else are one cell run several times.
//!
//! A mark is derived from effective values and counters of the cells' valid trials by a rule of `inert/rules.rs`, each with
//! the place in the kernel that it rests on; never from the absence of a difference. It never contradicts a measurement:
//! where cells that a rule calls alike differ clearly, the mark becomes a warning.

mod contradiction;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::binding::Facts;
use crate::design::{Cell, Design};
use crate::results::Trial;
use crate::summary::Summary;

/// Marks and warnings of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Inert {
    /// Where a swept knob cannot have mattered.
    pub marks: Vec<Mark>,
    /// Marks that the measurements contradict, a sentence each: a rule or a measurement is wrong.
    pub warnings: Vec<String>,
}

/// A swept knob that cannot have mattered between some cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mark {
    /// Index of the grid in the design.
    pub grid: usize,
    /// The factor, as it is called in tables.
    pub knob: String,
    /// The other factors' levels, e.g. `backlog 16`; empty where there is no other.
    pub at: String,
    /// Levels of the factor that come to the same, in its order: two or more.
    pub levels: Vec<String>,
    /// Are these all levels that were run?
    pub whole: bool,
    /// The cells, by index, in the order of `levels`.
    pub cells: Vec<usize>,
    /// Why, with figures.
    pub reason: String,
    /// The kernel's source, or the manual, that the rule rests on.
    pub source: String,
}

/// Finds what cannot have mattered. `smallest_effect` as in [`Evidence`](crate::answer::Evidence).
pub fn of(design: &Design, trials: &[Trial], summary: &Summary, smallest_effect: f64) -> Inert {
    let runs = Runs::of(design, trials);
    let marks: Vec<Mark> = lines(design).iter().flat_map(|line| line.marks(design, &runs)).collect();
    let against = contradiction::of(&marks, &runs.by_cell, summary, smallest_effect);
    let (mut inert, mut contradicted) = (Inert::default(), against.into_iter());
    for mark in marks {
        match contradicted.next().flatten() {
            Some(against) => inert.warnings.push(mark.warning(&against)),
            None => inert.marks.push(mark),
        }
    }
    inert
}

impl Inert {
    /// The knobs that could not matter at all, in at most `limit` characters: by name, or counted. `None` where every knob
    /// had a level that could.
    pub(crate) fn in_words(&self, limit: usize) -> Option<String> {
        let whole: Vec<String> = self.marks.iter().filter(|mark| mark.whole).map(Mark::subject).collect();
        let named = whole.join("; ");
        match whole.len() {
            0 => None,
            _ if crate::table::width(&named) <= limit => Some(named),
            1 => Some("a knob could not matter: see the report".to_owned()),
            sweeps => Some(format!("{sweeps} sweeps of a knob could not matter: see the report")),
        }
    }
}

impl Mark {
    /// `somaxconn at backlog 16`, with the levels where some others do matter.
    pub fn subject(&self) -> String {
        let levels = if self.whole { String::new() } else { format!(" {}", self.levels.join(", ")) };
        let at = if self.at.is_empty() { String::new() } else { format!(" at {}", self.at) };
        format!("{}{levels}{at}", self.knob)
    }

    fn warning(&self, against: &str) -> String {
        format!("{} is INERT by rule ({}), yet {against}: please report", self.subject(), self.reason)
    }
}

/// The valid trials of each cell.
struct Runs<'a> {
    by_cell: Vec<Vec<Facts<'a>>>,
}

impl<'a> Runs<'a> {
    fn of(design: &Design, trials: &'a [Trial]) -> Self {
        let of = |cell: &Cell| {
            let valid = trials.iter().filter(|trial| trial.cell == cell.index && trial.is_valid());
            valid.map(Facts::of).collect()
        };
        Self { by_cell: design.cells.iter().map(of).collect() }
    }
}

/// Cells of a grid that differ in one factor only.
struct Line {
    grid: usize,
    factor: usize,
    cells: Vec<usize>,
}

/// Every line of every grid, in order.
fn lines(design: &Design) -> Vec<Line> {
    let mut lines = Vec::new();
    for (grid, factors) in design.grids.iter().map(|grid| &grid.factors).enumerate() {
        for factor in 0..factors.len() {
            let mut by_rest = BTreeMap::<Vec<usize>, Vec<usize>>::new();
            for cell in design.cells_of(grid) {
                let mut rest = cell.levels.clone();
                rest.remove(factor);
                by_rest.entry(rest).or_default().push(cell.index);
            }
            lines.extend(by_rest.into_values().map(|cells| Line { grid, factor, cells }));
        }
    }
    lines
}

/// Cells that a rule calls alike, and why.
#[derive(Clone, Debug)]
struct Group {
    cells: BTreeSet<usize>,
    reasons: Vec<String>,
    sources: BTreeSet<&'static str>,
}

impl Line {
    /// The greatest groups of cells that are alike in every setting of the factor.
    fn marks(&self, design: &Design, runs: &Runs<'_>) -> Vec<Mark> {
        let factor = &design.grids[self.grid].factors[self.factor];
        let run: Vec<usize> = self.cells.iter().copied().filter(|cell| !runs.by_cell[*cell].is_empty()).collect();
        let Some(first) = factor.levels.first() else { return Vec::new() };
        let mut groups =
            vec![Group { cells: run.iter().copied().collect(), reasons: Vec::new(), sources: BTreeSet::new() }];
        for setting in first.settings.keys() {
            let value = |cell: &usize| factor.levels[design.cells[*cell].levels[self.factor]].settings.get(setting);
            let values: BTreeSet<_> = run.iter().map(value).collect();
            if values.len() > 1 {
                let alike = alike(setting, &run, runs);
                groups = groups.iter().flat_map(|group| alike.iter().filter_map(|other| group.and(other))).collect();
            }
        }
        greatest(groups)
            .into_iter()
            .filter(|group| !group.reasons.is_empty())
            .map(|group| self.mark(design, &run, &group))
            .collect()
    }

    fn mark(&self, design: &Design, run: &[usize], group: &Group) -> Mark {
        let factors = &design.grids[self.grid].factors;
        let label = |cell: usize| &factors[self.factor].levels[design.cells[cell].levels[self.factor]].label;
        let cells: Vec<usize> = run.iter().copied().filter(|cell| group.cells.contains(cell)).collect();
        let others = (0..factors.len()).filter(|factor| *factor != self.factor);
        let mut at: Vec<String> = design.grids[self.grid].name.iter().cloned().collect();
        at.extend(others.map(|factor| factors[factor].at(design.cells[cells[0]].levels[factor])));
        Mark {
            grid: self.grid,
            knob: factors[self.factor].label.clone(),
            at: at.join(", "),
            levels: cells.iter().map(|cell| label(*cell).clone()).collect(),
            whole: cells.len() == run.len(),
            reason: group.reasons.join("; "),
            source: group.sources.iter().copied().collect::<Vec<_>>().join("; "),
            cells,
        }
    }
}

impl Group {
    /// Both at once; `None` where fewer than two cells are left.
    fn and(&self, other: &Self) -> Option<Self> {
        let cells: BTreeSet<usize> = self.cells.intersection(&other.cells).copied().collect();
        let mut reasons = self.reasons.clone();
        reasons.extend(other.reasons.iter().filter(|reason| !self.reasons.contains(reason)).cloned());
        (cells.len() > 1).then(|| Self {
            cells,
            reasons,
            sources: self.sources.union(&other.sources).copied().collect(),
        })
    }
}

/// Groups of cells between which `setting` cannot matter, by any rule about it.
fn alike(setting: &str, cells: &[usize], runs: &Runs<'_>) -> Vec<Group> {
    let mut groups = Vec::new();
    for rule in rules::about(setting) {
        let mut by_key = BTreeMap::<String, (BTreeSet<usize>, String)>::new();
        for cell in cells {
            if let Some((key, reason)) = rule.key_of(&runs.by_cell[*cell]) {
                by_key.entry(key).or_insert_with(|| (BTreeSet::new(), reason)).0.insert(*cell);
            }
        }
        groups.extend(by_key.into_values().filter(|(cells, _)| cells.len() > 1).map(|(cells, reason)| Group {
            cells,
            reasons: vec![reason],
            sources: BTreeSet::from([rule.source]),
        }));
    }
    greatest(groups)
}

/// Those that are in no other; of equals the first.
fn greatest(groups: Vec<Group>) -> Vec<Group> {
    let mut kept: Vec<Group> = Vec::new();
    for group in groups {
        if kept.iter().any(|other| group.cells.is_subset(&other.cells)) {
            continue;
        }
        kept.retain(|other| !other.cells.is_subset(&group.cells));
        kept.push(group);
    }
    kept
}

#[cfg(test)]
mod tests;
