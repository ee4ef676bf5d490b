//! Grafana dashboards, made from the metric constants of the programs they show.
//!
//! Owns the boards ([`boards`]), the little of Grafana's classic JSON they need ([`model`]), how a query is written
//! from a [`Metric`](telemetry::exposition::Metric) ([`query`]) and the rules every board keeps ([`lint`]). It refuses
//! to write the name of a metric: a query begins with a constant, so a metric that is renamed or removed does not
//! compile. The files in `grafana/` are what [`files`] says; `cargo run -p dashboards -- --check` compares. A further
//! board is a further file in `boards/` and a line in [`boards::all`].
//!
//! JSON: <https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>.

pub mod boards;
pub mod catalogue;
pub mod lint;
pub mod model;
pub mod queries;
pub mod query;

/// A board as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardFile {
    /// Its name in `grafana/`.
    pub name: String,
    /// Pretty JSON with a newline at its end.
    pub text: String,
}

/// Every board as it should be committed, in the order of [`boards::all`].
///
/// # Errors
/// Only when serde refuses to serialise a board, which no value of these types makes it do.
pub fn files() -> Result<Vec<BoardFile>, serde_json::Error> {
    let file = |board: &model::Dashboard| {
        let name = format!("{}.json", board.name());
        Ok(BoardFile { name, text: serde_json::to_string_pretty(board)? + "\n" })
    };
    boards::all().iter().map(file).collect()
}

/// Every board as JSON, in the order of [`boards::all`].
///
/// # Errors
/// As [`files`].
pub fn json() -> Result<Vec<serde_json::Value>, serde_json::Error> {
    boards::all().iter().map(serde_json::to_value).collect()
}
