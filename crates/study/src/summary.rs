//! What a run says cell by cell: per quantity the median of the valid trials, their range and, from six of them on, an
//! interval; and what comparing the cells came to. Written as summary.json.
//!
//! The unit is the trial: a cell's p99 is the median of its trials' p99s, never a percentile of pooled attempts and
//! never a mean of percentiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::design::{Cell, Design};
use crate::explanation::Explanation;
use crate::finding::Findings;
use crate::interval::Interval;
use crate::quantity::{Quantity, Unit, UnknownQuantity};
use crate::results::Trial;

/// A run, cell by cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Trials run.
    pub trials: usize,
    /// Trials that count.
    pub valid: usize,
    /// Trials whose ledger balances.
    pub balanced: usize,
    /// The trials that do not count.
    pub invalid: Vec<InvalidTrial>,
    /// Units of the quantities in `cells`, by name.
    pub units: BTreeMap<String, Unit>,
    /// Every cell of the design, in its order.
    pub cells: Vec<CellSummary>,
    /// What comparing the cells came to; nothing before they were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Findings>,
    /// What a search came to; nothing of an experiment without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Why it went so, see [`Summary::explained`].
    #[serde(default, skip_serializing_if = "Explanation::is_empty")]
    pub explanation: Explanation,
}

/// A trial that does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InvalidTrial {
    /// Its position in the run.
    pub trial: usize,
    /// How often it was run before.
    #[serde(default)]
    pub retry: usize,
    /// Index of its cell.
    pub cell: usize,
    /// The cell in words.
    pub name: String,
    /// Why it does not count.
    pub reasons: Vec<String>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CellSummary {
    /// Its index in the design.
    pub cell: usize,
    /// It in words.
    pub name: String,
    /// What makes it.
    pub settings: BTreeMap<String, String>,
    /// Trials run.
    pub trials: usize,
    /// Trials that count.
    pub valid: usize,
    /// What the valid trials say, by quantity. A quantity without a value in any of them has no entry.
    pub quantities: BTreeMap<String, Spread>,
}

/// A quantity over the valid trials of a cell, in the quantity's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spread {
    /// Trials that have a value.
    pub trials: usize,
    /// The middle value; the mean of the two middle ones of an even number.
    pub median: f64,
    /// Least and greatest value.
    pub range: [f64; 2],
    /// Of the median, from six trials on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

impl Summary {
    /// Sums up `trials`, in any order, for the named quantities.
    ///
    /// # Errors
    /// [`UnknownQuantity`] for the first name that does not exist.
    pub fn of(design: &Design, trials: &[Trial], quantities: &[&str]) -> Result<Self, UnknownQuantity> {
        let quantities = quantities.iter().map(|name| Quantity::named(name)).collect::<Result<Vec<_>, _>>()?;
        let invalid: Vec<InvalidTrial> = trials
            .iter()
            .filter(|trial| !trial.is_valid())
            .map(|trial| InvalidTrial {
                trial: trial.trial,
                retry: trial.retry,
                cell: trial.cell,
                name: trial.name.clone(),
                reasons: trial.invalid.clone(),
            })
            .collect();
        Ok(Self {
            trials: trials.len(),
            valid: trials.len() - invalid.len(),
            balanced: trials.iter().filter(|trial| trial.ledger.balances()).count(),
            invalid,
            units: quantities.iter().map(|quantity| (quantity.name.to_owned(), quantity.unit)).collect(),
            cells: design.cells.iter().map(|cell| CellSummary::of(design, cell, trials, &quantities)).collect(),
            findings: None,
            capacity: None,
            explanation: Explanation::default(),
        })
    }

    /// With what bound each cell, what cannot have mattered, and what theory says. The trials are those it was made of.
    #[must_use]
    pub fn explained(mut self, design: &Design, trials: &[Trial], smallest_effect: f64) -> Self {
        self.explanation = Explanation::of(design, trials, &self, smallest_effect);
        self
    }

    /// What the valid trials of a cell say about a quantity; `None` when they say nothing.
    pub fn spread(&self, cell: usize, quantity: &str) -> Option<Spread> {
        self.cells.get(cell)?.quantities.get(quantity).copied()
    }
}

impl CellSummary {
    fn of(design: &Design, cell: &Cell, trials: &[Trial], quantities: &[&Quantity]) -> Self {
        let run: Vec<&Trial> = trials.iter().filter(|trial| trial.cell == cell.index).collect();
        let valid: Vec<&Trial> = run.iter().copied().filter(|trial| trial.is_valid()).collect();
        let spread = |quantity: &&Quantity| {
            let values = valid.iter().filter_map(|trial| quantity.of(trial)).collect();
            Some((quantity.name.to_owned(), Spread::of(values)?))
        };
        Self {
            cell: cell.index,
            name: design.describe(cell),
            settings: cell.settings.clone(),
            trials: run.len(),
            valid: valid.len(),
            quantities: quantities.iter().filter_map(spread).collect(),
        }
    }
}

impl Spread {
    /// Of values in any order; `None` of none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        let median = median(&mut values);
        let range = [*values.first()?, *values.last()?];
        Some(Self { trials: values.len(), median, range, interval: Interval::of_median(&values) })
    }

    /// Do the ranges share a value?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.range[0] <= other.range[1] && other.range[0] <= self.range[1]
    }
}

/// The middle value, or the mean of the two middle ones; NaN of none. Leaves `values` in ascending order.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values.to_vec()).unwrap()
    }

    #[test]
    fn medians_are_of_the_middle_and_ranges_of_the_ends() {
        let odd = spread(&[9.0, 1.0, 4.0]);
        assert_eq!((odd.median, odd.range, odd.trials), (4.0, [1.0, 9.0], 3));
        assert_eq!(Spread::of(vec![9.0, 1.0, 4.0, 5.0]).map(|even| even.median), Some(4.5));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn six_values_have_an_interval_beside_their_range() {
        assert_eq!(spread(&[5.0, 1.0, 4.0, 2.0, 3.0]).interval, None);
        let six = spread(&[5.0, 1.0, 4.0, 2.0, 3.0, 9.0]);
        assert_eq!(six.interval.map(|interval| (interval.low, interval.high)), Some((1.0, 9.0)));
        let text = serde_json::to_string(&six).unwrap();
        assert!(
            text.contains(r#""interval":{"low":1.0,"high":9.0,"coverage":0.96875,"method":"order-statistics"}"#),
            "{text}"
        );
    }

    #[test]
    fn ranges_that_touch_overlap() {
        assert!(spread(&[1.0, 2.0]).overlaps(&spread(&[2.0, 3.0])));
        assert!(spread(&[1.0, 9.0]).overlaps(&spread(&[4.0, 5.0])));
        assert!(!spread(&[4.0, 5.0]).overlaps(&spread(&[1.0, 3.9])));
    }

    #[test]
    fn invalid_trials_are_listed_and_not_averaged() {
        let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "128"])])]);
        let mut trials = testing::trials(&design, &[&[(100, 1), (300, 2), (900, 3)], &[(1000, 1)]]);
        trials[2].invalid.push("residual 3 on line 5".to_owned());
        trials[2].ledger.lines[4].residual = 3;
        let summary =
            Summary::of(&design, &trials, &["served-ratio", "confirm-latency.p99", "confirm-service.p50"]).unwrap();
        assert_eq!((summary.trials, summary.valid, summary.balanced), (4, 3, 3));
        assert_eq!(summary.invalid[0].name, "backlog 16");
        assert_eq!(summary.invalid[0].reasons, ["residual 3 on line 5"]);
        let served = summary.spread(0, "served-ratio").unwrap();
        assert_eq!((served.median, served.range, served.trials), (0.2, [0.1, 0.3], 2));
        assert_eq!((summary.cells[0].trials, summary.cells[0].valid), (3, 2));
        assert_eq!(summary.spread(1, "served-ratio").map(|served| served.median), Some(1.0));
        assert_eq!(summary.spread(0, "confirm-service.p50"), None, "nothing recorded, no value");
    }

    #[test]
    fn a_latency_is_the_median_of_the_trials_percentiles() {
        let design = testing::design(&[(None, vec![])]);
        let trials = testing::trials(&design, &[&[(500, 1), (500, 1000), (500, 3)]]);
        let p99 =
            Summary::of(&design, &trials, &["confirm-latency.p99"]).unwrap().spread(0, "confirm-latency.p99").unwrap();
        assert_eq!((p99.median, p99.range), (0.003, [0.001, 1.0]));
    }

    #[test]
    fn an_unknown_quantity_is_refused() {
        let error = Summary::of(&testing::backlog_design(), &[], &["served-ratios"]).unwrap_err();
        assert_eq!(error.to_string(), "metric `served-ratios` does not exist; did you mean `served-ratio`?");
    }

    #[test]
    fn json_calls_the_range_a_range() {
        let design = testing::backlog_design();
        let summary = Summary::of(&design, &testing::trials(&design, &[&[(100, 1)]]), &["served-ratio"]).unwrap();
        let text = serde_json::to_string(&summary).unwrap();
        assert!(text.contains(r#""served-ratio":{"trials":1,"median":0.1,"range":[0.1,0.1]}"#), "{text}");
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }
}
