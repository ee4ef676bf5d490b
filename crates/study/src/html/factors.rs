//! What a factor does to a quantity: a chart per factor, its levels along the axis, a line for each combination of the other
//! factors' levels.

use super::axis::{Axis, Scale};
use super::cells::Cells;
use super::chart::{Chart, Line, Point, Spread, legend};
use super::panels::along;
use crate::design::Cell;
use crate::format;
use crate::quantity::Quantity;
use crate::report::median_and_spread;

/// Lines whose figures are told in a chart's description.
const TOLD: usize = 6;

/// Legend and chart of one factor, and how many lines it had to leave out; `None` when there is nothing to draw.
pub(super) fn chart(cells: &Cells<'_>, factor: usize, quantity: &Quantity) -> Option<(String, Chart, usize)> {
    let of = &cells.design.grids[cells.grid].factors[factor];
    let point = |cell: Option<&Cell>| {
        let spread = cells.summary.spread(cell?.index, quantity.name)?;
        let text = median_and_spread(cells.summary, cell?.index, quantity).to_string();
        let ends = spread.interval.map_or(spread.range, |interval| [interval.low, interval.high]);
        Some(Point { y: spread.median, ends, text })
    };
    let (lines, left_out) = along(cells.design, cells.grid, factor);
    let lines: Vec<(Line, String)> = lines
        .into_iter()
        .enumerate()
        .map(|(style, line)| {
            let words = cells.in_words(line.cells.iter().flatten().copied(), quantity, factor);
            let told = if line.name.is_empty() { words } else { format!("{}: {words}", line.name) };
            (Line { points: line.cells.into_iter().map(point).collect(), name: line.name, style }, told)
        })
        .filter(|(line, _)| line.points.iter().any(Option::is_some))
        .collect();
    let ends = lines.iter().flat_map(|(line, _)| &line.points).flatten().flat_map(|point| point.ends);
    let y = Axis::of_values(quantity.title, quantity.unit, ends);
    if lines.is_empty() {
        return None;
    }
    let left = left_out + lines.len().saturating_sub(TOLD);
    let more = if left > 0 { format!("; {} more in the table", format::plural(left, "line")) } else { String::new() };
    let told: Vec<&str> = lines.iter().take(TOLD).map(|(_, told)| told.as_str()).collect();
    let description = format!("{}: {}{more}.", quantity.title, told.join("; "));
    let lines: Vec<Line> = lines.into_iter().map(|(line, _)| line).collect();
    let named = lines.iter().filter(|line| !line.name.is_empty()).map(|line| (line.style, line.name.as_str()));
    let legend = if lines.len() > 1 { legend(named, None) } else { String::new() };
    let by_log = if matches!(y.scale, Scale::Log { .. }) { ", logarithmic" } else { "" };
    let chart = Chart {
        id: format!("factor-{}-{factor}-{}", cells.grid, quantity.name),
        title: format!("by {}{by_log}", of.label),
        description,
        x: Axis::places(&of.label, of.levels.iter().map(|level| level.label.as_str())),
        y,
        places: (0..of.levels.len()).map(|level| (level as f64, of.at(level))).collect(),
        lines,
        spread: Spread::Bars,
        upright: Vec::new(),
        level: Vec::new(),
    };
    Some((legend, chart, left_out))
}
