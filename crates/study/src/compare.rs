//! Two runs of one experiment held against each other: on two kernels, two machines, with two builds. Cell by cell and
//! quantity by quantity the medians of both, their ranges and the difference; and what else was different.
//!
//! Blocks of two runs have nothing to do with each other, so trials of a cell are never paired by block. Drift between the
//! runs is part of what is compared: two runs on one machine, one after the other, show how much that is.

mod chance;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::design::Design;
use crate::finding::{self, Judgement};
use crate::quantity::{Quantity, Unit, UnknownQuantity};
use crate::reach::SIGNIFICANCE;
use crate::results::Trial;
use crate::settings;
use crate::summary::{Spread, Summary};
use chance::{Stratum, Tested};

/// One of the two runs.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Name of its results directory.
    pub name: &'a str,
    /// Its cells.
    pub design: &'a Design,
    /// Its trials.
    pub trials: &'a [Trial],
    /// The machine it ran on, name and value.
    pub environment: &'a BTreeMap<String, String>,
}

/// What two runs say beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// Names of the runs, A and B.
    pub runs: [String; 2],
    /// Differences below it do not matter, see [`Compared::change`].
    pub smallest_effect: f64,
    /// The machine, where it was not the same.
    pub environment: Vec<Unlike>,
    /// Effective sysctls, where they were not the same in the cells compared.
    pub sysctls: Vec<Unlike>,
    /// What is true of B over all cells, by quantity.
    pub overall: Vec<Overall>,
    /// The cells of both, in the order of A.
    pub cells: Vec<CellPair>,
}

/// A quantity over all cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Overall {
    /// The quantity.
    pub quantity: &'static str,
    /// Median of the cells' changes, see [`Compared::change`]; nothing where the median change is from nothing to something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
    /// How likely so great a difference is by chance, adjusted for all quantities asked about; nothing where each cell has one
    /// trial a run, or one run has no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// What B is to A.
    pub finding: Judgement,
}

/// Something with another value in B than in A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unlike {
    /// What it is.
    pub name: String,
    /// Its value in A and in B; `None` where it has none.
    pub values: [Option<String>; 2],
}

/// One cell of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CellPair {
    /// It in words.
    pub name: String,
    /// What makes it.
    pub settings: BTreeMap<String, String>,
    /// Trials run in A and in B.
    pub trials: [usize; 2],
    /// Those that count.
    pub valid: [usize; 2],
    /// Quantities that have a value in either, in the order asked for.
    pub quantities: Vec<Compared>,
}

/// One quantity of a cell in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Compared {
    /// The quantity.
    pub quantity: &'static str,
    /// Unit of its values.
    pub unit: Unit,
    /// The valid trials of A and of B.
    pub spreads: [Option<Spread>; 2],
    /// Median of B less that of A, in the unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// The same in the terms of the smallest effect: as it is for a ratio, as a share of A's median for everything else.
    /// Nothing where that is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
    /// How likely so great a difference is by chance, adjusted for all cells and quantities. With three trials a run it cannot
    /// be below 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// What that is worth.
    pub outcome: Outcome,
}

/// What a difference is worth, by the ranges alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Below the smallest effect.
    Small,
    /// Not below it, but the ranges of the trials share values.
    Overlap,
    /// Not below it, and every trial of one is beyond every trial of the other.
    Apart,
    /// A or B has no value.
    Missing,
}

impl Outcome {
    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Overlap => "overlap",
            Self::Apart => "apart",
            Self::Missing => "",
        }
    }
}

impl Comparison {
    /// Compares the cells given by their indices in `a` and in `b`.
    ///
    /// # Errors
    /// [`UnknownQuantity`] for the first name that does not exist.
    pub fn of(
        a: &Run<'_>,
        b: &Run<'_>,
        cells: &[(usize, usize)],
        quantities: &[&str],
        smallest_effect: f64,
    ) -> Result<Self, UnknownQuantity> {
        let summaries = [Summary::of(a.design, a.trials, quantities)?, Summary::of(b.design, b.trials, quantities)?];
        let quantities = quantities.iter().map(|name| Quantity::named(name)).collect::<Result<Vec<_>, _>>()?;
        let strata: Vec<Stratum> =
            cells.iter().map(|(one, other)| stratum(a.trials, b.trials, (*one, *other), &quantities)).collect();
        let chance = chance::test(&strata, quantities.len());
        let pair = |(&(one, other), p): (&(usize, usize), &Vec<Option<f64>>)| {
            let [a, b] = [summaries[0].cells.get(one)?, summaries[1].cells.get(other)?];
            let spread = |(quantity, p): (&&'static Quantity, &Option<f64>)| {
                let spreads = [a, b].map(|cell| cell.quantities.get(quantity.name).copied());
                let compared = || Compared { p: *p, ..Compared::of(quantity, spreads, smallest_effect) };
                spreads.iter().any(Option::is_some).then(compared)
            };
            Some(CellPair {
                name: a.name.clone(),
                settings: a.settings.clone(),
                trials: [a.trials, b.trials],
                valid: [a.valid, b.valid],
                quantities: quantities.iter().zip(p).filter_map(spread).collect(),
            })
        };
        let pairs: Vec<CellPair> = cells.iter().zip(&chance.cells).filter_map(pair).collect();
        let overall = quantities.iter().zip(chance.overall);
        Ok(Self {
            overall: overall.filter_map(|(quantity, t)| Overall::of(quantity, t, &pairs, smallest_effect)).collect(),
            runs: [a.name.to_owned(), b.name.to_owned()],
            smallest_effect,
            environment: unlike(a.environment, b.environment),
            sysctls: sysctls(a, b, cells),
            cells: pairs,
        })
    }
}

impl Overall {
    /// `None` of a quantity that no cell has in both runs.
    fn of(
        quantity: &'static Quantity,
        tested: Option<Tested>,
        cells: &[CellPair],
        smallest_effect: f64,
    ) -> Option<Self> {
        let compared = cells.iter().flat_map(|cell| &cell.quantities).filter(|c| c.quantity == quantity.name);
        let change = Spread::of(compared.filter_map(Compared::effect).collect())?.median;
        let beyond_chance = tested.filter(|tested| tested.p <= SIGNIFICANCE).map(|tested| tested.statistic);
        Some(Self {
            quantity: quantity.name,
            change: change.is_finite().then_some(change),
            p: tested.map(|tested| tested.p),
            finding: Judgement::of(quantity.better, change, smallest_effect, beyond_chance),
        })
    }
}

impl Compared {
    fn of(quantity: &'static Quantity, spreads: [Option<Spread>; 2], smallest_effect: f64) -> Self {
        let (difference, change, outcome) = match spreads {
            [Some(a), Some(b)] => {
                let effect = finding::effect(a.median, b.median, quantity.unit);
                let outcome = match (finding::is_small(effect, smallest_effect), a.overlaps(&b)) {
                    (true, _) => Outcome::Small,
                    (false, true) => Outcome::Overlap,
                    (false, false) => Outcome::Apart,
                };
                (Some(b.median - a.median), effect.is_finite().then_some(effect), outcome)
            }
            _ => (None, None, Outcome::Missing),
        };
        Self { quantity: quantity.name, unit: quantity.unit, spreads, difference, change, p: None, outcome }
    }

    /// The change, infinite from nothing to something; nothing where a run has no value.
    fn effect(&self) -> Option<f64> {
        let [a, b] = self.spreads;
        a.zip(b).map(|(a, b)| finding::effect(a.median, b.median, self.unit))
    }
}

/// The valid trials of a cell, on scales on which runs differ by a shift.
fn stratum(a: &[Trial], b: &[Trial], (one, other): (usize, usize), quantities: &[&'static Quantity]) -> Stratum {
    let valid = |trials: &[Trial], cell: usize| -> Vec<Vec<Option<f64>>> {
        let trials = trials.iter().filter(|trial| trial.cell == cell && trial.is_valid());
        let on_scale =
            |quantity: &&'static Quantity, trial| Some(finding::on_scale(quantity.of(trial)?, quantity.unit));
        trials.map(|trial| quantities.iter().map(|quantity| on_scale(quantity, trial)).collect()).collect()
    };
    let (mut values, others) = (valid(a, one), valid(b, other));
    let a = values.len();
    values.extend(others);
    Stratum { a, values }
}

fn unlike(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<Unlike> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let unequal = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    unequal.map(|name| Unlike { name: name.clone(), values: [a, b].map(|run| run.get(name).cloned()) }).collect()
}

/// Sysctls that were read back otherwise in a cell of B than in the same cell of A: every value they had in such cells.
fn sysctls(a: &Run<'_>, b: &Run<'_>, cells: &[(usize, usize)]) -> Vec<Unlike> {
    let mut found: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    for (one, other) in cells {
        let run = |trials: &[Trial], cell: usize| trials.iter().any(|trial| trial.cell == cell);
        if !run(a.trials, *one) || !run(b.trials, *other) {
            continue;
        }
        let sides = [values(a.trials, *one), values(b.trials, *other)];
        let names: BTreeSet<String> = sides.iter().flat_map(BTreeMap::keys).cloned().collect();
        for name in names {
            let [a, b] = [0, 1].map(|side| sides[side].get(&name).cloned().unwrap_or_default());
            if a != b {
                let all = found.entry(name).or_default();
                all[0].extend(a);
                all[1].extend(b);
            }
        }
    }
    let text =
        |values: BTreeSet<String>| (!values.is_empty()).then(|| values.into_iter().collect::<Vec<_>>().join(", "));
    found.into_iter().map(|(name, values)| Unlike { name, values: values.map(text) }).collect()
}

/// Every value of every sysctl in the trials of a cell.
fn values(trials: &[Trial], cell: usize) -> BTreeMap<String, BTreeSet<String>> {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for trial in trials.iter().filter(|trial| trial.cell == cell) {
        for (name, value) in settings::effective(trial) {
            if let Some(name) = name.strip_prefix("sysctl.") {
                let words = value.split_whitespace().collect::<Vec<_>>().join(" ");
                values.entry(name.to_owned()).or_default().insert(words);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests;
