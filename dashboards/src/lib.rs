//! Grafana dashboards and Prometheus rules, made from the metric constants of the programs they are about.
//!
//! Owns the boards ([`boards`]), the little of Grafana's classic JSON they need ([`model`]), how a query is written
//! from a [`Metric`](telemetry::exposition::Metric) ([`query`]), the rules every board keeps ([`lint`]) and what
//! Prometheus records and alerts about ([`rules`]). It refuses to write the name of a metric: a query begins with a
//! constant, so a metric that is renamed or removed does not compile. The files in `grafana/` and `prometheus/` are
//! what [`files`] says; `cargo run -p dashboards -- --check` compares. A further board is a further file in `boards/`
//! and a line in [`boards::all`].
//!
//! JSON: <https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>.

pub mod boards;
pub mod catalogue;
pub mod client;
pub mod lint;
pub mod model;
pub mod preview;
pub mod queries;
pub mod query;
pub mod rules;

/// A file as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeFile {
    /// Its directory: [`GRAFANA`] or [`PROMETHEUS`].
    pub directory: &'static str,
    /// Its name there.
    pub name: String,
    /// Its text, with a newline at its end.
    pub text: String,
}

/// Where the boards are.
pub const GRAFANA: &str = "grafana";

/// Where the rules are, as files and as a resource for Kubernetes. Their tests, `*.test.yml`, are written by hand.
pub const PROMETHEUS: &str = "prometheus";

/// Every file as it should be committed: boards in the order of [`boards::all`], then rules.
///
/// # Errors
/// Only when serde refuses to serialise a board, which no value of these types makes it do.
pub fn files() -> Result<Vec<MadeFile>, serde_json::Error> {
    let board = |board: &model::Dashboard| {
        let name = format!("{}.json", board.name());
        Ok(MadeFile { directory: GRAFANA, name, text: serde_json::to_string_pretty(board)? + "\n" })
    };
    let rules = rules::files().into_iter();
    let rules = rules.map(|(name, text)| Ok(MadeFile { directory: PROMETHEUS, name: name.to_owned(), text }));
    boards::all().iter().map(board).chain(rules).collect()
}

/// Every board as JSON, in the order of [`boards::all`].
///
/// # Errors
/// As [`files`].
pub fn json() -> Result<Vec<serde_json::Value>, serde_json::Error> {
    boards::all().iter().map(serde_json::to_value).collect()
}
