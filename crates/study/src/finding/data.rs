//! The valid trials of a grid as a table of blocks and cells.

use std::collections::{BTreeMap, BTreeSet};

use super::{Compared, Comparison, on_scale};
use crate::design::Design;
use crate::permutation::Layout;
use crate::quantity::Quantity;
use crate::results::Trial;

/// One grid: the baseline first, then its other cells in their order.
pub(super) struct GridData {
    grid: usize,
    /// Indices in the design.
    pub(super) cells: Vec<usize>,
    blocks: usize,
    /// Valid trials of each block.
    pub(super) sizes: Vec<usize>,
    /// By metric, block and cell.
    values: Vec<Vec<Option<f64>>>,
}

impl GridData {
    /// `None` where there is nothing to compare the baseline with.
    pub(super) fn of(comparison: &Comparison, baseline: usize, trials: &[Trial]) -> Option<Self> {
        let grid = comparison.design.cells.get(baseline)?.grid;
        let others = comparison.design.cells_of(grid).map(|cell| cell.index).filter(|cell| *cell != baseline);
        let cells: Vec<usize> = [baseline].into_iter().chain(others).collect();
        if cells.len() < 2 {
            return None;
        }
        let place: BTreeMap<usize, usize> = cells.iter().enumerate().map(|(place, cell)| (*cell, place)).collect();
        // A place has at most one valid trial: a repeated one stands for one that does not count.
        let valid: Vec<(&Trial, usize)> = trials
            .iter()
            .filter(|trial| trial.is_valid())
            .filter_map(|trial| Some((trial, *place.get(&trial.cell)?)))
            .collect();
        let blocks: BTreeSet<usize> = valid.iter().map(|(trial, _)| trial.block).collect();
        let blocks: BTreeMap<usize, usize> = blocks.into_iter().enumerate().map(|(row, block)| (block, row)).collect();
        let mut sizes = vec![0; blocks.len()];
        let mut values = vec![vec![None; blocks.len() * cells.len()]; comparison.metrics.len()];
        for (trial, place) in valid {
            let Some(row) = blocks.get(&trial.block) else { continue };
            sizes[*row] += 1;
            for (values, quantity) in values.iter_mut().zip(comparison.metrics) {
                values[row * cells.len() + place] = quantity.of(trial);
            }
        }
        Some(Self { grid, cells, blocks: blocks.len(), sizes, values })
    }

    /// On the scale of the test.
    pub(super) fn layout(&self, metrics: &[&Quantity]) -> Layout {
        let mut layout = Layout::new(self.cells.len(), self.blocks);
        for (values, quantity) in self.values.iter().zip(metrics) {
            layout.push(|block, cell| Some(on_scale(values[block * self.cells.len() + cell]?, quantity.unit)));
        }
        layout
    }

    /// Baseline and cell in every block.
    pub(super) fn columns(&self, metric: usize, cell: usize) -> Vec<[Option<f64>; 2]> {
        self.values[metric].chunks_exact(self.cells.len()).map(|row| [row[0], row[cell]]).collect()
    }

    /// Baseline and cell in the blocks that have both.
    pub(super) fn pairs(&self, metric: usize, cell: usize) -> Vec<(f64, f64)> {
        self.columns(metric, cell).into_iter().filter_map(|[base, other]| base.zip(other)).collect()
    }

    pub(super) fn compared(&self, design: &Design, reachable: f64, tested: bool) -> Compared {
        Compared {
            grid: self.grid,
            baseline: self.cells[0],
            name: design.cells.get(self.cells[0]).map_or_else(String::new, |cell| design.describe(cell)),
            cells: self.cells.len(),
            blocks: self.sizes.iter().filter(|size| **size > 1).count(),
            reachable,
            tested,
        }
    }
}
