//! Max-T permutation tests of many contrasts at once: which cells differ from their baseline, in which metric, when all
//! of them are asked together.
//!
//! The labels of the cells are permuted within blocks. Had no cell any effect, every relabelling would have been as
//! likely as the one that was run, so the share of relabellings whose *greatest* statistic reaches an observed one is
//! that contrast's p, adjusted for the whole family (Westfall & Young 1993, *Resampling-Based Multiple Testing*, step-down
//! algorithm 2.8). All metrics of a grid are relabelled alike, so what they have in common is not paid for twice.
//!
//! **The statistic** is that of Dunnett in randomised blocks: a cell's effect less the baseline's, over its standard error
//! from the interaction of cells and blocks, computed anew for every relabelling. Pooling the error over all cells is what
//! lets three blocks resolve: a contrast's own error has two degrees of freedom there. Being studentised, its permutation
//! distribution tends to the same law whatever the other cells do (Box & Andersen 1955 for blocks), which the step-down
//! needs. `docs/methodology.md` has what simulations say about its limits.
//!
//! **Incomplete blocks** (a trial that does not count, a latency of nothing) are kept: within a block only the cells that
//! are there swap labels, and effects are estimated by least squares for cells and blocks (the intra-block analysis of
//! Yates 1936). A cell that shares no block with the baseline is not compared.

mod relabelling;
mod statistic;
mod steps;

use rayon::prelude::*;

use relabelling::Relabelling;
use statistic::Metric;

pub(crate) use statistic::{beyond_rounding, error_of};
pub(crate) use steps::Steps;

use crate::random::streams;

/// Relabellings looked at when there are too many to look at all. With `(b + 1) / (m + 1)` no p is below 1e-4, and 0.05 is
/// known to ± 0.002 (one standard error).
pub const MONTE_CARLO: u64 = 9_999;

/// Up to so many relabellings all are looked at, and p is exact.
pub const EXACT: u64 = 20_000;

/// Relabellings per task; fixed, so that the same seed gives the same p on any number of CPUs.
const TASK: u64 = 256;

/// A grid of cells in blocks. The cells of different layouts never swap labels, but are one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    cells: usize,
    blocks: usize,
    metrics: Vec<Vec<Option<f64>>>,
}

/// One contrast: a cell against the baseline of its layout, in one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tested {
    /// Index of the layout.
    pub layout: usize,
    /// Index of the metric in it.
    pub metric: usize,
    /// Index of the cell in it; never 0, which is the baseline.
    pub cell: usize,
    /// Its statistic; positive where the cell has more than the baseline.
    pub statistic: f64,
    /// p, adjusted for all contrasts.
    pub p: f64,
}

/// All contrasts of a family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// By layout, metric and cell.
    pub tested: Vec<Tested>,
    /// Relabellings that were looked at.
    pub relabellings: u64,
    /// Were these all there are?
    pub exact: bool,
}

impl Layout {
    /// A layout without metrics; cell 0 is the baseline.
    pub fn new(cells: usize, blocks: usize) -> Self {
        Self { cells, blocks, metrics: Vec::new() }
    }

    /// Adds a metric: a value for a block and a cell, or none where there is none to count. Its scale should be one on which
    /// cells differ by a shift.
    pub fn push(&mut self, value: impl Fn(usize, usize) -> Option<f64>) {
        let places = (0..self.blocks).flat_map(|block| (0..self.cells).map(move |cell| (block, cell)));
        // What is not finite would make every statistic of its metric NaN.
        self.metrics.push(places.map(|(block, cell)| value(block, cell).filter(|value| value.is_finite())).collect());
    }

    /// The cells of a block that have a value in any metric.
    fn present(&self, block: usize) -> Vec<usize> {
        let has = |cell: &usize| self.metrics.iter().any(|values| values[block * self.cells + cell].is_some());
        (0..self.cells).filter(has).collect()
    }
}

impl Family {
    /// Tests every contrast of every layout. `relabellings` random ones when there are more than [`EXACT`] of them, drawn
    /// from `seed` (xoshiro256++, a stream per task).
    pub fn test(layouts: &[Layout], relabellings: u64, seed: u64) -> Self {
        let contrasts = Contrasts::of(layouts);
        let run = Relabelling::new(layouts);
        let mut observed = Vec::with_capacity(contrasts.number);
        contrasts.statistics(&run, &mut observed);
        let steps = Steps::of(&observed);
        let all = run.count().filter(|all| *all <= EXACT);
        let looked_at = all.unwrap_or(relabellings);
        let tasks = looked_at.div_ceil(TASK);
        let tasks: Vec<_> = (0..tasks).zip(streams(seed, tasks)).collect();
        let count = |(task, mut random)| {
            let (mut order, mut found) = (run.clone(), Vec::with_capacity(contrasts.number));
            let mut reached = steps.none();
            for number in task * TASK..looked_at.min((task + 1) * TASK) {
                if all.is_some() {
                    order.become_number(number);
                } else {
                    order.shuffle(&mut random);
                }
                contrasts.statistics(&order, &mut found);
                steps.count(&found, &mut reached);
            }
            reached
        };
        let add = |a: Vec<u64>, b: Vec<u64>| a.iter().zip(b).map(|(a, b)| a + b).collect();
        let reached = tasks.into_par_iter().map(count).reduce(|| steps.none(), add);
        let adjusted = steps.adjusted(&reached, looked_at, all.is_some());
        let tested = contrasts
            .places()
            .zip(observed.iter().zip(adjusted))
            .map(|((layout, metric, cell), (t, p))| Tested { layout, metric, cell, statistic: *t, p });
        Self { tested: tested.collect(), relabellings: looked_at, exact: all.is_some() }
    }
}

/// Every contrast that can be tested, by layout, metric and cell.
struct Contrasts {
    /// With the indices of layout and metric.
    metrics: Vec<(usize, usize, Metric)>,
    number: usize,
}

impl Contrasts {
    fn of(layouts: &[Layout]) -> Self {
        let of_layout = |(index, layout): (usize, &Layout)| -> Vec<(usize, usize, Metric)> {
            let metrics = layout.metrics.iter().enumerate();
            let prepared = |values| Metric::new(values, layout.cells, layout.blocks);
            metrics.filter_map(|(metric, values)| Some((index, metric, prepared(values)?))).collect()
        };
        let metrics: Vec<_> = layouts.iter().enumerate().flat_map(of_layout).collect();
        Self { number: metrics.iter().map(|(_, _, metric)| metric.cells().len()).sum(), metrics }
    }

    /// Replaces `into` by the statistic of every contrast.
    fn statistics(&self, order: &Relabelling, into: &mut Vec<f64>) {
        into.clear();
        for (layout, _, metric) in &self.metrics {
            metric.statistics(order.of(*layout), into);
        }
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.metrics
            .iter()
            .flat_map(|(layout, index, metric)| metric.cells().iter().map(move |cell| (*layout, *index, *cell)))
    }
}

#[cfg(test)]
mod tests;
