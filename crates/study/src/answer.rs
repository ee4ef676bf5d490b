//! The answer sentence: what the trials say about the experiment's question, derived from the cells and never written
//! by hand.
//!
//! It compares cells with the baseline. A change of the median below the smallest effect is nothing; one beyond it is
//! claimed when it is a finding, and said to be none otherwise. Where nothing was tested (too few blocks, or between two cells
//! of which neither is the baseline) ranges stand in for it: a change is claimed when they are apart, and said to be one
//! whose ranges overlap otherwise. The smallest effect is a difference for ratios (0.05 = 5 points) and a share of the
//! baseline for everything else.

use crate::design::{Cell, Design, Factor};
use crate::finding::{self, Contrast, Judgement};
use crate::format;
use crate::quantity::{Better, Quantity, Unit};
use crate::summary::{Spread, Summary};
use crate::table::levels_in_words;

/// Latency that is quoted beside the main quantity.
const P99: &str = "confirm-latency.p99";

/// What the answer is derived from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The cells.
    pub design: &'a Design,
    /// Their medians, ranges and findings; with `confirm-latency.p99` if it is to be quoted.
    pub summary: &'a Summary,
    /// The quantity that answers the question.
    pub quantity: &'a Quantity,
    /// See the module.
    pub smallest_effect: f64,
    /// The cell of the main grid that others are compared with; the one with the lowest levels without it.
    pub baseline: Option<usize>,
}

/// How two cells differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Unsure,
    Clear,
}

impl Evidence<'_> {
    /// The answer, clauses separated by `; `.
    pub fn sentence(&self) -> String {
        let mut clauses = self.main_grid();
        clauses.extend((1..self.design.grids.len()).filter_map(|grid| self.other_grid(grid)));
        if self.summary.valid > 0 && self.summary.cells.iter().all(|cell| cell.valid <= 1) {
            clauses.push("one trial per cell: no spread known".to_owned());
        }
        clauses.join("; ")
    }

    fn main_grid(&self) -> Vec<String> {
        if self.summary.valid == 0 {
            return vec!["no valid trial, no answer".to_owned()];
        }
        let Some(base) = self.base() else { return Vec::new() };
        let Some(found) = self.spread(base) else {
            return vec![format!("{} has no valid trial to compare with", levels_in_words(self.design, base))];
        };
        let cells: Vec<&Cell> = self.design.cells_of(base.grid).collect();
        if cells.len() == 1 {
            let value = format::value(found.median, self.quantity.unit);
            return vec![format!("{}: {value}{}", self.quantity.title, self.p99_of(base))];
        }
        let best = self.best(base, &cells);
        let mut clauses = self.single_factors(base, best, &cells);
        match best {
            Some(best) if best.index != base.index => clauses.push(self.best_clause(base, best)),
            Some(_) => clauses.push(format!(
                "nothing beats {} ({})",
                levels_in_words(self.design, base),
                format::value(found.median, self.quantity.unit)
            )),
            None => {}
        }
        clauses
    }

    /// What each factor of the main grid did alone.
    fn single_factors(&self, base: &Cell, best: Option<&Cell>, cells: &[&Cell]) -> Vec<String> {
        let factors = &self.design.grids[base.grid].factors;
        let (mut idle, mut clauses) = (Vec::new(), Vec::new());
        for (index, factor) in factors.iter().enumerate() {
            // Where a number can be raised, lowering it answers nobody's question.
            let raised = raised_levels(factor, base.levels[index]);
            let alone = |cell: &&&Cell| {
                changed(base, cell) == [index] && (raised.is_empty() || raised.contains(&cell.levels[index]))
            };
            let changes: Vec<(Change, &Cell)> =
                cells.iter().filter(alone).filter_map(|cell| Some((self.change(base, cell)?, *cell))).collect();
            let strongest = [Change::Clear, Change::Unsure].into_iter().find_map(|kind| {
                // max_by keeps the last of equals; reversed, that is the nearest level.
                let of_kind = changes.iter().rev().filter(|(change, _)| *change == kind);
                of_kind.map(|(_, cell)| *cell).max_by(|a, b| self.effect(base, a).total_cmp(&self.effect(base, b)))
            });
            match strongest {
                None if changes.is_empty() => {}
                None => idle.push((if raised.is_empty() { "changing" } else { "raising" }, factor.label.as_str())),
                Some(cell) if best.is_some_and(|best| best.index == cell.index) => {}
                Some(cell) => {
                    clauses.push(format!("{} alone: {}", target(base, cell, factors), self.figures(base, cell)));
                }
            }
        }
        if !idle.is_empty() {
            clauses.insert(0, idle_clause(&idle, factors.len()));
        }
        clauses
    }

    fn best_clause(&self, base: &Cell, best: &Cell) -> String {
        let factors = &self.design.grids[base.grid].factors;
        format!("{}: {}", target(base, best, factors), self.figures(base, best))
    }

    /// The best cell of the main grid, or the one nearest to the base that does as well: nobody should raise a setting
    /// for noise. `None` where no direction is better.
    fn best<'c>(&self, base: &'c Cell, cells: &[&'c Cell]) -> Option<&'c Cell> {
        let top = self.extreme(cells)?;
        let as_good = |cell: &&&Cell| {
            let overlap = self.spread(cell).zip(self.spread(top)).is_some_and(|(a, b)| a.overlaps(&b));
            overlap && self.change(top, cell) == Some(Change::Nothing)
        };
        let nearest = cells.iter().filter(as_good).min_by_key(|cell| (changed(base, cell).len(), cell.index)).copied();
        let best = nearest.unwrap_or(top);
        // A gain below the smallest effect is no gain, however repeatable.
        Some(if self.change(base, best) == Some(Change::Nothing) { base } else { best })
    }

    /// A grid beside the main one: which of its cells served most and which least, or which did best and which answered
    /// fastest.
    fn other_grid(&self, grid: usize) -> Option<String> {
        let name = self.design.grids[grid].name.as_deref().unwrap_or("further cells");
        let cells: Vec<&Cell> = self.design.cells_of(grid).filter(|cell| self.spread(cell).is_some()).collect();
        let best = self.extreme(&cells)?;
        let value =
            |cell: &Cell| self.spread(cell).map_or_else(String::new, |s| format::value(s.median, self.quantity.unit));
        let tested: Vec<&Contrast> = cells.iter().filter_map(|cell| self.tested(cell)).collect();
        // The best and the worst are further apart than a finding and its baseline, which is one of the cells.
        let differ = if tested.is_empty() {
            cells.iter().any(|cell| self.change(best, cell) == Some(Change::Clear))
        } else {
            tested.iter().any(|contrast| contrast.judgement.is_finding())
        };
        let most = if cells.len() == 1 {
            format!("{} {}", self.quantity.title, value(best))
        } else if !differ {
            let medians = cells.iter().filter_map(|cell| self.spread(cell)).map(|spread| spread.median).collect();
            let range =
                Spread::of(medians).map_or_else(String::new, |all| format::range(all.range, self.quantity.unit));
            let beyond = if tested.is_empty() { "beyond the spread" } else { "beyond chance" };
            format!("no level stands out {beyond} ({} {range})", self.quantity.title)
        } else if self.quantity.name == "served-ratio" {
            let worst = self.extreme_by(&cells, -1.0).map_or_else(String::new, |worst| {
                format!(", {} least ({})", levels_in_words(self.design, worst), value(worst))
            });
            format!("{} served most ({}){worst}", levels_in_words(self.design, best), value(best))
        } else {
            format!("{} had the best {} ({})", levels_in_words(self.design, best), self.quantity.title, value(best))
        };
        let fastest = if self.quantity.name == "served-ratio" { String::new() } else { self.fastest(&cells) };
        Some(format!("{name}: {most}{fastest}"))
    }

    fn fastest(&self, cells: &[&Cell]) -> String {
        let timed: Vec<(Spread, &Cell)> =
            cells.iter().filter_map(|cell| Some((self.summary.spread(cell.index, P99)?, *cell))).collect();
        let Some((quickest, cell)) = timed.iter().min_by(|(a, _), (b, _)| a.median.total_cmp(&b.median)) else {
            return String::new();
        };
        if timed.iter().all(|(other, _)| other.overlaps(quickest)) {
            return String::new();
        }
        let p99 = format::time(quickest.median);
        format!(", {} answered fastest (p99 {p99})", levels_in_words(self.design, cell))
    }

    fn base(&self) -> Option<&Cell> {
        let chosen = self.baseline.and_then(|index| self.design.cells.get(index)).filter(|cell| cell.grid == 0);
        chosen.or_else(|| self.design.cells_of(0).find(|cell| cell.levels.iter().all(|level| *level == 0)))
    }

    fn extreme<'c>(&self, cells: &[&'c Cell]) -> Option<&'c Cell> {
        self.extreme_by(cells, 1.0)
    }

    /// The best cell (`direction` 1) or the worst (-1), the first of equals.
    fn extreme_by<'c>(&self, cells: &[&'c Cell], direction: f64) -> Option<&'c Cell> {
        let sign = direction
            * match self.quantity.better {
                Better::Higher => 1.0_f64,
                Better::Lower => -1.0,
                Better::Neither => return None,
            };
        let score = |cell: &Cell| self.spread(cell).map(|spread| sign * spread.median);
        // max_by keeps the last of equals; reversed, that is the first.
        let scored = cells.iter().rev().filter_map(|cell| Some((score(cell)?, *cell)));
        scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, cell)| cell)
    }

    fn spread(&self, cell: &Cell) -> Option<Spread> {
        self.summary.spread(cell.index, self.quantity.name)
    }

    /// The contrast of a cell with its baseline, if it was tested.
    fn tested(&self, cell: &Cell) -> Option<&Contrast> {
        let all = &self.summary.findings.as_ref()?.contrasts;
        all.iter().find(|c| c.cell == cell.index && c.metric == self.quantity.name && c.p.is_some())
    }

    /// The contrast of two cells, if one is the other's baseline and it was tested.
    fn contrast(&self, from: &Cell, to: &Cell) -> Option<&Contrast> {
        let of = |cell: &Cell, other: &Cell| self.tested(cell).filter(|contrast| contrast.baseline == other.index);
        of(to, from).or_else(|| of(from, to))
    }

    fn change(&self, from: &Cell, to: &Cell) -> Option<Change> {
        if let Some(contrast) = self.contrast(from, to) {
            return Some(match contrast.judgement {
                Judgement::NoDifference => Change::Nothing,
                Judgement::Inconclusive => Change::Unsure,
                Judgement::Better | Judgement::Worse | Judgement::Changed => Change::Clear,
            });
        }
        let (a, b) = self.spread(from).zip(self.spread(to))?;
        let effect = self.effect(from, to);
        Some(if finding::is_small(effect, self.smallest_effect) {
            Change::Nothing
        } else if a.overlaps(&b) {
            Change::Unsure
        } else {
            Change::Clear
        })
    }

    /// Size of a change in the terms of the smallest effect.
    fn effect(&self, from: &Cell, to: &Cell) -> f64 {
        let Some((a, b)) = self.spread(from).zip(self.spread(to)) else { return 0.0 };
        finding::effect(a.median, b.median, self.quantity.unit).abs()
    }

    /// `17.2 → 100 %, p99 2.10 s → 530 µs`.
    fn figures(&self, from: &Cell, to: &Cell) -> String {
        let medians = |name: &str| {
            let (a, b) = self.summary.spread(from.index, name).zip(self.summary.spread(to.index, name))?;
            Some((a.median, b.median))
        };
        let mut text =
            medians(self.quantity.name).map_or_else(String::new, |(a, b)| format::change(a, b, self.quantity.unit));
        if self.change(from, to) == Some(Change::Unsure) {
            let why = self.contrast(from, to).map(|contrast| format!(" ({})", contrast.judgement_in_words()));
            text.push_str(why.as_deref().unwrap_or(" (ranges overlap)"));
        }
        if let Some((a, b)) = medians(P99).filter(|_| self.quantity.name != P99) {
            text.push_str(", p99 ");
            text.push_str(&format::change(a, b, Unit::Seconds));
        }
        text
    }

    fn p99_of(&self, cell: &Cell) -> String {
        let p99 = self.summary.spread(cell.index, P99).filter(|_| self.quantity.name != P99);
        p99.map_or_else(String::new, |p99| format!(", p99 {}", format::time(p99.median)))
    }
}

/// Indices of the factors in which two cells of a grid differ.
fn changed(base: &Cell, cell: &Cell) -> Vec<usize> {
    (0..base.levels.len()).filter(|factor| base.levels[*factor] != cell.levels[*factor]).collect()
}

/// The levels that are greater numbers than the base's.
fn raised_levels(factor: &Factor, base: usize) -> Vec<usize> {
    let number = |level: usize| factor.levels[level].label.parse::<f64>().ok();
    let raises = |level: &usize| number(*level).zip(number(base)).is_some_and(|(other, from)| other > from);
    (0..factor.levels.len()).filter(raises).collect()
}

fn idle_clause(idle: &[(&str, &str)], factors: usize) -> String {
    let verb = if idle.iter().all(|(verb, _)| *verb == "raising") { "raising" } else { "changing" };
    let labels = idle.iter().map(|(_, label)| *label).collect::<Vec<_>>().join(" or ");
    match (idle.len(), factors) {
        (1, 1) => format!("{verb} {labels} changed nothing"),
        (2, 2) => format!("{verb} one alone changed nothing"),
        (n, all) if n == all => format!("{verb} any one alone changed nothing"),
        _ => format!("{verb} {labels} alone changed nothing"),
    }
}

/// Where a cell is, seen from the base: `both to 1024`, `somaxconn to 1024, backlog to 128`.
fn target(base: &Cell, cell: &Cell, factors: &[Factor]) -> String {
    let changed = changed(base, cell);
    let label = |factor: usize| factors[factor].levels[cell.levels[factor]].label.as_str();
    let alike = changed.len() > 1
        && changed.len() == factors.len()
        && changed.iter().all(|factor| label(*factor) == label(changed[0]));
    if alike {
        return format!("{} to {}", if changed.len() == 2 { "both" } else { "all" }, label(changed[0]));
    }
    let each = changed.iter().map(|factor| format!("{} to {}", factors[*factor].label, label(*factor)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
