//! Expectations and comparison: conditions checked against quantities, settings and cells before anything runs.

use study::condition::{Condition, ConditionError};
use study::design::{Cell, Design};
use study::expectation::Expectation;
use study::finding::Claim;
use study::quantity::Quantity;
use study::{format, reach};
use toml::Spanned;

use super::wire::{Header, WireCompare, WireExpect};
use super::{Compare, ExperimentError, Order, Source};
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

/// Refuses a condition on a quantity that there is not, or has no value where a target stands in the server's place.
pub(super) fn check_quantities(
    source: &Source<'_>,
    text: &Spanned<String>,
    condition: &Condition,
    places: &Places<'_>,
) -> Result<(), ExperimentError> {
    condition.check_quantities().map_err(|error| source.error(&text.span(), error.to_string()))?;
    for comparison in condition.comparisons() {
        known(places, &comparison.name).map_err(|message| source.error(&text.span(), message))?;
    }
    Ok(())
}

/// The quantity of this name. Refuses one that has no value where a target stands in the server's place.
fn known(places: &Places<'_>, name: &str) -> Result<&'static Quantity, String> {
    let target = places.resolved.iter().any(|cell| cell.target.is_some());
    match Quantity::named(name) {
        Ok(quantity) if target && quantity.is_the_servers_own() => Err(format!(
            "{name} has no value with [target]: only our own server counts it; `entered`, `left`, `overflows` and what clients \
             see are known of every server"
        )),
        Ok(quantity) => Ok(quantity),
        Err(error) => Err(error.to_string()),
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
            check_quantities(source, &expect.that, &that, places)?;
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
    wire: Option<&Spanned<WireCompare>>,
    header: &Header,
    places: &Places<'_>,
) -> Result<Compare, ExperimentError> {
    let [main, other] = Quantity::DEFAULTS;
    let mut compare = Compare {
        main,
        others: vec![other],
        baseline: None,
        baselines: first_cells(places.design),
        smallest_effect: 0.05,
        claim: default_claim(header),
        out_of_reach: None,
    };
    let Some(spanned) = wire else { return Ok(compare) };
    let wire = spanned.get_ref();
    let metrics = wire
        .metrics
        .iter()
        .map(|metric| known(places, metric.get_ref()).map_err(|message| source.error(&metric.span(), message)));
    let metrics = metrics.collect::<Result<Vec<_>, _>>()?;
    if let Some((main, others)) = metrics.split_first() {
        (compare.main, compare.others) = (main, others.to_vec());
    }
    if let Some(text) = &wire.baseline {
        (compare.baseline, compare.baselines) = baselines(source, text, places)?;
    }
    if let Some(effect) = &wire.smallest_effect {
        if !effect.get_ref().is_finite() || *effect.get_ref() < 0.0 {
            return Err(source.error(&effect.span(), "compare.smallest-effect must be 0 or more; 0.05 is usual"));
        }
        compare.smallest_effect = *effect.get_ref();
    }
    if let Some(by) = &wire.by {
        if *by.get_ref() == Claim::Findings && header.order != Order::Random {
            let message = "compare.by = \"findings\" needs experiment.order = \"random\": in a fixed order the time of a trial \
                           and its cell cannot be told apart; use \"ranges\"";
            return Err(source.error(&by.span(), message));
        }
        compare.claim = *by.get_ref();
    }
    if let Some(message) = out_of_reach(&compare, header, places.design) {
        compare.out_of_reach = Some(source.error(&spanned.span(), message));
    }
    Ok(compare)
}

/// The cell that a condition names in the main grid, and all that it names: one at most of each grid.
fn baselines(
    source: &Source<'_>,
    text: &Spanned<String>,
    places: &Places<'_>,
) -> Result<(Option<usize>, Vec<usize>), ExperimentError> {
    let (_, cells) = places.matching(source, text)?;
    let of_grid =
        |grid: usize| cells.iter().filter(|cell| cell.grid == grid).map(|cell| cell.index).collect::<Vec<_>>();
    let [main] = of_grid(0)[..] else {
        let message = format!(
            "compare.baseline must match one cell of the main grid, it matches {}; give each factor's level",
            of_grid(0).len()
        );
        return Err(source.error(&text.span(), message));
    };
    let one = |grid: usize| match of_grid(grid)[..] {
        [one] => Some(one),
        _ => None,
    };
    Ok((Some(main), (0..places.design.grids.len()).filter_map(one).collect()))
}

/// Without a baseline in the file it is the first cell of each grid.
fn first_cells(design: &Design) -> Vec<usize> {
    (0..design.grids.len()).filter_map(|grid| design.cells_of(grid).next()).map(|cell| cell.index).collect()
}

/// Labels that were not dealt out at random say nothing when they are dealt out anew.
fn default_claim(header: &Header) -> Claim {
    match header.order {
        Order::Random => Claim::Findings,
        Order::AsWritten | Order::ThereAndBack => Claim::Ranges,
    }
}

/// Why no result of the main grid could be a finding; nothing when one could, or none is asked for.
fn out_of_reach(compare: &Compare, header: &Header, design: &Design) -> Option<String> {
    let (cells, replicates) = (design.cells_of(0).count(), *header.replicates.get_ref());
    let needed = reach::blocks_needed(cells).filter(|needed| *needed > replicates)?;
    if compare.claim == Claim::Ranges {
        return None;
    }
    Some(format!(
        "compare: {} × {} reach p {}, a finding needs {}: set experiment.replicates = {needed} or more, or compare.by = \
         \"ranges\" to claim none",
        format::plural(cells, "cell"),
        format::plural(replicates, "replicate"),
        format::p_value(reach::reachable_p(&vec![cells; replicates])),
        reach::SIGNIFICANCE,
    ))
}
