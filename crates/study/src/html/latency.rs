//! Latency cell by cell: how much of what was planned had its first byte by when, as lines and as a table of buckets.
//!
//! Both count from the planned instant and as shares of all planned attempts, so who was never served is missing from the
//! lines' ends and has columns of its own in the table. The unit is the trial: each point is the median of the trials'
//! shares, exact, since all places are edges of the histograms' buckets. Without a confirmation the time is that of the
//! established connection.

use std::collections::BTreeSet;

use loadgen::opts::Confirm;
use loadgen::retry_grid;
use loadgen::verdict::Verdict;
use telemetry::histogram::{Bounds, HistogramSnapshot, bucket_of, le_bounds, lower_edge, upper_edge};

use super::axis::{Axis, tidy};
use super::chart::{Chart, Line, Mark, Point, Spread, legend};
use super::markup::{Column, Field, Table, escape};
use super::panels::{Panel, panels};
use crate::design::Cell;
use crate::format;
use crate::quantity::{Unit, cohort};
use crate::report::Report;
use crate::results::Trial;
use crate::summary;
use crate::table::levels_in_words;

/// Places of the lines, over the whole range.
const PLACES: i32 = 96;

/// What the times are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    FirstByte,
    Connect,
}

impl Times {
    fn of(self, trial: &Trial) -> &HistogramSnapshot {
        match self {
            Self::FirstByte => &trial.loadgen.measured.confirm_latency,
            Self::Connect => &trial.loadgen.measured.connect_latency,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "first byte",
            Self::Connect => "connected",
        }
    }

    fn success(self) -> Verdict {
        match self {
            Self::FirstByte => Verdict::Served,
            Self::Connect => Verdict::Connected,
        }
    }
}

/// One grid of the design.
#[derive(Debug)]
pub(super) struct Latency<'a> {
    report: &'a Report<'a>,
    grid: usize,
    /// The valid ones of this grid.
    trials: Vec<&'a Trial>,
    times: Times,
    /// The filled buckets: the first and the last of any cell.
    range: (usize, usize),
    /// When SYNs were sent again, s.
    retries: Vec<u64>,
}

impl<'a> Latency<'a> {
    /// `None` when nothing was recorded in this grid.
    pub(super) fn of(report: &'a Report<'a>, grid: usize) -> Option<Self> {
        let cells: BTreeSet<usize> = report.screen.design.cells_of(grid).map(|cell| cell.index).collect();
        let trials: Vec<&'a Trial> = report.trials.iter().filter(|t| t.is_valid() && cells.contains(&t.cell)).collect();
        let confirmed = trials.iter().any(|trial| trial.loadgen.opts.confirm != Confirm::None);
        let times = if confirmed { Times::FirstByte } else { Times::Connect };
        let filled = |trial: &&&Trial| {
            let buckets = &times.of(trial).buckets;
            Some((buckets.first()?.0 as usize, buckets.last()?.0 as usize))
        };
        let range = trials.iter().filter_map(|trial| filled(&trial)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let retries: BTreeSet<u64> = trials.iter().flat_map(|trial| retry_grid(&trial.loadgen)).collect();
        let retries = retries.into_iter().filter(|second| *second > 0).collect();
        Some(Self { report, grid, trials, times, range, retries })
    }

    /// The charts' legend, the charts, and how many lines each had to leave out.
    pub(super) fn lines(&self) -> (String, Vec<Chart>, usize) {
        let (least, greatest) = (lower_edge(self.range.0).max(1000) as f64, upper_edge(self.range.1) as f64);
        let axis =
            Axis::log(&format!("{}, from planned", self.times.name()), Unit::Seconds, least / 1e9, greatest / 1e9);
        let places = places(least, greatest);
        let (panels, names, left_out) = panels(self.report.screen.design, self.grid);
        let charts = panels.iter().enumerate().map(|(index, panel)| self.chart(index, panel, &axis, &places)).collect();
        let names = names.iter().map(|(index, name)| (*index, name.as_str()));
        (legend(names, Some(&format!("latency-{}", self.grid))), charts, left_out)
    }

    fn chart(&self, index: usize, panel: &Panel<'_>, axis: &Axis, places: &[usize]) -> Chart {
        let line = |(style, name, cell): &(usize, String, &Cell)| {
            let shares = self.shares(cell, |trial, cohort| {
                let share = |bucket: &usize| self.times.of(trial).cumulative(*bucket) as f64 / cohort;
                places.iter().map(share).collect()
            });
            let point = |spread: summary::Spread| Point {
                y: spread.median,
                ends: spread.range,
                text: format::percent(spread.median),
            };
            Line { name: name.clone(), style: *style, points: shares.into_iter().map(|s| s.map(point)).collect() }
        };
        let lines: Vec<Line> = panel.lines.iter().map(line).collect();
        let ends = lines.iter().map(|line| {
            let end =
                line.points.last().and_then(Option::as_ref).map_or("nothing recorded", |point| point.text.as_str());
            format!("{}: {end}", if line.name.is_empty() { "all" } else { &line.name })
        });
        let description = format!("In the end {}.", ends.collect::<Vec<_>>().join("; "));
        let second = |bucket: &usize| upper_edge(*bucket) as f64 / 1e9;
        let shown = axis.ticks.last().map_or(0.0, |(value, _)| *value).max(places.last().map_or(0.0, second));
        // The unit once: there is little room between them.
        let label = |second: u64| {
            if self.retries.first() == Some(&second) { format!("{second} s") } else { second.to_string() }
        };
        let mark = |second: &u64| Mark { at: *second as f64, label: label(*second) };
        Chart {
            id: format!("latency-{}-{index}", self.grid),
            title: panel.title.clone(),
            description,
            x: axis.clone(),
            y: Axis::linear("of planned attempts", Unit::Ratio, 1.0),
            places: places
                .iter()
                .map(|bucket| (second(bucket), format!("by {}", format::time(second(bucket)))))
                .collect(),
            lines,
            spread: Spread::Band,
            upright: self.retries.iter().filter(|second| **second as f64 <= shown).map(mark).collect(),
            level: Vec::new(),
        }
    }

    /// Place by place, the spread over the valid trials of a cell of what `read` makes of each and of its planned attempts;
    /// `None` without trials.
    fn shares(&self, cell: &Cell, read: impl Fn(&Trial, f64) -> Vec<f64>) -> Vec<Option<summary::Spread>> {
        let of_cell = self.trials.iter().filter(|trial| trial.cell == cell.index);
        let of_trials: Vec<Vec<f64>> = of_cell
            .map(|trial| (*trial, cohort(trial)))
            .filter(|(_, cohort)| *cohort > 0)
            .map(|(trial, cohort)| read(trial, cohort as f64))
            .collect();
        let places = of_trials.first().map_or(0, Vec::len);
        (0..places).map(|place| summary::Spread::of(of_trials.iter().map(|shares| shares[place]).collect())).collect()
    }

    /// Cells by buckets, and what was not served by how it ended.
    pub(super) fn heat(&self) -> String {
        let edges = self.edges();
        let lost = self.lost();
        let mut columns = vec![Column::plain("cell")];
        let mut from = 0;
        for edge in &edges {
            columns.push(self.column(from, *edge));
            from = *edge;
        }
        columns.extend(lost.iter().map(|verdict| {
            Column::new(&verdict.label().replace('_', " "), "Planned attempts that ended so, at whatever time")
        }));
        let rows = self.report.screen.design.cells_of(self.grid).map(|cell| {
            let mut row = vec![Field::text(&levels_in_words(self.report.screen.design, cell))];
            let within = self.shares(cell, |trial, cohort| {
                let mut before = 0;
                let counts = edges.iter().map(|edge| {
                    let now = self.times.of(trial).cumulative(*edge);
                    let count = now - before;
                    before = now;
                    count as f64 / cohort
                });
                counts.collect()
            });
            row.extend(within.into_iter().map(|spread| shade(spread, "heat")));
            let ends = self.shares(cell, |trial, cohort| {
                lost.iter().map(|verdict| trial.loadgen.measured.verdict(*verdict) as f64 / cohort).collect()
            });
            row.extend(ends.into_iter().map(|spread| shade(spread, "loss")));
            row
        });
        let table = Table {
            caption: format!(
                "Percent of planned attempts by time to {}; medians of the trials, which need not add up to 100.",
                self.times.name()
            ),
            columns,
            rows: rows.collect(),
            class: "heatmap",
        };
        let note = match self.retried(&edges).as_slice() {
            [] => String::new(),
            seconds => format!(
                "<p class=\"note\">↻ Columns in which a SYN that was dropped may have come again: the kernel sends it after {} s.</p>\n",
                escape(&seconds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))
            ),
        };
        format!("<div>{}{note}</div>", table.html())
    }

    /// Upper edges of the table's columns, as buckets: those of the metrics, cut to what is filled.
    fn edges(&self) -> Vec<usize> {
        let bounds = le_bounds(Bounds::Latency);
        let first = bounds.partition_point(|edge| *edge < self.range.0);
        let last = bounds.partition_point(|edge| *edge < self.range.1).min(bounds.len() - 1);
        let mut edges = bounds[first.min(last)..=last].to_vec();
        // What lies beyond the last bound of the metrics belongs to the last column.
        if let Some(edge) = edges.last_mut() {
            *edge = (*edge).max(self.range.1);
        }
        edges
    }

    /// The column from one edge to the next.
    fn column(&self, from: usize, to: usize) -> Column {
        let (low, high) = (nominal(from), nominal(to));
        let title = match self.retry_in(from, to) {
            Some(second) => format!("↻ {second} s"),
            None => format!("≤ {}", tidy(&format::time(high))),
        };
        Column::new(&title, &format!("{} to {}", tidy(&format::time(low)), tidy(&format::time(high))))
    }

    /// The retry whose time the column holds. A SYN is sent again at its time or later, and no edge lies just behind one
    /// ([`le_bounds`]): who was let in by it is in that column.
    fn retry_in(&self, from: usize, to: usize) -> Option<u64> {
        let (low, high) = (upper_edge(from) as f64 / 1e9, upper_edge(to) as f64 / 1e9);
        let holds = |second: &u64| low > 0.5 && low <= *second as f64 && (*second as f64) < high;
        self.retries.iter().copied().find(holds)
    }

    fn retried(&self, edges: &[usize]) -> Vec<u64> {
        edges
            .windows(2)
            .filter_map(|pair| self.retry_in(pair[0], pair[1]))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// How attempts ended that have no time, in any valid trial of the grid.
    fn lost(&self) -> Vec<Verdict> {
        let mut happened = BTreeSet::new();
        for trial in &self.trials {
            let counts = &trial.loadgen.measured.verdicts;
            happened.extend(counts.iter().filter(|(_, count)| **count > 0).map(|(verdict, _)| *verdict));
        }
        happened.into_iter().filter(|verdict| *verdict != self.times.success()).collect()
    }
}

/// Buckets at even distances on a logarithmic axis, each once.
fn places(least_ns: f64, greatest_ns: f64) -> Vec<usize> {
    let step = (greatest_ns / least_ns).ln() / f64::from(PLACES);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two values of a histogram")]
    let bucket = |place: i32| bucket_of((least_ns * (step * f64::from(place)).exp()).round() as u64);
    let buckets: BTreeSet<usize> = (0..PLACES).map(bucket).chain([bucket_of_edge(greatest_ns)]).collect();
    buckets.into_iter().collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an edge of a histogram")]
fn bucket_of_edge(edge_ns: f64) -> usize {
    bucket_of(edge_ns as u64)
}

/// A bound of the metrics as it is meant: their edges lie up to 2 % beside it.
fn nominal(bucket: usize) -> f64 {
    let seconds = upper_edge(bucket) as f64 / 1e9;
    if seconds <= 2e-9 {
        return 0.0;
    }
    let digit = 10_f64.powf(seconds.log10().floor());
    let round = (seconds / digit).round() * digit;
    if (round - seconds).abs() <= 0.02 * seconds { round } else { seconds }
}

/// A field whose colour says how much.
fn shade(spread: Option<summary::Spread>, hue: &'static str) -> Field {
    let Some(share) = spread.map(|spread| spread.median) else { return Field::number("–", None) };
    if share <= 0.0 {
        return Field::number("", Some(0.0));
    }
    let text = format::percent(share);
    let text = escape(text.trim_end_matches(" %"));
    Field::markup(format!("<span class=\"{hue}\" style=\"--part:{:.2}\">{text}</span>", share.sqrt()), Some(share))
        .class("number")
}
