//! A Prometheus of the test's own, and what it answers.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::children::Running;
use crate::page;

/// A running Prometheus.
#[derive(Debug)]
pub(crate) struct Prometheus {
    addr: SocketAddr,
    /// Killed when dropped.
    _program: Running,
}

/// A sample in time: seconds since the epoch, and its value.
pub(crate) type Point = (f64, f64);

impl Prometheus {
    /// Starts one with a configuration, its data in `directory`.
    pub(crate) fn start(directory: &Path, config: &str) -> Self {
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).expect("write a configuration");
        let addr = free_address();
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

    /// The answer to an instant query: its samples, or the reason why there is none.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let body = page::fetch(self.addr, &format!("/api/v1/query?query={}", encode(expression)))?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))?;
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(body),
        }
    }

    /// The value of an expression with exactly one sample.
    pub(crate) fn value(&self, expression: &str) -> Result<f64, String> {
        let result = self.query(expression)?;
        match result.as_slice() {
            [one] => Ok(point(&one["value"]).1),
            other => Err(format!("{expression}: {} samples, {other:?}", other.len())),
        }
    }

    /// Every stored sample of a selector that picks one series.
    pub(crate) fn points(&self, selector: &str) -> Vec<Point> {
        let result = self.query(&format!("{selector}[1h]")).expect("Prometheus answers");
        assert_eq!(result.len(), 1, "{selector}: {result:?}");
        result[0]["values"].as_array().expect("a range").iter().map(point).collect()
    }

    /// Waits until an expression has exactly one sample, and returns it.
    pub(crate) fn wait_for(&self, expression: &str) -> f64 {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            match self.value(expression) {
                Ok(value) => return value,
                Err(last) if Instant::now() > end => panic!("waited in vain for {expression}: {last}"),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

fn point(pair: &Value) -> Point {
    let value = pair[1].as_str().and_then(|text| text.parse().ok());
    (pair[0].as_f64().expect("a time"), value.expect("a value"))
}

/// Everything but letters and digits, for a query string.
fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// The value of a series at an instant between two of its samples.
pub(crate) fn at(points: &[Point], time: f64) -> Option<f64> {
    let after = points.iter().position(|(t, _)| *t >= time)?;
    let (t1, v1) = points[after];
    let (t0, v0) = *points.get(after.checked_sub(1)?)?;
    Some(v0 + (v1 - v0) * (time - t0) / (t1 - t0))
}
