//! Asks a Prometheus what Grafana would ask: for the live test of the queries and for the preview.
//!
//! One request per connection, by the GET of the admin ports ([`get_local`]); https is refused.
//! API: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use telemetry::admin::{FetchError, get_local};

use crate::queries::{Place, Query, label_values};

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The stretch of time a board shows, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Its beginning.
    pub from: f64,
    /// Its end.
    pub to: f64,
}

/// A series of an answer.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its labels, an object of strings.
    pub labels: Value,
    /// Seconds since the epoch, and the value.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The value of a label; empty when it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }

    fn read(result: &Value) -> Self {
        let many = result["values"].as_array().map_or(&[][..], Vec::as_slice);
        let one = (!result["value"].is_null()).then_some(&result["value"]);
        let point = |pair: &Value| Some((pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?));
        Self { labels: result["metric"].clone(), points: many.iter().chain(one).filter_map(point).collect() }
    }
}

/// A Prometheus to ask.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    addr: SocketAddr,
}

impl Client {
    /// The one that listens there.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr }
    }

    /// What its API says under a path.
    ///
    /// # Errors
    /// It is not reached, or refuses the question; with its reason.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        // The path, a query, is long, and of no help.
        let (_, body) = get_local(self.addr, path, TIMEOUT).map_err(|error| match error {
            FetchError::Io { addr, source, .. } => format!("ask Prometheus at {addr}: {source}"),
            FetchError::NotHttp { addr, .. } => format!("ask Prometheus at {addr}: the answer is not HTTP"),
        })?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    fn series(&self, path: &str) -> Result<Vec<Series>, String> {
        let data = self.get(path)?;
        Ok(data["result"].as_array().map_or(&[][..], Vec::as_slice).iter().map(Series::read).collect())
    }

    /// The series of an expression at the end of `range`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn instant(&self, expression: &str, range: Range) -> Result<Vec<Series>, String> {
        let query = encode(&substituted(expression, range));
        self.series(&format!("/api/v1/query?time={:.3}&query={query}", range.to))
    }

    /// The series of an expression, a point per second.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn range(&self, expression: &str, range: Range) -> Result<Vec<Series>, String> {
        let query = encode(&substituted(expression, range));
        let Range { from, to } = range;
        self.series(&format!("/api/v1/query_range?start={from:.3}&end={to:.3}&step=1&query={query}"))
    }

    fn label_values(&self, selector: &str, label: &str, range: Range) -> Result<Vec<String>, String> {
        let selector = encode(&substituted(selector, range));
        let Range { from, to } = range;
        let values =
            self.get(&format!("/api/v1/label/{label}/values?start={from:.3}&end={to:.3}&match[]={selector}"))?;
        serde_json::from_value(values).map_err(|error| error.to_string())
    }

    /// How many series (or values of a label) a query has of which something can be drawn.
    ///
    /// # Errors
    /// As [`get`](Self::get); a variable that is not `label_values(SELECTOR, LABEL)`.
    pub fn count(&self, query: &Query, range: Range) -> Result<usize, String> {
        // Grafana draws a region where an annotation's value is above 0.
        let positive = matches!(query.place, Place::Annotation(_));
        let series = match &query.place {
            Place::Variable(_) => {
                let (selector, label) = label_values(&query.text).ok_or("not label_values(SELECTOR, LABEL)")?;
                return Ok(self.label_values(selector, label, range)?.len());
            }
            _ if query.instant => self.instant(&query.text, range)?,
            _ => self.range(&query.text, range)?,
        };
        let drawn = |value: f64| value.is_finite() && (value > 0.0 || !positive);
        Ok(series.iter().filter(|series| series.points.iter().any(|(_, value)| drawn(*value))).count())
    }
}

/// With values for Grafana's variables: everything picked, a scrape interval of 1 s.
fn substituted(text: &str, range: Range) -> String {
    let shown = format!("{:.0}s", (range.to - range.from).max(1.0).ceil());
    let values = [
        ("$__rate_interval", "4s"),
        ("$__interval", "1s"),
        ("$__range", &shown),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$run", ".+"),
        ("$quantity", "served-ratio"),
        ("${datasource}", "prometheus"),
    ];
    values.into_iter().fold(text.to_owned(), |text, (variable, value)| text.replace(variable, value))
}

/// Everything but letters and digits, for a query string.
fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_of_a_board_has_a_variable_without_a_value() {
        for board in crate::json().expect("boards become JSON") {
            for query in crate::queries::of(&board) {
                let text = substituted(&query.text, Range { from: 0.0, to: 90.2 });
                assert!(!text.contains('$'), "{text}");
                assert_eq!(query.text.contains("[$__range]"), text.contains("[91s]"), "{text}");
            }
        }
    }

    #[test]
    fn a_query_string_holds_no_other_characters() {
        assert_eq!(encode("up{job=\"a b\"}"), "up%7Bjob%3D%22a%20b%22%7D");
    }
}
