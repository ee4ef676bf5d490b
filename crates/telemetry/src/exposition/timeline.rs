//! Pages over time as one OpenMetrics text: every sample with its instant, for `promtool tsdb create-blocks-from
//! openmetrics`.
//!
//! It owns the form and nothing else: what was to be seen at an instant its caller says, as a page. It refuses histograms.
//! Format: <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Families, Kind, Metric};

/// Pages in the order of their instants.
#[derive(Debug)]
pub struct Timeline {
    /// Labels of every sample, as text without braces.
    target: String,
    /// ms since 1970 of the last page.
    last: i64,
    tracks: BTreeMap<(bool, &'static str), Track>,
}

/// One metric.
#[derive(Debug)]
struct Track {
    metric: Metric,
    /// Its samples by the text of their labels: ms since 1970, and the value.
    series: BTreeMap<String, Vec<(i64, f64)>>,
}

impl Timeline {
    /// An empty one. `target` are labels that every sample gets, as a scrape gives them to what it reads (`job`,
    /// `instance`).
    pub fn new(target: &[(&str, &str)]) -> Self {
        Self { target: labels(target.iter().copied()), last: i64::MIN, tracks: BTreeMap::new() }
    }

    /// Adds what a page showed at an instant, ms since 1970. Time does not go back: a page from before the last one counts as
    /// of the last one's instant, and of two pages of one instant the later holds.
    pub fn add(&mut self, at: i64, page: Families) {
        self.last = self.last.max(at);
        for (key, family) in page.families {
            let metric = family.metric;
            debug_assert_ne!(metric.kind, Kind::Histogram, "{} has more than a value", metric.name);
            let track = self.tracks.entry(key).or_insert_with(|| Track { metric, series: BTreeMap::new() });
            for sample in &family.samples {
                let value = match metric.kind {
                    Kind::Counter => sample.get_counter().get_value(),
                    Kind::Gauge => sample.get_gauge().get_value(),
                    Kind::Histogram => continue,
                };
                let own = labels(sample.get_label().iter().map(|pair| (pair.name(), pair.value())));
                let points = track.series.entry(own).or_default();
                points.pop_if(|(time, _)| *time == self.last);
                points.push((self.last, value));
            }
        }
    }

    /// The whole text, up to `# EOF`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for track in self.tracks.values() {
            track.render(&self.target, &mut text);
        }
        text.push_str("# EOF\n");
        text
    }
}

impl Track {
    fn render(&self, target: &str, text: &mut String) {
        let sample = self.metric.full_name();
        // A counter's family is called without what its samples end in.
        let (family, kind) = match self.metric.kind {
            Kind::Counter => (sample.strip_suffix("_total").unwrap_or(&sample), "counter"),
            Kind::Gauge | Kind::Histogram => (sample.as_str(), "gauge"),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {family} {}\n# TYPE {family} {kind}\n", escaped(self.metric.help));
        for (own, points) in &self.series {
            let comma = if target.is_empty() || own.is_empty() { "" } else { "," };
            for (at, value) in points {
                let (seconds, ms) = (at.div_euclid(1000), at.rem_euclid(1000));
                let _ = writeln!(text, "{sample}{{{target}{comma}{own}}} {} {seconds}.{ms:03}", number(*value));
            }
        }
    }
}

fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL: Metric = Metric { name: "level", kind: Kind::Gauge, labels: &["of"], help: "How \"high\"." };
    const DONE: Metric = Metric { name: "done_total", kind: Kind::Counter, labels: &[], help: "How many." };

    fn page(level: f64, done: u64) -> Families {
        let mut page = Families::new();
        page.gauge(&LEVEL, &["a \"b\"\\"], level);
        page.counter(&DONE, &[], done);
        page
    }

    #[test]
    fn samples_stand_by_metric_and_series_each_with_its_instant() {
        let mut timeline = Timeline::new(&[("job", "runner")]);
        timeline.add(1_700_000_000_005, page(0.5, 1));
        timeline.add(1_700_000_001_000, page(f64::INFINITY, 2));
        let expected = "\
# HELP acceptbench_done How many.
# TYPE acceptbench_done counter
acceptbench_done_total{job=\"runner\"} 1 1700000000.005
acceptbench_done_total{job=\"runner\"} 2 1700000001.000
# HELP acceptbench_level How \\\"high\\\".
# TYPE acceptbench_level gauge
acceptbench_level{job=\"runner\",of=\"a \\\"b\\\"\\\\\"} 0.5 1700000000.005
acceptbench_level{job=\"runner\",of=\"a \\\"b\\\"\\\\\"} +Inf 1700000001.000
# EOF
";
        assert_eq!(timeline.render(), expected);
    }

    #[test]
    fn an_instant_has_one_value_and_time_does_not_go_back() {
        let mut timeline = Timeline::new(&[]);
        timeline.add(2000, page(1.0, 1));
        timeline.add(2000, page(2.0, 2));
        timeline.add(1000, page(3.0, 3));
        let text = timeline.render();
        assert_eq!(text.matches("acceptbench_done_total{").count(), 1, "{text}");
        assert!(text.contains("acceptbench_done_total{} 3 2.000"), "{text}");
    }
}
