//! A page of the text format 0.0.4: fetched, linted by promtool, and read.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use telemetry::admin::get_local;

/// The body of a page.
pub(crate) fn fetch(addr: SocketAddr, path: &str) -> Result<String, String> {
    match get_local(addr, path, Duration::from_secs(5)) {
        Ok((200, body)) => Ok(body),
        Ok((status, body)) => Err(format!("{path}: status {status}: {body}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Fails unless `promtool check metrics` has nothing to say about a page.
pub(crate) fn lint(what: &str, page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    // Dropped at the end of the statement: the end of its input.
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("write to promtool");
    let output = promtool.wait_with_output().expect("wait for promtool");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "promtool check metrics, {what}: {}\n{said}", output.status);
}

/// The samples of a page by series: name and labels as they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub(crate) fn read(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("no value: {line:?}")))
        });
        Self(samples.collect())
    }

    /// A count: one series, a whole number.
    pub(crate) fn count(&self, series: &str) -> u64 {
        let value = self.0.get(series).unwrap_or_else(|| panic!("no series {series} among {:#?}", self.0.keys()));
        whole(series, *value)
    }

    /// The sum over every series of a metric; there is at least one.
    pub(crate) fn sum(&self, metric: &str) -> u64 {
        let counts: Vec<u64> = self
            .0
            .iter()
            .filter(|(series, _)| name(series) == metric)
            .map(|(series, value)| whole(series, *value))
            .collect();
        assert!(!counts.is_empty(), "no series of {metric} among {:#?}", self.0.keys());
        counts.iter().sum()
    }

    /// How many series only ever grow.
    pub(crate) fn cumulative(&self) -> usize {
        self.0.keys().filter(|series| is_cumulative(series)).count()
    }

    /// What went down or away since an earlier look, of what may only grow.
    pub(crate) fn shrunk(&self, earlier: &Self) -> Vec<String> {
        let cumulative = earlier.0.iter().filter(|(series, _)| is_cumulative(series));
        cumulative
            .filter_map(|(series, before)| match self.0.get(series) {
                Some(now) if now >= before => None,
                now => Some(format!("{series}: {before} became {now:?}")),
            })
            .collect()
    }
}

fn whole(series: &str, value: f64) -> u64 {
    value.to_string().parse().unwrap_or_else(|_| panic!("{series} is no count: {value}"))
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

fn is_cumulative(series: &str) -> bool {
    ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name(series).ends_with(suffix))
}
