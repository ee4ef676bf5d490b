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

use crate::permutation::{MONTE_CARLO, Steps, beyond_rounding, error_of};
use crate::random::shuffle;

/// Decides the dealings: the same runs give the same p.
const SEED: u64 = 1;

/// The valid trials of one cell, those of A first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stratum {
    /// How many are of A.
    pub(super) a: usize,
    /// By trial and quantity, on a scale on which runs differ by a shift.
    pub(super) values: Vec<Vec<Option<f64>>>,
}

/// What was asked and what it came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chance {
    /// By quantity: over all cells.
    pub(super) overall: Vec<Option<Tested>>,
    /// By cell and quantity: p.
    pub(super) cells: Vec<Vec<Option<f64>>>,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tested {
    /// Difference of means over its standard error; positive where B has more.
    pub(super) statistic: f64,
    /// p, adjusted for its family.
    pub(super) p: f64,
}

/// Deals and counts. `None` where there is nothing to test: no value in one of the runs, or one trial each everywhere.
pub(super) fn test(strata: &[Stratum], quantities: usize) -> Chance {
    test_by(strata, quantities, MONTE_CARLO)
}

fn test_by(strata: &[Stratum], quantities: usize, dealings: u64) -> Chance {
    let mut labels: Vec<Vec<usize>> = strata.iter().map(|stratum| (0..stratum.values.len()).collect()).collect();
    let observed = Statistics::of(strata, &labels, quantities);
    let (mut overall, mut cells) = (Asked::of(&observed.overall), Asked::of(&observed.cells));
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
    let tested = |(statistic, p): (&Option<f64>, Option<f64>)| Some(Tested { statistic: (*statistic)?, p: p? });
    Chance {
        overall: observed.overall.iter().zip(overall.adjusted(dealings)).map(tested).collect(),
        cells: (0..strata.len())
            .map(|cell| (0..quantities).map(|q| cells[q * strata.len() + cell]).collect())
            .collect(),
    }
}

/// t by quantity, and by quantity and cell; `None` where there is none.
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
    /// Squares about the mean of all; 0 where that is rounding. Dealing does not change it.
    total: f64,
    freedom: f64,
}

impl Statistics {
    fn of(strata: &[Stratum], labels: &[Vec<usize>], quantities: usize) -> Self {
        let mut found = Self { overall: Vec::with_capacity(quantities), cells: Vec::new() };
        for quantity in 0..quantities {
            let parts: Vec<Part> =
                strata.iter().zip(labels).map(|(stratum, order)| Part::of(stratum, order, quantity)).collect();
            let sum = |of: fn(&Part) -> f64| parts.iter().map(of).sum::<f64>();
            let weight = sum(|part| part.weight);
            let pooled = Part {
                difference: sum(|part| part.difference * part.weight) / weight,
                weight,
                squares: sum(|part| part.squares),
                total: sum(|part| part.total),
                freedom: sum(|part| part.freedom),
            };
            found.overall.push(pooled.studentised());
            found.cells.extend(parts.iter().map(Part::studentised));
        }
        found
    }
}

impl Part {
    fn of(stratum: &Stratum, order: &[usize], quantity: usize) -> Self {
        let (a, b) = order.split_at(stratum.a.min(order.len()));
        let side = |trials: &[usize]| {
            let values = || trials.iter().filter_map(|trial| stratum.values[*trial][quantity]);
            let number = values().count() as f64;
            let mean = values().sum::<f64>() / number.max(1.0);
            let magnitude = values().map(|value| value * value).sum::<f64>();
            (number, mean, values().map(|value| (value - mean).powi(2)).sum::<f64>(), magnitude)
        };
        let ((n_a, mean_a, squares_a, size_a), (n_b, mean_b, squares_b, size_b)) = (side(a), side(b));
        let alone = n_a == 0.0 || n_b == 0.0;
        let (difference, weight) = if alone { (0.0, 0.0) } else { (mean_b - mean_a, n_a * n_b / (n_a + n_b)) };
        let squares = squares_a + squares_b;
        Self {
            difference,
            weight,
            squares,
            total: beyond_rounding(squares + weight * difference.powi(2), size_a + size_b),
            freedom: (n_a - 1.0).max(0.0) + (n_b - 1.0).max(0.0),
        }
    }

    /// `None` without a value in both runs or a degree of freedom.
    fn studentised(&self) -> Option<f64> {
        if self.weight == 0.0 || self.freedom == 0.0 {
            return None;
        }
        let error = error_of(self.squares, self.total, self.freedom);
        Some(if self.total == 0.0 { 0.0 } else { self.difference / (error / self.weight).sqrt() })
    }
}

/// A family of questions, and how often dealings reached its steps.
struct Asked {
    /// Where the statistics are that exist.
    places: Vec<usize>,
    all: usize,
    steps: Steps,
    reached: Vec<u64>,
}

impl Asked {
    fn of(observed: &[Option<f64>]) -> Self {
        let places: Vec<usize> = (0..observed.len()).filter(|place| observed[*place].is_some()).collect();
        let steps = Steps::of(&observed.iter().flatten().copied().collect::<Vec<f64>>());
        Self { places, all: observed.len(), reached: steps.none(), steps }
    }

    fn count(&mut self, dealt: &[Option<f64>]) {
        let dealt: Vec<f64> = self.places.iter().map(|place| dealt[*place].unwrap_or(0.0)).collect();
        self.steps.count(&dealt, &mut self.reached);
    }

    /// p by place.
    fn adjusted(&self, dealings: u64) -> Vec<Option<f64>> {
        let mut adjusted = vec![None; self.all];
        for (place, p) in self.places.iter().zip(self.steps.adjusted(&self.reached, dealings, false)) {
            adjusted[*place] = Some(p);
        }
        adjusted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// A cell with one quantity.
    fn stratum(a: &[f64], b: &[f64]) -> Stratum {
        Stratum { a: a.len(), values: a.iter().chain(b).map(|value| vec![Some(*value)]).collect() }
    }

    fn p(chance: &Chance) -> (f64, Vec<f64>) {
        (chance.overall[0].expect("tested").p, chance.cells.iter().map(|cell| cell[0].expect("tested")).collect())
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
    fn rounding_is_neither_a_difference_nor_less_than_itself() {
        let third = 0.1 + 0.2;
        let (nothing, cells) = p(&test(&[stratum(&[0.3; 3], &[third; 3])], 1));
        assert_eq!((nothing, cells), (1.0, vec![1.0]), "0.3 and 0.1 + 0.2 are no difference");
        // Without spread only rounding tells the dealings apart that put the same trials together.
        let (low, high) = ([0.3, third, 0.3, third], [0.9, 3.0 * third, 0.9, 3.0 * 0.3]);
        let (overall, cells) = p(&test(&[stratum(&low, &high)], 1));
        assert!((overall - 2.0 / 70.0).abs() < 0.005, "{overall}");
        assert_eq!(cells, [overall]);
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
            (0..12).map(|_| uniform(&mut random)).collect()
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
        let mut draw = || uniform(&mut random);
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
