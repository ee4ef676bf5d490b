//! What a run leaves behind, one line of `trials.jsonl` per trial. Everything else in a results directory can be
//! made again from these lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::Warning;

use crate::ledger::Ledger;

/// One trial: one cell run once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// Position in the run's order, from 0.
    pub trial: usize,
    /// Block, from 0: every cell once per block.
    pub block: usize,
    /// Index of its cell in the design.
    pub cell: usize,
    /// The cell in words.
    pub name: String,
    /// The cell's settings.
    pub settings: BTreeMap<String, String>,
    /// When it began (UTC).
    pub started: Timestamp,
    /// How the two ends were joined.
    pub topology: Topology,
    /// What the steps around the load cost.
    pub timings: Timings,
    /// Effective sysctls of the server's namespace, read back after they were set; in an attached trial also those it set.
    pub sysctls: BTreeMap<String, String>,
    /// The server's last snapshot; of an attached trial what its window adds.
    pub server: server::Snapshot,
    /// The load generator's last snapshot; of an attached trial what its window adds, summed over the generators.
    pub loadgen: loadgen::Snapshot,
    /// The trial's accounts.
    pub ledger: Ledger,
    /// Why the trial does not count; empty when it does.
    pub invalid: Vec<String>,
    /// What deserves attention though the trial counts.
    pub warnings: Vec<Warning>,
}

impl Trial {
    /// Does it count?
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }
}

/// How server and load generator are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Two network namespaces joined by a veth pair: each end has counters of its own.
    #[default]
    Veth,
    /// One network namespace, over its loopback: both ends share counters.
    Loopback,
    /// A deployment that runs already: nothing is built, a trial is a window of its books.
    Attached,
}

impl Topology {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Loopback => "loopback",
            Self::Attached => "attached",
        }
    }
}

/// What an attached run was attached to and what it changed there: `attached.json` beside its trials, written before
/// the first change and again after the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attached {
    /// Admin address of the server, as given.
    pub server: String,
    /// Admin addresses of the load generators, as given.
    pub loadgens: Vec<String>,
    /// The tree of the server's sysctls.
    pub sysctl_path: PathBuf,
    /// What every sysctl that the run changes was before it.
    pub originals: BTreeMap<String, String>,
    /// Are they so again? False while the run goes on.
    pub restored: bool,
}

/// What the steps around the load cost, ms of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Timings {
    /// From what is to be built, told to a process that waits for it, to both ends ready; attached: from the first sysctl
    /// written to the end of the settling.
    pub set_up_ms: f64,
    /// From the start of the load to the last verdict; attached: the window, by the server's clock.
    pub load_ms: f64,
    /// From the last verdict to books that stand still.
    pub drain_ms: f64,
    /// From the end of the drain to the last process gone.
    pub tear_down_ms: f64,
}
