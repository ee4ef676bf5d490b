//! Asks Prometheus what Grafana would ask.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashboards::queries::{Place, Query, label_values};
use serde_json::Value;

use crate::children::Running;
use crate::page;

/// A Prometheus of the test's own.
#[derive(Debug)]
pub(crate) struct Prometheus {
    addr: SocketAddr,
    /// Killed when dropped.
    _program: Running,
}

/// A series of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    labels: Value,
    /// Seconds since the epoch, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    /// The value of a label; empty when it has none.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }

    fn read(result: &Value) -> Self {
        let many = result["values"].as_array().map_or(&[][..], Vec::as_slice);
        let one = (!result["value"].is_null()).then_some(&result["value"]);
        let point = |pair: &Value| {
            let value = pair[1].as_str().and_then(|text| text.parse().ok()).expect("a value");
            (pair[0].as_f64().expect("a time"), value)
        };
        Self { labels: result["metric"].clone(), points: many.iter().chain(one).map(point).collect() }
    }
}

/// The stretch of time a board shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Prometheus {
    /// Starts one that scrapes these jobs (name, address, path) every second, and takes the rules (`*.rules.yml`) that are
    /// in `directory`; its data is there, too.
    pub(crate) fn start(directory: &Path, addr: SocketAddr, jobs: &[(&str, &str, &str)]) -> Self {
        let mut config = "global:\n  scrape_interval: 1s\nrule_files: [\"*.rules.yml\"]\nscrape_configs:\n".to_owned();
        for (job, targets, path) in jobs {
            let _ = write!(
                config,
                "  - job_name: {job}\n    metrics_path: {path}\n    static_configs:\n      - targets: [{targets}]\n"
            );
        }
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).expect("write a configuration");
        let program = Running::start(
            "prometheus",
            [
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                format!("--web.listen-address={addr}"),
            ],
        );
        Self { addr, _program: program }
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let body = page::fetch(self.addr, path)?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))?;
        Ok(answer["data"].clone())
    }

    /// Every alert that is pending or firing, as Prometheus describes it.
    pub(crate) fn alerts(&self) -> Result<Vec<Value>, String> {
        let data = self.get("/api/v1/alerts")?;
        Ok(data["alerts"].as_array().cloned().unwrap_or_default())
    }

    fn series(&self, path: &str) -> Result<Vec<Series>, String> {
        let data = self.get(path)?;
        Ok(data["result"].as_array().map_or(&[][..], Vec::as_slice).iter().map(Series::read).collect())
    }

    /// The series of an expression at one instant.
    pub(crate) fn instant(&self, expression: &str, at: f64) -> Result<Vec<Series>, String> {
        self.series(&format!("/api/v1/query?time={at:.3}&query={}", encode(&substituted(expression))))
    }

    /// The series of an expression, a point per second.
    pub(crate) fn range(&self, expression: &str, range: Range) -> Result<Vec<Series>, String> {
        let Range { from, to } = range;
        let query = encode(&substituted(expression));
        self.series(&format!("/api/v1/query_range?start={from:.3}&end={to:.3}&step=1&query={query}"))
    }

    fn label_values(&self, selector: &str, label: &str, range: Range) -> Result<Vec<String>, String> {
        let Range { from, to } = range;
        let selector = encode(&substituted(selector));
        let values =
            self.get(&format!("/api/v1/label/{label}/values?start={from:.3}&end={to:.3}&match[]={selector}"))?;
        serde_json::from_value(values).map_err(|error| error.to_string())
    }

    /// How many series (or values of a label) a query has of which something can be drawn.
    pub(crate) fn count(&self, query: &Query, range: Range) -> Result<usize, String> {
        // Grafana draws a region where an annotation's value is above 0.
        let positive = matches!(query.place, Place::Annotation(_));
        let series = match &query.place {
            Place::Variable(_) => {
                let (selector, label) = label_values(&query.text).ok_or("not label_values(SELECTOR, LABEL)")?;
                return Ok(self.label_values(selector, label, range)?.len());
            }
            _ if query.instant => self.instant(&query.text, range.to)?,
            _ => self.range(&query.text, range)?,
        };
        let drawn = |value: f64| value.is_finite() && (value > 0.0 || !positive);
        Ok(series.iter().filter(|series| series.points.iter().any(|(_, value)| drawn(*value))).count())
    }

    /// Waits until an expression has as many series.
    pub(crate) fn wait_for(&self, expression: &str, series: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match self.instant(expression, now()) {
                Ok(found) if found.len() == series => return,
                last if Instant::now() > end => panic!("waited in vain for {series} of {expression}: {last:?}"),
                _ => thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// With values for Grafana's variables: everything picked, a scrape interval of 1 s.
fn substituted(text: &str) -> String {
    let values = [
        ("$__rate_interval", "4s"),
        ("$__interval", "1s"),
        ("$__range", "60s"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$run", ".+"),
        ("$quantity", "served-ratio"),
        ("${datasource}", "prometheus"),
    ];
    let text = values.into_iter().fold(text.to_owned(), |text, (variable, value)| text.replace(variable, value));
    assert!(!text.contains('$'), "a variable without a value: {text}");
    text
}

/// Everything but letters and digits, for a query string.
fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
