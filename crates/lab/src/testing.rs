//! Experiments and records for tests: nothing is run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use study::ledger::Ledger;
use study::results::{Timings, Topology, Trial};

use crate::experiment::Experiment;
use crate::schedule::Planned;

/// An experiment over levels of the backlog; `header` is more of its `[experiment]` table.
pub(crate) fn experiment(header: &str, backlogs: &[&str]) -> Experiment {
    let text = format!(
        "[experiment]\nname = \"test\"\nquestion = \"which?\"\n{header}\n[[factor]]\nset = \"server.backlog\"\nto = [{}]\n",
        backlogs.join(", ")
    );
    Experiment::parse("test.toml", &text).expect("a valid experiment")
}

/// The record of a trial in which nothing happened.
pub(crate) fn trial(planned: Planned, counts: bool) -> Trial {
    Trial {
        trial: planned.trial,
        retry: planned.retry,
        block: planned.block,
        cell: planned.cell,
        name: String::new(),
        settings: BTreeMap::new(),
        started: Timestamp::UNIX_EPOCH,
        topology: Topology::Veth,
        timings: Timings::default(),
        sysctls: BTreeMap::new(),
        target: None,
        server: server::Snapshot::default(),
        loadgen: loadgen::Snapshot::default(),
        ledger: Ledger::default(),
        invalid: if counts { Vec::new() } else { vec!["the test says so".to_owned()] },
        warnings: Vec::new(),
    }
}
