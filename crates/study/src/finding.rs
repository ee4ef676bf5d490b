//! Findings: which cells differ from their baseline, and in what, beyond the smallest effect and beyond chance.
//!
//! A *finding* needs three things. Its medians differ by the smallest effect or more: a difference for ratios (0.05 = 5
//! points), a share of the baseline for everything else. Its p, adjusted for every cell, metric and grid that was asked about,
//! is at most 0.05 ([`crate::permutation`]). And its own blocks bear it out: the paired t of cell and baseline alone, not
//! adjusted, reaches 0.05 too. The last is there because the permutation tests whether labels matter at all, and a cell that
//! is merely more erratic than the others would be found by it.
//!
//! It refuses to call anything else one. Without enough blocks to reach 0.05 nothing is tested, and those who want a word all
//! the same compare ranges and say so.

mod data;
mod words;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::design::Design;
use crate::interval::{FEWEST, Interval};
use crate::permutation::{Family, Layout, MONTE_CARLO};
use crate::quantity::{Better, Quantity, Unit};
use crate::reach::{SIGNIFICANCE, reachable_p};
use crate::results::Trial;
use crate::student;
use crate::summary::Summary;
use data::GridData;

/// What is compared, and how.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The cells.
    pub design: &'a Design,
    /// The cell of each grid that its others are compared with; a grid without one is not compared.
    pub baselines: &'a [usize],
    /// In what they are compared.
    pub metrics: &'a [&'static Quantity],
    /// See the module.
    pub smallest_effect: f64,
    /// What is to be claimed.
    pub claim: Claim,
    /// Of the random relabellings and resamples.
    pub seed: u64,
}

/// What differences between cells are judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// By tests; only a finding is claimed.
    #[default]
    Findings,
    /// By whether ranges overlap; nothing is tested.
    Ranges,
}

/// Every contrast of a run and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Findings {
    /// What was to be claimed.
    pub claim: Claim,
    /// Least effect that matters.
    pub smallest_effect: f64,
    /// Of the random relabellings and resamples.
    pub seed: u64,
    /// Relabellings that were looked at; 0 where nothing was tested.
    pub relabellings: u64,
    /// Were these all there are?
    pub exact: bool,
    /// The grids that were compared.
    pub grids: Vec<Compared>,
    /// By grid, metric and cell; without those in which one side has no value.
    pub contrasts: Vec<Contrast>,
}

/// A grid whose cells were compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Compared {
    /// Its position in the design.
    pub grid: usize,
    /// Index of its baseline.
    pub baseline: usize,
    /// The baseline in words.
    pub name: String,
    /// Its cells.
    pub cells: usize,
    /// Blocks in which two or more of them have a valid trial.
    pub blocks: usize,
    /// The adjusted p that a lone cell which differs beyond all doubt comes to at most ([`reachable_p`]).
    pub reachable: f64,
    /// Was it tested?
    pub tested: bool,
}

/// A cell against its baseline in one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Contrast {
    /// Index of the cell.
    pub cell: usize,
    /// The cell in words.
    pub name: String,
    /// Index of its baseline.
    pub baseline: usize,
    /// Name of the metric.
    pub metric: String,
    /// The median of the baseline, then that of the cell.
    pub medians: [f64; 2],
    /// How much more the cell has: a difference for ratios, a share of the baseline for everything else. Nothing where the
    /// baseline is 0 and the cell is not.
    pub effect: Option<f64>,
    /// Of the effect, from the same trials, blocks resampled; where both cells have six values or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Blocks in which both have a value.
    pub blocks: usize,
    /// p, adjusted for all contrasts; nothing where it was not tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// p of the contrast's own blocks alone, not adjusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_p: Option<f64>,
    /// What it came to.
    pub judgement: Judgement,
}

/// What a contrast came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// A finding: the cell does better.
    Better,
    /// A finding: the cell does worse.
    Worse,
    /// A finding in a metric that has no good side.
    Changed,
    /// The medians differ by less than the smallest effect.
    NoDifference,
    /// They differ by that much, and it may be chance, or was not tested.
    Inconclusive,
}

impl Judgement {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Changed => "changed",
            Self::NoDifference => "no difference",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Is it a finding?
    pub fn is_finding(self) -> bool {
        matches!(self, Self::Better | Self::Worse | Self::Changed)
    }

    /// Of an effect of medians, and of the statistic of means where that is beyond chance. Where the two disagree about the
    /// direction there is no effect to speak of.
    pub(crate) fn of(better: Better, effect: f64, smallest_effect: f64, beyond_chance: Option<f64>) -> Self {
        if is_small(effect, smallest_effect) {
            return Self::NoDifference;
        }
        match (beyond_chance, better) {
            (Some(statistic), Better::Neither) if statistic * effect > 0.0 => Self::Changed,
            (Some(statistic), _) if statistic * effect > 0.0 => {
                if (better == Better::Higher) == (effect > 0.0) {
                    Self::Better
                } else {
                    Self::Worse
                }
            }
            _ => Self::Inconclusive,
        }
    }
}

impl Findings {
    /// Compares the valid trials. `summary` has the medians of the metrics.
    pub fn of(comparison: &Comparison, trials: &[Trial], summary: &Summary) -> Self {
        let grids: Vec<GridData> =
            comparison.baselines.iter().filter_map(|baseline| GridData::of(comparison, *baseline, trials)).collect();
        let reachable: Vec<f64> = grids.iter().map(|grid| reachable_p(&grid.sizes)).collect();
        let tested = within_reach(&reachable, comparison.claim);
        let chosen: Vec<usize> = (0..grids.len()).filter(|grid| tested[*grid]).collect();
        let layouts: Vec<Layout> = chosen.iter().map(|grid| grids[*grid].layout(comparison.metrics)).collect();
        let family =
            if layouts.is_empty() { Family::default() } else { Family::test(&layouts, MONTE_CARLO, comparison.seed) };
        let places: Vec<(usize, usize, usize)> = grids
            .iter()
            .enumerate()
            .flat_map(|(grid, data)| {
                (0..comparison.metrics.len())
                    .flat_map(move |metric| (1..data.cells.len()).map(move |c| (grid, metric, c)))
            })
            .collect();
        let contrast = |(grid, metric, cell): (usize, usize, usize)| {
            let found = family
                .tested
                .iter()
                .find(|tested| (chosen[tested.layout], tested.metric, tested.cell) == (grid, metric, cell));
            let found = found.map(|tested| (tested.statistic, tested.p));
            Contrast::of(comparison, summary, &grids[grid], (metric, cell), found)
        };
        Self {
            claim: comparison.claim,
            smallest_effect: comparison.smallest_effect,
            seed: comparison.seed,
            relabellings: family.relabellings,
            exact: family.exact,
            grids: (grids.iter().zip(reachable).zip(tested))
                .map(|((grid, reachable), tested)| grid.compared(comparison.design, reachable, tested))
                .collect(),
            contrasts: places.into_par_iter().filter_map(contrast).collect(),
        }
    }

    /// The contrast of two cells in a metric.
    #[cfg(test)]
    pub(crate) fn contrast(&self, baseline: usize, cell: usize, metric: &str) -> Option<&Contrast> {
        self.contrasts.iter().find(|c| (c.baseline, c.cell, c.metric.as_str()) == (baseline, cell, metric))
    }
}

impl Contrast {
    fn of(
        comparison: &Comparison,
        summary: &Summary,
        grid: &GridData,
        (metric, cell): (usize, usize),
        found: Option<(f64, f64)>,
    ) -> Option<Self> {
        let quantity = comparison.metrics[metric];
        let (baseline, index) = (grid.cells[0], grid.cells[cell]);
        let median = |cell| summary.spread(cell, quantity.name).map(|spread| spread.median);
        let medians = [median(baseline)?, median(index)?];
        let effect = effect(medians[0], medians[1], quantity.unit);
        let pairs = grid.pairs(metric, cell);
        let differences: Vec<f64> = pairs
            .iter()
            .map(|(base, other)| on_scale(*other, quantity.unit) - on_scale(*base, quantity.unit))
            .collect();
        let own_p = found.and_then(|_| student::of_mean(&differences));
        let beyond_chance = found
            .zip(own_p)
            .filter(|((_, p), own_p)| p.max(*own_p) <= SIGNIFICANCE)
            .map(|((statistic, _), _)| statistic);
        let judgement = Judgement::of(quantity.better, effect, comparison.smallest_effect, beyond_chance);
        let design = comparison.design;
        Some(Self {
            cell: index,
            name: design.cells.get(index).map_or_else(String::new, |cell| design.describe(cell)),
            baseline,
            metric: quantity.name.to_owned(),
            medians,
            effect: effect.is_finite().then_some(effect),
            interval: effect_interval(&grid.columns(metric, cell), quantity.unit, comparison.seed),
            blocks: pairs.len(),
            p: found.map(|(_, p)| p),
            own_p,
            judgement,
        })
    }
}

/// Which grids are tested. Each adds to what others have to stand out from, so a grid joins while those before it still reach
/// what they have to.
fn within_reach(reachable: &[f64], claim: Claim) -> Vec<bool> {
    let mut sum = 0.0;
    let joins = |p: &f64| {
        let joins = claim == Claim::Findings && sum + p <= SIGNIFICANCE;
        sum += if joins { *p } else { 0.0 };
        joins
    };
    reachable.iter().map(joins).collect()
}

/// How much more `to` is than `from`, in the terms of the smallest effect. Infinite where `from` is 0.
pub(crate) fn effect(from: f64, to: f64, unit: Unit) -> f64 {
    match unit {
        Unit::Ratio => to - from,
        _ if from.total_cmp(&to).is_eq() => 0.0,
        _ => (to - from) / from.abs(),
    }
}

/// Is an effect below the smallest one that matters? None at all is, even where everything else matters.
pub(crate) fn is_small(effect: f64, smallest_effect: f64) -> bool {
    effect.abs() < smallest_effect.max(f64::MIN_POSITIVE)
}

/// The scale on which cells are taken to differ by a shift: ratios as they are, everything else by its logarithm, since twice
/// as slow is as far as twice as fast. Any one scale keeps the test valid; this one keeps it sharp. Nothing is 1 µs or one
/// thing away from 0.
pub(crate) fn on_scale(value: f64, unit: Unit) -> f64 {
    match unit {
        Unit::Ratio => value,
        Unit::Seconds => (value.max(0.0) + 1e-6).ln(),
        Unit::Count | Unit::PerSecond => value.signum() * value.abs().ln_1p(),
    }
}

/// Of the effect of medians over all blocks, those in which only one of the two has a value included.
fn effect_interval(blocks: &[[Option<f64>; 2]], unit: Unit, seed: u64) -> Option<Interval> {
    let values = |side: usize| blocks.iter().filter(|block| block[side].is_some()).count();
    if values(0).min(values(1)) < FEWEST {
        return None;
    }
    let mut sides = [Vec::with_capacity(blocks.len()), Vec::with_capacity(blocks.len())];
    Interval::bootstrap(blocks.len(), seed, |resample| {
        let [from, to] = [0, 1].map(|side| {
            sides[side].clear();
            sides[side].extend(resample.iter().filter_map(|block| blocks[*block][side]));
            crate::summary::median(&mut sides[side])
        });
        effect(from, to, unit)
    })
}

#[cfg(test)]
mod tests;
