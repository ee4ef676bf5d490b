//! A chart as SVG inside the page: lines over an axis, with what a script needs to show the figures under a pointer.
//!
//! Owns the drawing. Colours are classes of the style sheet, six hues that people with any colour vision tell apart, and
//! beyond six the dashes change. Every chart has axes with titles, and a sentence for those who cannot see it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::axis::{Axis, Scale};
use super::markup::escape;

/// Size of a chart and of what surrounds its plot, in the units of its view box.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 229.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 43.0;

/// Width of a character of a label, at most.
const CHARACTER: f64 = 6.9;

/// Hues of the style sheet.
const HUES: usize = 6;

/// The classes of the line with this index.
pub(super) fn style(index: usize) -> String {
    format!("l{index} s{} d{}", index % HUES, (index / HUES).min(3))
}

/// One value of a line.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) y: f64,
    /// How far its values spread.
    pub(super) ends: [f64; 2],
    /// The figures in words.
    pub(super) text: String,
}

/// One line: a value, or none, at each place of the chart.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Index of its style.
    pub(super) style: usize,
    pub(super) points: Vec<Option<Point>>,
}

/// How the spread of values is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// A bar at each point, which is a dot.
    Bars,
    /// A band along the line.
    Band,
}

/// A straight line across the plot.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) label: String,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Its name in the page's data.
    pub(super) id: String,
    pub(super) title: String,
    /// What it shows, for those who cannot see it.
    pub(super) description: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// The places of the points: value and text.
    pub(super) places: Vec<(f64, String)>,
    pub(super) lines: Vec<Line>,
    pub(super) spread: Spread,
    /// Lines at values of x.
    pub(super) upright: Vec<Mark>,
    /// Lines at values of y.
    pub(super) level: Vec<Mark>,
}

impl Chart {
    /// The chart as a figure.
    pub(super) fn html(&self) -> String {
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption>\n<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" tabindex=\"0\" \
             data-chart=\"{}\" aria-label=\"{}\">",
            escape(&self.title),
            escape(&self.id),
            escape(&format!("{}. {}", self.title, self.description)),
        );
        self.axes(&mut svg);
        self.marks(&mut svg);
        for line in &self.lines {
            let _ = write!(svg, "<g class=\"{}\">", style(line.style));
            match self.spread {
                Spread::Band => self.band(&mut svg, line),
                Spread::Bars => self.bars(&mut svg, line),
            }
            self.path(&mut svg, line);
            svg.push_str("</g>");
        }
        svg.push_str("</svg></figure>\n");
        svg
    }

    /// What a script needs to show the figures at a place.
    pub(super) fn data(&self) -> Value {
        let places: Vec<Value> = self.places.iter().map(|(x, text)| json!([tenth(self.place(*x)), text])).collect();
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let points = line.points.iter().map(|point| {
                    point.as_ref().map_or(Value::Null, |point| json!([tenth(self.height(point.y)), point.text]))
                });
                json!({ "name": line.name, "style": line.style, "points": points.collect::<Vec<_>>() })
            })
            .collect();
        json!({ "at": places, "lines": lines, "top": TOP, "bottom": HEIGHT - BOTTOM })
    }

    fn place(&self, x: f64) -> f64 {
        LEFT + self.x.scale.part(x) * (WIDTH - LEFT - RIGHT)
    }

    fn height(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.scale.part(y) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, svg: &mut String) {
        let floor = HEIGHT - BOTTOM;
        let _ = write!(svg, "<text class=\"axis\" x=\"4\" y=\"14\">{}</text>", escape(&self.y.title));
        for (value, text) in &self.y.ticks {
            let y = self.height(*value);
            let _ = write!(
                svg,
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 3.5,
                escape(text)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 5.0,
            escape(&self.x.title)
        );
        // Labels that would touch the one before are left out; the pointer still finds their places.
        let room = match self.x.scale {
            Scale::Places(count) => (WIDTH - LEFT - RIGHT) / count.max(1) as f64,
            Scale::Linear { .. } | Scale::Log { .. } => f64::INFINITY,
        };
        let mut free = f64::NEG_INFINITY;
        for (value, text) in &self.x.ticks {
            let text = shorten(text, room);
            let (x, half) = (self.place(*value), text.chars().count() as f64 * CHARACTER / 2.0);
            let _ =
                write!(svg, "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{floor}\" y2=\"{}\"/>", floor + 4.0);
            // No label leaves the view box.
            let x = x.min(WIDTH - half);
            if x - half >= free {
                free = x + half + 4.0;
                let _ = write!(
                    svg,
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    floor + 18.5,
                    escape(&text)
                );
            }
        }
    }

    fn marks(&self, svg: &mut String) {
        let mut free = f64::NEG_INFINITY;
        for mark in &self.upright {
            let x = self.place(mark.at);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\"/>",
                HEIGHT - BOTTOM
            );
            let half = mark.label.chars().count() as f64 * CHARACTER / 2.0;
            if x - half >= free {
                free = x + half + 3.0;
                let _ = write!(
                    svg,
                    "<text class=\"mark\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    TOP - 5.0,
                    escape(&mark.label)
                );
            }
        }
        for mark in &self.level {
            let y = self.height(mark.at);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"mark\" x=\"{0}\" y=\"{1:.1}\" text-anchor=\"end\">{2}</text>",
                WIDTH - RIGHT,
                y - 4.0,
                escape(&mark.label)
            );
        }
    }

    /// The line's values, aside by a little where bars of several lines would cover each other.
    fn along<'l>(&self, line: &'l Line) -> Vec<Option<(f64, &'l Point)>> {
        let aside = match self.spread {
            Spread::Bars => {
                let index = self.lines.iter().position(|other| other.style == line.style).unwrap_or(0);
                (index as f64 - (self.lines.len() as f64 - 1.0) / 2.0) * (16.0 / self.lines.len() as f64).min(5.0)
            }
            Spread::Band => 0.0,
        };
        let places = self.places.iter().map(|(x, _)| self.place(*x) + aside);
        places.zip(&line.points).map(|(x, point)| Some((x, point.as_ref()?))).collect()
    }

    fn path(&self, svg: &mut String, line: &Line) {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        let along = self.along(line);
        for (index, at) in along.iter().enumerate() {
            let Some((x, point)) = at else {
                before = None;
                continue;
            };
            let y = self.height(point.y);
            // Flat stretches need their ends only.
            let flat = |next: Option<&Option<(f64, &Point)>>| {
                next.and_then(Option::as_ref).is_some_and(|(_, next)| (self.height(next.y) - y).abs() < 0.05)
            };
            if before.is_some_and(|before| (before - y).abs() < 0.05) && flat(along.get(index + 1)) {
                continue;
            }
            let _ = write!(path, "{}{x:.1} {y:.1}", if before.is_some() { "L" } else { "M" });
            before = Some(y);
        }
        let _ = write!(svg, "<path class=\"line\" d=\"{path}\"/>");
    }

    fn bars(&self, svg: &mut String, line: &Line) {
        for (x, point) in self.along(line).into_iter().flatten() {
            let [low, high] = point.ends.map(|end| self.height(end));
            if low - high >= 1.0 {
                let _ = write!(svg, "<path class=\"bar\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>");
            }
            let _ = write!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.2\"/>", self.height(point.y));
        }
    }

    fn band(&self, svg: &mut String, line: &Line) {
        let points: Vec<(f64, &Point)> = self.along(line).into_iter().flatten().collect();
        if points.iter().all(|(_, point)| (self.height(point.ends[0]) - self.height(point.ends[1])).abs() < 0.5) {
            return;
        }
        let upper = points.iter().map(|(x, point)| format!("{x:.1} {:.1}", self.height(point.ends[1])));
        let lower = points.iter().rev().map(|(x, point)| format!("{x:.1} {:.1}", self.height(point.ends[0])));
        let outline = upper.chain(lower).collect::<Vec<_>>().join("L");
        let _ = write!(svg, "<path class=\"band\" d=\"M{outline}Z\"/>");
    }
}

/// A chart's coordinates are good to a tenth.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// At most as many characters as fit into `room`, the last one `…` where something was cut.
fn shorten(text: &str, room: f64) -> String {
    let fits = |length: usize| length as f64 * CHARACTER <= room;
    if fits(text.chars().count()) {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        if !fits(short.chars().count() + 2) {
            break;
        }
        short.push(char);
    }
    short.push('…');
    short
}

/// The names of lines beside samples of them. With `group`, each can be switched off.
pub(super) fn legend<'a>(names: impl Iterator<Item = (usize, &'a str)>, group: Option<&str>) -> String {
    let mut html = "<ul class=\"legend\">".to_owned();
    for (index, name) in names {
        let sample = format!(
            "<svg class=\"sample\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><g class=\"{}\"><path class=\"line\" d=\"M1 5H25\"/></g></svg>{}",
            style(index).split_once(' ').map_or("", |(_, style)| style),
            escape(name)
        );
        let _ = match group {
            Some(group) => write!(
                html,
                "<li><label><input type=\"checkbox\" checked id=\"{group}-{index}\" data-line=\"{index}\">{sample}</label></li>"
            ),
            None => write!(html, "<li>{sample}</li>"),
        };
    }
    html.push_str("</ul>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::Unit;

    fn chart(points: Vec<Option<Point>>) -> Chart {
        Chart {
            id: "c".to_owned(),
            title: "served <of> planned".to_owned(),
            description: "16: 10 %.".to_owned(),
            x: Axis::places("backlog", ["16", "a level with a very long name"].into_iter()),
            y: Axis::linear("served", Unit::Ratio, 1.0),
            places: vec![(0.0, "16".to_owned()), (1.0, "128".to_owned())],
            lines: vec![Line { name: "only".to_owned(), style: 7, points }],
            spread: Spread::Bars,
            upright: Vec::new(),
            level: vec![Mark { at: 0.5, label: "half".to_owned() }],
        }
    }

    fn point(y: f64, ends: [f64; 2]) -> Point {
        Point { y, ends, text: format!("{y}") }
    }

    #[test]
    fn values_stand_at_their_height_and_their_spread_beside_them() {
        let chart = chart(vec![Some(point(0.0, [0.0, 0.0])), Some(point(1.0, [0.5, 1.0]))]);
        let svg = chart.html();
        assert!(svg.contains("<path class=\"line\" d=\"M125.5 186.0L272.5 30.0\"/>"), "{svg}");
        assert_eq!(svg.matches("class=\"bar\"").count(), 1, "no bar without a spread: {svg}");
        assert!(svg.contains("<path class=\"bar\" d=\"M272.5 108.0V30.0\"/>"), "{svg}");
        assert!(svg.contains("<g class=\"l7 s1 d1\">"), "{svg}");
        let data = chart.data();
        assert_eq!(data["at"][1], json!([272.5, "128"]));
        assert_eq!(data["lines"][0]["points"][0], json!([186.0, "0"]));
    }

    #[test]
    fn a_missing_value_is_a_gap() {
        let chart = chart(vec![None, Some(point(1.0, [1.0, 1.0]))]);
        assert!(chart.html().contains("<path class=\"line\" d=\"M272.5 30.0\"/>"));
        assert_eq!(chart.data()["lines"][0]["points"][0], Value::Null);
    }

    #[test]
    fn titles_are_text_and_long_labels_are_cut() {
        let svg = chart(Vec::new()).html();
        assert!(svg.contains("aria-label=\"served &lt;of&gt; planned. 16: 10 %.\""), "{svg}");
        assert!(svg.contains(">a level with a very …</text>"), "{svg}");
    }
}
