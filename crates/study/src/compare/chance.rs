//! Could the difference between two runs be chance? Had it made no difference which run a trial belongs to, every dealing of
//! the labels A and B to the trials of a cell would have been as likely as the one there is.
//!
//! So the labels are dealt anew, within each cell and for all quantities of a trial at once, and the share of dealings whose
//! *greatest* statistic reaches an observed one is its p, adjusted for everything that is asked in one go (Westfall & Young
//! 1993, *Resampling-Based Multiple Testing*, step-down algorithm 2.8). Two questions are asked, each a family of its own:
//! whether B differs from A over all cells, per quantity; and in which cell. The statistic is the difference of means over its
//! standard error, computed anew for every dealing. Over all cells the variance is pooled; a cell has its own, because dealing
//! the labels of a cell that does differ spreads its values, and a pooled variance would then make every dealing of the others
//! look tame.
//!
//! Trials of two runs are not paired by block: blocks of different runs have nothing in common. It refuses to say *why* two
//! runs differ: whatever changed between them, the hour of the day included, is in the labels.

use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::random::shuffle;

/// Dealings looked at: no p is below 1e-4, and 0.05 is known to ± 0.002 (one standard error).
const DEALINGS: u32 = 9_999;

/// Decides them: the same runs give the same p.
const SEED: u64 = 1;

/// Rounding must not make a dealing less than the one it repeats.
const TIE: f64 = 1.0 - 1e-9;

/// The valid trials of one cell, those of A first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stratum {
    /// How many are of A.
    pub(super) a: usize,
    /// By trial and quantity, on a scale on which runs differ by a shift.
    pub(super) values: Vec<Vec<Option<f64>>>,
}

/// p of everything that was asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chance {
    /// By quantity: over all cells.
    pub(super) overall: Vec<Option<f64>>,
    /// By cell and quantity.
    pub(super) cells: Vec<Vec<Option<f64>>>,
}

/// Deals and counts. `None` where there is nothing to test: no value in one of the runs, or one trial each everywhere.
pub(super) fn test(strata: &[Stratum], quantities: usize) -> Chance {
    test_by(strata, quantities, DEALINGS)
}

fn test_by(strata: &[Stratum], quantities: usize, dealings: u32) -> Chance {
    let mut labels: Vec<Vec<usize>> = strata.iter().map(|stratum| (0..stratum.values.len()).collect()).collect();
    let observed = Statistics::of(strata, &labels, quantities);
    let (mut overall, mut cells) = (Steps::of(&observed.overall), Steps::of(&observed.cells));
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    for _ in 0..dealings {
        for order in &mut labels {
            shuffle(order, &mut random);
        }
        let dealt = Statistics::of(strata, &labels, quantities);
        overall.count(&dealt.overall);
        cells.count(&dealt.cells);
    }
    let cells = cells.adjusted(dealings);
    Chance {
        overall: overall.adjusted(dealings),
        cells: (0..strata.len())
            .map(|cell| (0..quantities).map(|q| cells[q * strata.len() + cell]).collect())
            .collect(),
    }
}

/// Absolute t by quantity, and by quantity and cell; `None` where there is none.
struct Statistics {
    overall: Vec<Option<f64>>,
    cells: Vec<Option<f64>>,
}

/// One cell's part in a quantity.
#[derive(Clone, Copy, Default)]
struct Part {
    /// Mean of B less mean of A.
    difference: f64,
    /// Product of both numbers of trials over their sum; 0 where a run has no value.
    weight: f64,
    /// Squares about the means of both runs.
    squares: f64,
    freedom: f64,
}

impl Statistics {
    fn of(strata: &[Stratum], labels: &[Vec<usize>], quantities: usize) -> Self {
        let mut found = Self { overall: Vec::with_capacity(quantities), cells: Vec::new() };
        for quantity in 0..quantities {
            let parts: Vec<Part> =
                strata.iter().zip(labels).map(|(stratum, order)| Part::of(stratum, order, quantity)).collect();
            let sum = |of: fn(&Part) -> f64| parts.iter().map(of).sum::<f64>();
            let (squares, freedom, weight) =
                (sum(|part| part.squares), sum(|part| part.freedom), sum(|part| part.weight));
            let pooled = sum(|part| part.difference * part.weight) / weight;
            found.overall.push(studentised(pooled, weight, squares, freedom));
            let own = |part: &Part| studentised(part.difference, part.weight, part.squares, part.freedom);
            found.cells.extend(parts.iter().map(own));
        }
        found
    }
}

/// `None` without a value in both runs or a degree of freedom. Without any variance a difference is beyond every bound.
fn studentised(difference: f64, weight: f64, squares: f64, freedom: f64) -> Option<f64> {
    if weight == 0.0 || freedom == 0.0 {
        return None;
    }
    Some(if difference == 0.0 { 0.0 } else { difference.abs() / (squares / freedom / weight).sqrt() })
}

impl Part {
    fn of(stratum: &Stratum, order: &[usize], quantity: usize) -> Self {
        let (a, b) = order.split_at(stratum.a.min(order.len()));
        let side = |trials: &[usize]| {
            let values = || trials.iter().filter_map(|trial| stratum.values[*trial][quantity]);
            let number = values().count() as f64;
            let mean = values().sum::<f64>() / number.max(1.0);
            (number, mean, values().map(|value| (value - mean).powi(2)).sum::<f64>())
        };
        let ((n_a, mean_a, squares_a), (n_b, mean_b, squares_b)) = (side(a), side(b));
        let alone = n_a == 0.0 || n_b == 0.0;
        Self {
            difference: if alone { 0.0 } else { mean_b - mean_a },
            weight: if alone { 0.0 } else { n_a * n_b / (n_a + n_b) },
            squares: squares_a + squares_b,
            freedom: (n_a - 1.0).max(0.0) + (n_b - 1.0).max(0.0),
        }
    }
}

/// The observed statistics, greatest first, and how often dealings reached them.
struct Steps {
    /// Indices of those that exist.
    order: Vec<usize>,
    sizes: Vec<f64>,
    reached: Vec<u32>,
    all: usize,
}

impl Steps {
    fn of(observed: &[Option<f64>]) -> Self {
        let mut there: Vec<(usize, f64)> =
            observed.iter().enumerate().filter_map(|(index, t)| Some((index, (*t)?))).collect();
        there.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Self {
            order: there.iter().map(|(index, _)| *index).collect(),
            sizes: there.iter().map(|(_, t)| t * TIE).collect(),
            reached: vec![0; there.len()],
            all: observed.len(),
        }
    }

    /// At which steps does the greatest statistic of those left there reach the observed one?
    fn count(&mut self, dealt: &[Option<f64>]) {
        let mut greatest = 0.0_f64;
        for (step, index) in self.order.iter().enumerate().rev() {
            greatest = greatest.max(dealt[*index].unwrap_or(0.0));
            self.reached[step] += u32::from(greatest >= self.sizes[step]);
        }
    }

    /// p by index: none is below that of an earlier step. The dealing that was run is one of them (Phipson & Smyth 2010).
    fn adjusted(&self, dealings: u32) -> Vec<Option<f64>> {
        let mut adjusted = vec![None; self.all];
        let mut least = 0.0_f64;
        for (index, reached) in self.order.iter().zip(&self.reached) {
            least = least.max(f64::from(reached + 1) / f64::from(dealings + 1));
            adjusted[*index] = Some(least);
        }
        adjusted
    }
}

#[cfg(test)]
mod tests {
    use rand_core::RngCore;

    use super::*;

    /// A cell with one quantity.
    fn stratum(a: &[f64], b: &[f64]) -> Stratum {
        Stratum { a: a.len(), values: a.iter().chain(b).map(|value| vec![Some(*value)]).collect() }
    }

    fn p(chance: &Chance) -> (f64, Vec<f64>) {
        (chance.overall[0].expect("tested"), chance.cells.iter().map(|cell| cell[0].expect("tested")).collect())
    }

    #[test]
    fn one_cell_is_the_textbook_permutation_test() {
        // 20 ways to deal 3 and 3; the one that was run and its mirror image are the extreme ones.
        let (overall, cells) = p(&test(&[stratum(&[1.0, 2.0, 3.0], &[7.0, 8.0, 9.5])], 1));
        assert!((overall - 0.1).abs() < 0.01, "{overall}");
        assert_eq!(cells, [overall]);
        let (none, _) = p(&test(&[stratum(&[1.0, 2.0], &[1.0, 2.0])], 1));
        assert!((none - 1.0).abs() < 1e-9, "{none}");
    }

    #[test]
    fn three_trials_a_cell_resolve_over_many_cells_and_in_none_alone() {
        let cell = |at: f64, by: f64| stratum(&[at, at + 0.1, at + 0.2], &[at + by, at + by + 0.1, at + by + 0.15]);
        let strata: Vec<Stratum> = (0..8).map(|number| cell(f64::from(number) * 10.0, 1.0)).collect();
        let (overall, cells) = p(&test(&strata, 1));
        assert!(overall <= 0.001, "{overall}");
        assert!(cells.iter().all(|p| *p > 0.05), "{cells:?}");
    }

    #[test]
    fn one_cell_that_differs_is_found_among_those_that_do_not() {
        let noise = |seed: u64| -> Vec<f64> {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            (0..12).map(|_| random.next_u64() as f64 / u64::MAX as f64).collect()
        };
        let mut strata: Vec<Stratum> = (0..5).map(|seed| stratum(&noise(seed)[..6], &noise(seed)[6..])).collect();
        strata.push(stratum(&noise(7)[..6], &noise(7)[6..].iter().map(|value| value + 3.0).collect::<Vec<_>>()));
        let (_, cells) = p(&test(&strata, 1));
        assert!(cells[5] <= 0.02, "{cells:?}");
        assert!(cells[..5].iter().all(|p| *p > 0.05), "{cells:?}");
    }

    #[test]
    fn false_alarms_are_as_rare_as_promised() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut draw = || random.next_u64() as f64 / u64::MAX as f64;
        let mut alarms = 0;
        for _ in 0..60 {
            let mut side = || -> Vec<f64> { (0..4).map(|_| draw()).collect() };
            let strata: Vec<Stratum> = (0..4)
                .map(|_| {
                    let (a, b) = (side(), side());
                    stratum(&a, &b)
                })
                .collect();
            let (overall, cells) = p(&test_by(&strata, 1, 499));
            alarms += u32::from(overall <= 0.05) + u32::from(cells.iter().any(|p| *p <= 0.05));
        }
        // 120 questions at 0.05: 6 are expected, 14 are beyond 1 in 1000.
        assert!(alarms <= 14, "{alarms} of 120");
    }

    #[test]
    fn what_has_no_value_in_one_run_or_no_spread_anywhere_is_not_tested() {
        let mut gone = stratum(&[1.0, 2.0], &[3.0, 4.0]);
        gone.values[2][0] = None;
        gone.values[3][0] = None;
        let chance = test(&[gone, stratum(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0])], 1);
        assert_eq!(chance.cells[0], [None]);
        assert!(chance.cells[1][0].is_some());
        assert_eq!(test(&[stratum(&[1.0], &[2.0])], 1), Chance { overall: vec![None], cells: vec![vec![None]] });
    }
}
