//! Dunnett's statistic in randomised blocks, complete or not, fast enough to be computed for every relabelling.

/// Below this share of the whole sum of squares an error is rounding. Cells that repeat to the last bit must still be told
/// apart by the size of their effects, and not by noise.
const ROUNDING: f64 = 1e-12;

/// A sum of squares about means, or nothing where it is no more than the rounding of values whose squares add up to
/// `magnitude`.
pub(crate) fn beyond_rounding(squares: f64, magnitude: f64) -> f64 {
    if squares <= magnitude * f64::EPSILON.powi(2) * 16.0 { 0.0 } else { squares }
}

/// The error's mean square, from what is left of the sum of squares `total` when effects are taken off.
pub(crate) fn error_of(left: f64, total: f64, freedom: f64) -> f64 {
    left.max(total * ROUNDING) / freedom
}

/// One metric of a layout.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    width: usize,
    /// By block and cell, less the block's mean; nothing where there is no value.
    values: Vec<Option<f64>>,
    /// The cells of each block that have a value.
    present: Vec<Vec<usize>>,
    /// Cells that are compared with cell 0.
    cells: Vec<usize>,
    /// Sum of squares within blocks: the same for every relabelling.
    total: f64,
    /// Degrees of freedom of the error.
    freedom: f64,
    errors: Errors,
}

/// How effects and their errors follow from the sums of the cells.
#[derive(Clone, Debug)]
enum Errors {
    /// Every cell in so many blocks.
    Complete(f64),
    /// Rows of the inverse of the reduced normal equations, a row per compared cell.
    Incomplete(Vec<Vec<f64>>),
}

impl Metric {
    /// `None` where nothing can be compared: no cell shares a block with the baseline, or no degree of freedom is left.
    pub(super) fn new(values: &[Option<f64>], width: usize, blocks: usize) -> Option<Self> {
        let row = |block: usize| &values[block * width..(block + 1) * width];
        let shares = |cell: &usize| (0..blocks).any(|block| row(block)[0].is_some() && row(block)[*cell].is_some());
        let cells: Vec<usize> = (1..width).filter(shares).collect();
        let mut metric = Self {
            width,
            values: vec![None; values.len()],
            present: vec![Vec::new(); blocks],
            cells,
            total: 0.0,
            freedom: 0.0,
            errors: Errors::Complete(blocks as f64),
        };
        let mut magnitude = 0.0;
        for block in 0..blocks {
            let known = [0].iter().chain(&metric.cells).filter_map(|cell| Some((*cell, row(block)[*cell]?)));
            let known: Vec<(usize, f64)> = known.collect();
            // One value says nothing about differences within its block.
            if known.len() < 2 {
                continue;
            }
            let mean = known.iter().map(|(_, value)| value).sum::<f64>() / known.len() as f64;
            metric.freedom += (known.len() - 1) as f64;
            for (cell, value) in known {
                metric.present[block].push(cell);
                metric.values[block * width + cell] = Some(value - mean);
                metric.total += (value - mean).powi(2);
                magnitude += value * value;
            }
        }
        metric.total = beyond_rounding(metric.total, magnitude);
        metric.freedom -= metric.cells.len() as f64;
        let complete = metric.cells.len() + 1 == width && metric.present.iter().all(|cells| cells.len() == width);
        if !complete {
            metric.errors = Errors::Incomplete(metric.inverse()?);
        }
        (!metric.cells.is_empty() && metric.freedom >= 1.0).then_some(metric)
    }

    /// The cells that are compared, in their order.
    pub(super) fn cells(&self) -> &[usize] {
        &self.cells
    }

    /// Appends the statistic of every compared cell under a relabelling of the blocks' cells.
    pub(super) fn statistics(&self, blocks: &[Vec<usize>], into: &mut Vec<f64>) {
        if self.total == 0.0 {
            into.extend(self.cells.iter().map(|_| 0.0));
            return;
        }
        let begin = into.len();
        let mut sums = [0.0; 64];
        let mut heap;
        let sums = if self.width <= sums.len() {
            &mut sums[..self.width]
        } else {
            heap = vec![0.0; self.width];
            heap.as_mut_slice()
        };
        for ((order, present), values) in blocks.iter().zip(&self.present).zip(self.values.chunks_exact(self.width)) {
            let relabelled = order.iter().filter_map(|cell| values[*cell]);
            for (cell, value) in present.iter().zip(relabelled) {
                sums[*cell] += value;
            }
        }
        let (explained, variances) = self.effects(sums, into);
        let error = error_of(self.total - explained, self.total, self.freedom);
        for (index, effect) in into[begin..].iter_mut().enumerate() {
            *effect /= (error * variances.of(index)).sqrt();
        }
    }

    /// Appends effects against the baseline; the sum of squares they explain, and where their variances are.
    fn effects(&self, sums: &[f64], into: &mut Vec<f64>) -> (f64, Variances<'_>) {
        match &self.errors {
            Errors::Complete(blocks) => {
                into.extend(sums[1..].iter().map(|sum| (sum - sums[0]) / blocks));
                (sums.iter().map(|sum| sum * sum).sum::<f64>() / blocks, Variances::Same(2.0 / blocks))
            }
            Errors::Incomplete(inverse) => {
                let mut explained = 0.0;
                for (row, cell) in inverse.iter().zip(&self.cells) {
                    let effect: f64 = row.iter().zip(&self.cells).map(|(entry, cell)| entry * sums[*cell]).sum();
                    explained += effect * sums[*cell];
                    into.push(effect);
                }
                (explained, Variances::Diagonal(inverse))
            }
        }
    }

    /// Of the normal equations for cells, blocks eliminated and the baseline's effect set to 0: r − Σ 1/n on the diagonal,
    /// −Σ 1/n beside it, over the blocks that two cells share, with r the cell's blocks and n the block's cells.
    fn inverse(&self) -> Option<Vec<Vec<f64>>> {
        let size = self.cells.len();
        let mut rows = vec![vec![0.0; 2 * size]; size];
        for present in &self.present {
            let places = || self.cells.iter().enumerate().filter(|(_, cell)| present.contains(cell)).map(|(at, _)| at);
            for row in places() {
                rows[row][row] += 1.0;
                for column in places() {
                    rows[row][column] -= 1.0 / present.len() as f64;
                }
            }
        }
        for (index, row) in rows.iter_mut().enumerate() {
            row[size + index] = 1.0;
        }
        gauss_jordan(&mut rows)?;
        Some(rows.into_iter().map(|row| row[size..].to_vec()).collect())
    }
}

/// Turns the left half into the identity; `None` when it is singular.
fn gauss_jordan(rows: &mut [Vec<f64>]) -> Option<()> {
    for column in 0..rows.len() {
        let pivot = (column..rows.len()).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        let divisor = rows[column][column];
        if divisor.abs() < 1e-9 {
            return None;
        }
        for entry in &mut rows[column] {
            *entry /= divisor;
        }
        let chosen = rows[column].clone();
        for (index, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if index != column && factor != 0.0 {
                for (entry, pivot) in row.iter_mut().zip(&chosen) {
                    *entry -= factor * pivot;
                }
            }
        }
    }
    Some(())
}

/// Variances of effects, in units of the error.
enum Variances<'a> {
    Same(f64),
    Diagonal(&'a [Vec<f64>]),
}

impl Variances<'_> {
    fn of(&self, index: usize) -> f64 {
        match self {
            Self::Same(variance) => *variance,
            Self::Diagonal(inverse) => inverse[index][index],
        }
    }
}
