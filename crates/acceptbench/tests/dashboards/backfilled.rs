//! Two runs that nobody scraped, put into a Prometheus from their results: the board Experiment knows and compares
//! both.

use std::collections::BTreeSet;

use dashboards::client::Range;
use dashboards::queries::{self, Place};

use crate::ask::{Prometheus, now};
use crate::put;

/// What the board says of runs alone, without the pages of programs and without rates, which samples 15 s apart have
/// none of.
const PANELS: [&str; 10] = [
    "Trials finished",
    "Trials that do not count",
    "Books that do not balance",
    "The quantity picked, by cell and run",
    "The quantity picked, as trials came in",
    "Every quantity of every cell",
    "Runs against each other",
    "Levels of the factors",
    "Trials planned, finished, not counted, under way",
    "Residual of each line",
];

/// Plays it.
pub(crate) fn play(_required: bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    let from = now();
    let mut runs = BTreeSet::new();
    for _ in 0..2 {
        runs.insert(put::a_run(at).expect("a run"));
    }
    assert_eq!(runs.len(), 2, "{runs:?}");
    let prometheus = Prometheus::start(at, &[]);
    let range = Range { from, to: now() + 1.0 };
    prometheus.wait_for("count(count by (run) (last_over_time(acceptbench_experiment_info[5m]))) == 2", 1);

    let boards = dashboards::json().expect("boards become JSON");
    let board = boards.iter().find(|board| board["uid"] == "acceptbench-experiment").expect("the board");
    let mut asked = BTreeSet::new();
    for query in queries::of(board) {
        let meant = match &query.place {
            Place::Panel(title) => PANELS.contains(&title.as_str()),
            Place::Variable(name) => name == "run" || name == "quantity",
            Place::Annotation(name) => name == "Trials",
            Place::Board => false,
        };
        if !meant {
            continue;
        }
        let found = prometheus.count(&query, range);
        println!("{found:?}\t{} {}", query.place, query.ref_id);
        assert!(matches!(found, Ok(1..)), "{} {}: {}", query.place, query.ref_id, query.text);
        if query.place == Place::Variable("run".to_owned()) {
            assert_eq!(found, Ok(2), "both runs can be picked");
        }
        asked.insert(query.place);
    }
    assert_eq!(asked.len(), PANELS.len() + 3, "{asked:?}");
    compared(&prometheus, board, range);
}

/// Every setting was found in both runs, and the distance between them is that of their medians.
fn compared(prometheus: &Prometheus, board: &serde_json::Value, range: Range) {
    let of_panel = |ref_id: &str| {
        let place = Place::Panel("Runs against each other".to_owned());
        let query = queries::of(board).into_iter().find(|query| query.place == place && query.ref_id == ref_id);
        prometheus.instant(&query.expect("a column").text, range).expect("an answer")
    };
    let runs = of_panel("D");
    assert!(runs.len() >= 2, "a line for each cell: {runs:?}");
    assert!(runs.iter().all(|line| line.points[0].1.to_string() == "2"), "{runs:?}");
    let (lowest, highest) = (of_panel("A"), of_panel("B"));
    for apart in of_panel("C") {
        let same = |line: &&dashboards::client::Series| {
            ["factors", "quantity"].iter().all(|label| line.label(label) == apart.label(label))
        };
        let value = |lines: &[dashboards::client::Series]| lines.iter().find(same).expect("the line").points[0].1;
        let (low, high) = (value(&lowest), value(&highest));
        assert!(low <= high && (high - low - apart.points[0].1).abs() < 1e-12, "{low} to {high}: {apart:?}");
    }
}
