//! The Prometheus page: metrics, samples and their text (exposition format 0.0.4).
//!
//! The only place that knows the `prometheus` crate, of which it uses the data model and the text encoder. It refuses
//! the registry and the live metric types of that crate: a page is built from snapshots at the scrape, so nothing is
//! counted twice and no counter outlives its owner. Format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::collections::BTreeMap;

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

use crate::histogram::{FILL_PARTS, HistogramSnapshot, le_bounds, upper_edge};

mod timeline;

pub use crate::histogram::Bounds;
pub use timeline::Timeline;

/// Prefix of every metric of this project.
pub const PREFIX: &str = "acceptbench_";

/// The content type of a page.
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows; its name ends in `_total`.
    Counter,
    /// May go either way.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
}

/// What is known about a metric before it has a value. Constants of this type live with their producers, and the
/// dashboards are generated from the same constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name without [`PREFIX`].
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of the labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
    /// One sentence: the unit, the kernel field where there is one, and whose it is.
    pub help: &'static str,
}

impl Metric {
    /// Whether the name is one every Prometheus client uses (`process_*`), which carries no prefix.
    fn is_standard(&self) -> bool {
        self.name.starts_with("process_")
    }

    /// The name as scraped: with [`PREFIX`], except for the standard `process_*` metrics.
    pub fn full_name(&self) -> String {
        if self.is_standard() { self.name.to_owned() } else { format!("{PREFIX}{}", self.name) }
    }
}

/// Defines metrics as constants, each beside its help, and `ALL`, the list of them.
#[macro_export]
macro_rules! metrics {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            #[allow(clippy::doc_markdown, reason = "a help text is plain text")]
            pub const $name: $crate::exposition::Metric = $crate::exposition::Metric {
                name: $text,
                kind: $crate::exposition::Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+
        /// Every metric defined here.
        pub const ALL: &[&$crate::exposition::Metric] = &[$(&$name),+];
    };
}

/// How the values of a histogram become the unit of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Recorded in nanoseconds, shown in seconds.
    Seconds,
    /// Shown as recorded.
    Plain,
    /// Recorded by [`fill_parts`](crate::histogram::fill_parts), shown as a ratio.
    Fill,
}

impl Scale {
    /// `v` in the unit shown.
    fn apply(self, v: u64) -> f64 {
        // Divided, not multiplied by 1e-9: the quotient of two exact numbers is the double nearest to the decimal value,
        // which prints without float dust (998244352 ns is 0.998244352).
        match self {
            Self::Seconds => v as f64 / 1e9,
            Self::Plain => v as f64,
            Self::Fill => v as f64 / FILL_PARTS as f64,
        }
    }
}

/// One family while its page is being built.
#[derive(Debug)]
struct Family {
    metric: Metric,
    samples: Vec<proto::Metric>,
}

/// A page under construction: samples in any order, grouped by metric and sorted by name when rendered.
#[derive(Debug, Default)]
pub struct Families {
    /// Keyed so that the prefixed names come first, which is their order as scraped too.
    families: BTreeMap<(bool, &'static str), Family>,
}

impl Families {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample of a counter. `labels` are the values for `m.labels`, in order.
    pub fn counter(&mut self, m: &Metric, labels: &[&str], v: u64) {
        self.counter_f64(m, labels, v as f64);
    }

    /// Adds a sample of a counter of a fractional unit (seconds).
    pub fn counter_f64(&mut self, m: &Metric, labels: &[&str], v: f64) {
        let mut value = proto::Counter::default();
        value.set_value(v);
        self.sample(m, Kind::Counter, labels, |sample| sample.set_counter(value));
    }

    /// Adds a sample of a counter of seconds that was counted in nanoseconds.
    pub fn counter_seconds(&mut self, m: &Metric, labels: &[&str], ns: u64) {
        self.counter_f64(m, labels, Scale::Seconds.apply(ns));
    }

    /// Adds a sample of a gauge.
    pub fn gauge(&mut self, m: &Metric, labels: &[&str], v: f64) {
        let mut value = proto::Gauge::default();
        value.set_value(v);
        self.sample(m, Kind::Gauge, labels, |sample| sample.set_gauge(value));
    }

    /// Adds an `_info` gauge, which is 1, whose label names are only known at run time. `m.labels` is empty.
    pub fn info(&mut self, m: &Metric, pairs: &[(&str, &str)]) {
        let mut value = proto::Gauge::default();
        value.set_value(1.0);
        self.sample(m, Kind::Gauge, &[], |sample| {
            sample.set_label(pairs.iter().map(|(name, value)| pair(name, value)).collect());
            sample.set_gauge(value);
        });
    }

    /// Adds a histogram: one exact bucket per bound of `bounds`, `+Inf`, the sum and the count.
    pub fn histogram(
        &mut self,
        m: &Metric,
        labels: &[&str],
        snapshot: &HistogramSnapshot,
        bounds: Bounds,
        scale: Scale,
    ) {
        let mut filled = snapshot.buckets.iter().peekable();
        let mut seen = 0;
        // One pass over both ascending lists; asking for each bound's cumulative count would start over 25 times.
        let buckets = le_bounds(bounds).iter().map(|&edge| {
            while let Some((_, n)) = filled.next_if(|(bucket, _)| *bucket as usize <= edge) {
                seen += n;
            }
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(scale.apply(upper_edge(edge)));
            bucket.set_cumulative_count(seen);
            bucket
        });
        let mut value = proto::Histogram::default();
        value.set_bucket(buckets.collect());
        value.set_sample_sum(scale.apply(snapshot.sum));
        value.set_sample_count(snapshot.count);
        self.sample(m, Kind::Histogram, labels, |sample| {
            sample.set_histogram(value);
        });
    }

    /// Adds the samples of another page.
    pub fn absorb(&mut self, other: Self) {
        for (key, family) in other.families {
            let ours =
                self.families.entry(key).or_insert_with(|| Family { metric: family.metric, samples: Vec::new() });
            ours.samples.extend(family.samples);
        }
    }

    /// Adds a sample, unless the caller's labels or type do not fit the metric: that is a bug here, and a page without
    /// one sample serves its reader better than no page.
    fn sample(&mut self, m: &Metric, kind: Kind, labels: &[&str], fill: impl FnOnce(&mut proto::Metric)) {
        debug_assert_eq!(m.kind, kind, "{} is shown as another type", m.name);
        debug_assert_eq!(m.labels.len(), labels.len(), "{} has the labels {:?}, not {labels:?}", m.name, m.labels);
        if m.kind != kind || m.labels.len() != labels.len() {
            return;
        }
        let mut sample =
            proto::Metric::from_label(m.labels.iter().zip(labels).map(|(name, value)| pair(name, value)).collect());
        fill(&mut sample);
        let family = self
            .families
            .entry((m.is_standard(), m.name))
            .or_insert_with(|| Family { metric: *m, samples: Vec::new() });
        family.samples.push(sample);
    }

    /// The page as text.
    pub fn render(self) -> String {
        let families: Vec<MetricFamily> = self.families.into_values().map(Family::into_proto).collect();
        let mut page = String::new();
        // The encoder refuses only a family without a name or without samples, and none of those can be built here.
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut page) {
            tracing::error!(%error, "render a page: the encoder refused a family, the page ends early");
        }
        page
    }
}

impl Family {
    fn into_proto(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.metric.full_name());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(self.samples);
        family
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[cfg(test)]
mod tests;
