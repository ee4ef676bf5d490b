//! Expectations and comparison: conditions checked against quantities, settings and cells before anything runs.

use study::condition::{Condition, ConditionError};
use study::design::{Cell, Design};
use study::expectation::Expectation;
use study::quantity::Quantity;
use toml::Spanned;

use super::wire::{WireCompare, WireExpect};
use super::{Compare, ExperimentError, Source};
use crate::settings::Resolved;

pub(super) fn parse_condition(source: &Source<'_>, text: &Spanned<String>) -> Result<Condition, ExperimentError> {
    Condition::parse(text.get_ref()).map_err(|error| source.error(&text.span(), error.to_string()))
}

/// Where conditions on settings are looked up.
pub(super) struct Places<'a> {
    pub(super) design: &'a Design,
    pub(super) resolved: &'a [Resolved],
}

impl Places<'_> {
    /// The cells a condition on settings names.
    fn matching(
        &self,
        source: &Source<'_>,
        text: &Spanned<String>,
    ) -> Result<(Condition, Vec<&Cell>), ExperimentError> {
        let condition = parse_condition(source, text)?;
        let fail = |error: ConditionError| source.error(&text.span(), error.to_string());
        condition.check_settings().map_err(fail)?;
        let mut cells = Vec::new();
        for (cell, resolved) in self.design.cells.iter().zip(self.resolved) {
            if condition.matches_cell(cell, &resolved.effective()).map_err(fail)? {
                cells.push(cell);
            }
        }
        Ok((condition, cells))
    }
}

pub(super) fn expectations(
    source: &Source<'_>,
    wire: &[WireExpect],
    places: &Places<'_>,
) -> Result<Vec<Expectation>, ExperimentError> {
    wire.iter()
        .map(|expect| {
            let that = parse_condition(source, &expect.that)?;
            that.check_quantities().map_err(|error| source.error(&expect.that.span(), error.to_string()))?;
            let cells = match &expect.r#where {
                None => None,
                Some(text) => match places.matching(source, text)? {
                    (condition, cells) if cells.is_empty() => {
                        return Err(source.error(
                            &text.span(),
                            format!("`{condition}` matches no cell; name settings and levels of the factors"),
                        ));
                    }
                    (condition, _) => Some(condition),
                },
            };
            Ok(Expectation { that, cells })
        })
        .collect()
}

pub(super) fn compare(
    source: &Source<'_>,
    wire: Option<&WireCompare>,
    places: &Places<'_>,
) -> Result<Compare, ExperimentError> {
    let default = || vec!["served-ratio".to_owned(), "confirm-latency.p99".to_owned()];
    let Some(wire) = wire else { return Ok(Compare { metrics: default(), baseline: None, smallest_effect: 0.05 }) };
    for metric in &wire.metrics {
        Quantity::named(metric.get_ref()).map_err(|error| source.error(&metric.span(), error.to_string()))?;
    }
    let baseline = match &wire.baseline {
        None => None,
        Some(text) => {
            let (_, cells) = places.matching(source, text)?;
            let matching: Vec<usize> = cells.iter().filter(|cell| cell.grid == 0).map(|cell| cell.index).collect();
            match matching.as_slice() {
                [one] => Some(*one),
                cells => {
                    let message = format!(
                        "compare.baseline must match one cell of the main grid, it matches {}; give each factor's level",
                        cells.len()
                    );
                    return Err(source.error(&text.span(), message));
                }
            }
        }
    };
    let metrics = wire.metrics.iter().map(|metric| metric.get_ref().clone()).collect::<Vec<_>>();
    let smallest_effect = match &wire.smallest_effect {
        Some(effect) if !effect.get_ref().is_finite() || *effect.get_ref() < 0.0 => {
            return Err(source.error(&effect.span(), "compare.smallest-effect must be 0 or more; 0.05 is usual"));
        }
        Some(effect) => *effect.get_ref(),
        None => 0.05,
    };
    Ok(Compare { metrics: if metrics.is_empty() { default() } else { metrics }, baseline, smallest_effect })
}
