//! Charts as SVG: lines, heat maps, states.

use std::fmt::Write;

use super::panel::Named;
use super::text::{escape, value};
use crate::client::Range;

/// Grafana's classic palette, the first of it.
const PALETTE: [&str; 10] =
    ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300"];

/// Names in a legend.
const NAMES: usize = 8;

/// Room for the numbers of the axes.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 12.0;

/// Where a chart is drawn, and what is behind it.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    width: f64,
    height: f64,
    range: Range,
    unit: &'a str,
    trials: &'a [f64],
}

#[expect(clippy::cast_precision_loss, reason = "a few columns of a grid")]
impl<'a> Frame<'a> {
    /// For a panel so many grid units wide and high.
    pub(super) fn new(columns: u64, rows: u64, range: Range, unit: &'a str, trials: &'a [f64]) -> Self {
        let (width, height) = (columns as f64 * 55.0, (rows as f64 * 30.0 - 62.0).max(40.0));
        Self { width, height, range, unit, trials }
    }
}

impl Frame<'_> {
    fn x(&self, time: f64) -> f64 {
        LEFT + (time - self.range.from) / (self.range.to - self.range.from).max(1.0) * (self.width - LEFT)
    }

    fn y(&self, part: f64) -> f64 {
        (self.height - BOTTOM) * (1.0 - part)
    }

    /// Pixels of a second, the step of every range.
    fn second(&self) -> f64 {
        self.x(self.range.from + 1.0) - LEFT
    }

    /// An SVG with the trials shaded.
    fn open(&self) -> String {
        let mut out = format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" preserveAspectRatio=\"none\" height=\"{:.0}\">",
            self.width, self.height, self.height
        );
        for time in self.trials {
            let _ = write!(
                out,
                "<rect x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#5794f2\" opacity=\"0.12\"/>",
                self.x(*time),
                self.second(),
                self.height - BOTTOM
            );
        }
        out
    }
}

/// The largest value.
fn largest(series: &[Named]) -> f64 {
    let values = series.iter().flat_map(|(_, one)| &one.points).map(|(_, value)| *value);
    let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if most > 0.0 { most } else { 1.0 }
}

fn legend(out: &mut String, series: &[Named]) {
    out.push_str("<div class=\"legend\">");
    for (index, (name, _)) in series.iter().enumerate().take(NAMES) {
        let _ = write!(
            out,
            "<span><i style=\"background: {}\"></i>{}</span> ",
            PALETTE[index % PALETTE.len()],
            escape(name)
        );
    }
    if series.len() > NAMES {
        let _ = write!(out, " and {} more", series.len() - NAMES);
    }
    out.push_str("</div>");
}

/// A line per series, broken where there is no value.
pub(super) fn lines(frame: &Frame, series: &[Named]) -> String {
    let most = largest(series);
    let mut out = frame.open();
    for part in [0.0, 0.5, 1.0] {
        let y = frame.y(part * 0.95);
        let label = value(most * part, frame.unit);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e6e7e8\"/>",
            frame.width
        );
        let _ = write!(out, "<text x=\"0\" y=\"{:.1}\">{label}</text>", y.max(8.0));
    }
    for (index, (_, one)) in series.iter().enumerate() {
        let mut path = String::new();
        let mut before = f64::NAN;
        for (time, number) in one.points.iter().filter(|(_, number)| number.is_finite()) {
            let command = if time - before <= 1.5 { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", frame.x(*time), frame.y(number.max(0.0) / most * 0.95));
            before = *time;
        }
        let colour = PALETTE[index % PALETTE.len()];
        let _ = write!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>");
    }
    out.push_str("</svg>");
    legend(&mut out, series);
    out
}

/// A bar per series and value.
#[expect(clippy::cast_precision_loss, reason = "a few series")]
pub(super) fn states(frame: &Frame, series: &[Named]) -> String {
    let row = (frame.height - BOTTOM) / series.len().max(1) as f64;
    let mut out = frame.open();
    for (index, (name, one)) in series.iter().enumerate() {
        let y = index as f64 * row;
        let mut points = one.points.iter().peekable();
        while let Some((from, number)) = points.next() {
            let mut to = *from;
            while let Some((time, _)) =
                points.next_if(|(time, other)| (other - number).abs() < f64::EPSILON && time - to <= 1.5)
            {
                to = *time;
            }
            let width = frame.x(to) - frame.x(*from) + frame.second();
            let _ = write!(
                out,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#5794f2\" opacity=\"0.35\"/>",
                frame.x(*from),
                (row - 1.0).max(1.0)
            );
            if row >= 9.0 {
                let said = format!("{} · {}", value(*number, frame.unit), escape(name));
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{said}</text>",
                    frame.x(*from) + 2.0,
                    y + row / 2.0 + 3.0
                );
            }
        }
    }
    out.push_str("</svg>");
    if row < 9.0 {
        legend(&mut out, series);
    }
    out
}

/// The buckets of a histogram over time: each less the one below it, the darker the more.
#[expect(clippy::cast_precision_loss, reason = "a few buckets")]
pub(super) fn heat_map(frame: &Frame, series: &[Named]) -> String {
    let bound = |name: &str| if name == "+Inf" { f64::INFINITY } else { name.parse().unwrap_or(0.0) };
    let mut buckets: Vec<&Named> = series.iter().collect();
    buckets.sort_by(|(a, _), (b, _)| bound(a).total_cmp(&bound(b)));
    let at = |bucket: Option<&&Named>, time: f64| {
        let points = bucket.map_or(&[][..], |(_, one)| one.points.as_slice());
        points.iter().find(|(other, _)| (other - time).abs() < 0.5).map_or(0.0, |(_, number)| *number)
    };
    let mut cells = Vec::new();
    for (index, (_, one)) in buckets.iter().enumerate() {
        let below = index.checked_sub(1).and_then(|below| buckets.get(below));
        cells.extend(one.points.iter().map(|(time, number)| (index, *time, number - at(below, *time))));
    }
    let used: Vec<usize> = cells.iter().filter(|(_, _, number)| *number > 1e-9).map(|(index, ..)| *index).collect();
    let (low, high) = (used.iter().min().copied().unwrap_or(0), used.iter().max().copied().unwrap_or(0));
    let most = cells.iter().map(|(_, _, number)| *number).fold(1e-9, f64::max);
    let row = (frame.height - BOTTOM) / (high - low + 1) as f64;
    let mut out = frame.open();
    for (index, time, number) in cells.into_iter().filter(|(_, _, number)| *number > 1e-9) {
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{row:.1}\" fill=\"#d9480f\" opacity=\"{:.2}\"/>",
            frame.x(time),
            (high - index) as f64 * row,
            frame.second(),
            (number / most).sqrt().clamp(0.08, 1.0)
        );
    }
    for (index, (name, _)) in buckets.iter().enumerate().filter(|(index, _)| (low..=high).contains(index)) {
        let every = (9.0 / row).ceil().max(1.0);
        if ((high - index) as f64 % every) < 0.5 {
            let label = if name == "+Inf" { "more".to_owned() } else { value(bound(name), frame.unit) };
            let _ = write!(out, "<text x=\"0\" y=\"{:.1}\">{label}</text>", (high - index) as f64 * row + 8.0);
        }
    }
    out + "</svg>"
}
