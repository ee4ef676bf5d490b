//! The accept queue over time, a small chart per cell: the median of the valid trials and their range, and what the queue
//! holds.

use std::collections::BTreeSet;

use super::axis::Axis;
use super::chart::{Chart, Line, Mark, Point, Spread};
use crate::design::Cell;
use crate::format;
use crate::quantity::Unit;
use crate::report::Report;
use crate::results::Trial;
use crate::summary;
use crate::table::levels_in_words;

/// Charts of the page at most.
const CHARTS: usize = 48;

/// Depth of all listeners of a trial together, step by step.
type Depths = Vec<Option<u32>>;

/// A chart per cell of the grid, and how many cells had to be left out.
pub(super) fn charts(report: &Report<'_>, grid: usize) -> (Vec<Chart>, usize) {
    let cells: Vec<(&Cell, u64, Vec<Depths>, u64)> = report
        .screen
        .design
        .cells_of(grid)
        .filter_map(|cell| {
            let trials: Vec<&Trial> = report.trials.iter().filter(|t| t.is_valid() && t.cell == cell.index).collect();
            let (step_ns, depths) = together(&trials)?;
            let capacity = trials.iter().map(|trial| capacity(trial)).max().unwrap_or(0);
            Some((cell, step_ns, depths, capacity))
        })
        .collect();
    // All over the same time: to the last step with anything in any queue.
    let end_ns = cells.iter().map(|(_, step_ns, depths, _)| step_ns * last_filled(depths)).max().unwrap_or(0);
    let shown = cells.iter().take(CHARTS).map(|(cell, step_ns, depths, capacity)| {
        let steps = usize::try_from(end_ns.div_ceil(*step_ns)).unwrap_or(usize::MAX).max(1);
        chart(report, cell, *step_ns, &steps_of(depths, steps), *capacity)
    });
    (shown.collect(), cells.len().saturating_sub(CHARTS))
}

/// The trials' depths over equal steps, the longest of any; `None` without any.
fn together(trials: &[&Trial]) -> Option<(u64, Vec<Depths>)> {
    let step_ns = trials.iter().flat_map(|trial| &trial.server.depths).map(|depths| depths.step_ns).max()?;
    if step_ns == 0 {
        return None;
    }
    Some((step_ns, trials.iter().map(|trial| of_trial(trial, step_ns)).collect()))
}

/// The deepest looks of each step, summed over the listeners.
fn of_trial(trial: &Trial, step_ns: u64) -> Depths {
    let mut sum = Depths::new();
    for depths in trial.server.depths.iter().filter(|depths| depths.step_ns > 0) {
        // Steps double as a series grows, so a longer step is a whole number of them.
        let joined = usize::try_from(step_ns / depths.step_ns).unwrap_or(usize::MAX).max(1);
        for (step, looks) in depths.deepest.chunks(joined).enumerate() {
            let Some(deepest) = looks.iter().copied().max().flatten() else { continue };
            if sum.len() <= step {
                sum.resize(step + 1, None);
            }
            sum[step] = Some(sum[step].unwrap_or(0) + deepest);
        }
    }
    sum
}

/// Connections that all queues hold.
fn capacity(trial: &Trial) -> u64 {
    trial.server.listeners.iter().map(|listener| u64::from(listener.limit) + 1).sum()
}

fn last_filled(depths: &[Depths]) -> u64 {
    let last = |depths: &Depths| depths.iter().rposition(|depth| depth.is_some_and(|depth| depth > 0));
    depths.iter().filter_map(last).max().map_or(0, |last| last as u64 + 2)
}

/// Step by step, the spread over the trials.
fn steps_of(depths: &[Depths], steps: usize) -> Vec<Option<summary::Spread>> {
    let of = |step: usize| {
        summary::Spread::of(
            depths.iter().filter_map(|trial| trial.get(step).copied().flatten()).map(f64::from).collect(),
        )
    };
    (0..steps).map(of).collect()
}

fn chart(report: &Report<'_>, cell: &Cell, step_ns: u64, steps: &[Option<summary::Spread>], capacity: u64) -> Chart {
    let second = |step: usize| (step as u64 * step_ns) as f64 / 1e9;
    let deepest = steps.iter().flatten().map(|spread| spread.range[1]).fold(0.0, f64::max);
    let full = steps.iter().flatten().filter(|spread| spread.median >= capacity as f64).count();
    let point = |spread: summary::Spread| {
        let range = format::range(spread.range, Unit::Count);
        let median = format::count(spread.median);
        let text = if range == median { median } else { format!("{median} ({range})") };
        Point { y: spread.median, ends: spread.range, text }
    };
    let line = Line {
        name: "in the queue".to_owned(),
        style: 0,
        points: steps.iter().map(|spread| spread.map(point)).collect(),
    };
    let top = deepest.max(capacity as f64 * if deepest * 6.0 >= capacity as f64 { 1.0 } else { 0.0 });
    let in_sight = top >= capacity as f64;
    let levels = levels_in_words(report.screen.design, cell);
    Chart {
        id: format!("depth-{}", cell.index),
        title: if in_sight { levels } else { format!("{levels} (holds {capacity})") },
        description: format!(
            "Deepest {} of {capacity}; full at the median in {full} of {} steps of {}.",
            format::count(deepest),
            steps.len(),
            format::time(step_ns as f64 / 1e9)
        ),
        x: Axis::linear("since the start", Unit::Seconds, second(steps.len())),
        y: Axis::linear("connections in the queue", Unit::Count, top),
        places: (0..steps.len()).map(|step| (second(step), format!("at {}", format::time(second(step))))).collect(),
        lines: vec![line],
        spread: Spread::Band,
        upright: Vec::new(),
        level: if in_sight {
            vec![Mark { at: capacity as f64, label: format!("holds {capacity}") }]
        } else {
            Vec::new()
        },
    }
}

/// The steps' lengths of the run's records, s: shortest and longest; `None` when no record holds depths.
pub(super) fn steps(trials: &[Trial]) -> Option<[f64; 2]> {
    let steps: BTreeSet<u64> = trials
        .iter()
        .flat_map(|trial| &trial.server.depths)
        .map(|depths| depths.step_ns)
        .filter(|ns| *ns > 0)
        .collect();
    let second = |ns: &u64| *ns as f64 / 1e9;
    Some([second(steps.first()?), second(steps.last()?)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn depths(step_ns: u64, deepest: &[Option<u32>]) -> server::Depths {
        server::Depths { step_ns, deepest: deepest.to_vec() }
    }

    #[test]
    fn listeners_are_summed_over_the_longest_steps() {
        let mut trial = testing::trial(0);
        trial.server.depths =
            vec![depths(5, &[Some(1), Some(4), None, None, Some(2)]), depths(10, &[Some(10), Some(20), None])];
        assert_eq!(together(&[&trial]), Some((10, vec![vec![Some(14), Some(20), Some(2)]])));
        trial.server.depths = vec![depths(0, &[])];
        assert_eq!(together(&[&trial]), None);
    }

    #[test]
    fn each_step_is_the_median_of_the_trials_that_looked() {
        let of = [vec![Some(1), None], vec![Some(5), Some(3)], vec![Some(2)]];
        let spreads = steps_of(&of, 3);
        assert_eq!(spreads[0].map(|s| (s.median, s.range)), Some((2.0, [1.0, 5.0])));
        assert_eq!((spreads[1].map(|s| s.trials), spreads[2]), (Some(1), None));
        assert_eq!(last_filled(&of), 3, "one step beyond the last with anything in it");
    }
}
