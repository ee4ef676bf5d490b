//! Do the measurements bear a mark out? Cells that are alike are one population, so a one-way analysis of variance of their
//! trials asks whether they are.
//!
//! It must not cry wolf: trials are few and latencies have long tails. A contradiction is claimed only where the F test is
//! significant at 0.001 over all comparisons together (Bonferroni), the ranges of two cells lie apart, and their medians
//! differ by the smallest effect.

use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::Mark;
use crate::binding::Facts;
use crate::finding;
use crate::format;
use crate::quantity::{Better, Quantity};
use crate::summary::{Spread, Summary};

/// Chance of any false alarm in a run.
const FALSE_ALARM: f64 = 0.001;

/// What speaks against each mark, in its order.
pub(super) fn of(
    marks: &[Mark],
    runs: &[Vec<Facts<'_>>],
    summary: &Summary,
    smallest_effect: f64,
) -> Vec<Option<String>> {
    let quantities: Vec<&Quantity> = summary
        .units
        .keys()
        .filter_map(|name| Quantity::named(name).ok())
        .filter(|quantity| quantity.better != Better::Neither)
        .collect();
    let level = FALSE_ALARM / (marks.len() * quantities.len()).max(1) as f64;
    let against = |mark: &Mark| {
        quantities.iter().find_map(|quantity| {
            let values =
                |cell: &usize| runs[*cell].iter().filter_map(|facts| quantity.of(facts.trial)).collect::<Vec<_>>();
            let cells: Vec<Vec<f64>> = mark.cells.iter().map(values).collect();
            let (low, high) = extremes(&cells)?;
            let (from, to) = (Spread::of(cells[low].clone())?, Spread::of(cells[high].clone())?);
            let effect = finding::effect(from.median, to.median, quantity.unit);
            let clear = !finding::is_small(effect, smallest_effect) && !from.overlaps(&to);
            (clear && chance(&cells)? < level).then(|| {
                let value = |spread: Spread| format::value(spread.median, quantity.unit);
                format!(
                    "{} is {} at {} and {} at {}",
                    quantity.title,
                    value(from),
                    mark.levels[low],
                    value(to),
                    mark.levels[high]
                )
            })
        })
    };
    marks.iter().map(against).collect()
}

/// The cells with the least and the greatest median.
fn extremes(cells: &[Vec<f64>]) -> Option<(usize, usize)> {
    let medians: Vec<f64> =
        cells.iter().map(|values| Some(Spread::of(values.clone())?.median)).collect::<Option<_>>()?;
    let by_median = |a: &usize, b: &usize| medians[*a].total_cmp(&medians[*b]);
    Some(((0..medians.len()).min_by(by_median)?, (0..medians.len()).max_by(by_median)?))
}

/// The chance of means so far apart in one population: the F test of a one-way layout. `None` where a cell has fewer than
/// two values.
fn chance(cells: &[Vec<f64>]) -> Option<f64> {
    if cells.len() < 2 || cells.iter().any(|values| values.len() < 2) {
        return None;
    }
    let count: usize = cells.iter().map(Vec::len).sum();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let all = cells.iter().flatten().sum::<f64>() / count as f64;
    let between: f64 = cells.iter().map(|values| values.len() as f64 * (mean(values) - all).powi(2)).sum();
    let within: f64 = cells.iter().map(|values| values.iter().map(|v| (v - mean(values)).powi(2)).sum::<f64>()).sum();
    let (a, b) = ((cells.len() - 1) as f64, (count - cells.len()) as f64);
    if within == 0.0 {
        return Some(if between > 0.0 { 0.0 } else { 1.0 });
    }
    let f = (between / a) / (within / b);
    Some(FisherSnedecor::new(a, b).ok()?.sf(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_f_test_agrees_with_published_figures() {
        // Montgomery, Design and Analysis of Experiments, plasma etching: F = 66.80 on 3 and 16 degrees of freedom.
        let etch = [
            vec![575.0, 542.0, 530.0, 539.0, 570.0],
            vec![565.0, 593.0, 590.0, 579.0, 610.0],
            vec![600.0, 651.0, 610.0, 637.0, 629.0],
            vec![725.0, 700.0, 715.0, 685.0, 710.0],
        ];
        let p = chance(&etch).unwrap();
        assert!((2.8e-9..2.95e-9).contains(&p), "{p}");
        // The critical value F(0.05; 2, 6) is 5.143: three cells of three with that ratio.
        let d = (5.143_f64 / 3.0).sqrt();
        let cells = [vec![-1.0, 0.0, 1.0], vec![d - 1.0, d, d + 1.0], vec![-d - 1.0, -d, -d + 1.0]];
        let p = chance(&cells).unwrap();
        assert!((p - 0.05).abs() < 1e-4, "{p}");
        assert_eq!(chance(&[vec![1.0, 1.0], vec![1.0, 1.0]]), Some(1.0));
        assert_eq!(chance(&[vec![1.0, 1.0], vec![2.0, 2.0]]), Some(0.0));
        assert_eq!(chance(&[vec![1.0], vec![2.0, 2.0]]), None);
    }
}
