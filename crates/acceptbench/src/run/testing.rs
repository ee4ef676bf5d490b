//! An experiment and records for tests: nothing is run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lab::Experiment;
use study::ledger::Ledger;
use study::results::{Timings, Topology, Trial};

/// Two cells, three times each; the second measures 2 s, the first 1 s.
pub(crate) fn two_cells() -> Experiment {
    let text = r#"
        [experiment]
        name = "two"
        question = "which?"
        order = "as-written"
        [loadgen]
        deadline = "800ms"
        [[factor]]
        set = "experiment.measure"
        to = ["1s", "2s"]
    "#;
    Experiment::parse("two.toml", text).expect("a valid experiment")
}

/// The record of a trial in which nothing happened, but for the time it took.
pub(crate) fn record(trial: usize, cell: usize, seconds: f64) -> Trial {
    Trial {
        trial,
        retry: 0,
        block: trial / 2,
        cell,
        name: format!("measure {}s", cell + 1),
        settings: BTreeMap::new(),
        started: Timestamp::UNIX_EPOCH,
        topology: Topology::Veth,
        timings: Timings { load_ms: seconds * 1e3, ..Timings::default() },
        sysctls: BTreeMap::new(),
        target: None,
        server: ::server::Snapshot::default(),
        loadgen: ::loadgen::Snapshot::default(),
        ledger: Ledger::default(),
        invalid: Vec::new(),
        warnings: Vec::new(),
    }
}
