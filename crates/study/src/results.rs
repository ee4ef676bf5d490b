//! What a run leaves behind, one line of `trials.jsonl` per trial. Everything else in a results directory can be
//! made again from these lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::Warning;

use crate::condition::Condition;
use crate::ledger::Ledger;

/// One trial: one cell run once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// Position in the run's order, from 0.
    pub trial: usize,
    /// How often it was run before without counting. One record of a position counts at most, and it is the last.
    #[serde(default)]
    pub retry: usize,
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
    /// The program that ran in the server's place, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The server's last snapshot; of an attached trial what its window adds. Of a [`target`](Self::target) it holds what the
    /// kernel knows: there are no acceptors, and `opts` mean nothing.
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

    /// The books that the server itself kept; `None` of a target, which keeps none that we can read.
    pub fn own_books(&self) -> Option<&server::Snapshot> {
        self.target.is_none().then_some(&self.server)
    }
}

/// A program that is not ours in the server's place (`[target]`), as it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// The command, every placeholder filled in.
    pub command: Vec<String>,
    /// The port at which its listeners were looked at.
    pub port: u16,
    /// Its settings by their full names (`target.values.backlog`), the templates of its files among them.
    pub settings: BTreeMap<String, String>,
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

/// How a run went: `run.json` beside its trials, written when a runner takes it up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Course {
    /// What cells had to satisfy to be run; without any, all were.
    pub only: Vec<Condition>,
    /// Every runner that took it up, in order: one, unless it was resumed.
    pub sessions: Vec<Session>,
}

/// One runner's part of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    /// When it began (UTC).
    pub started: Timestamp,
    /// Version of the program.
    pub version: String,
    /// Its commit, or `unknown`.
    pub revision: String,
    /// What was not as it was when the run began.
    pub warnings: Vec<Warning>,
}

impl Course {
    /// What a reader of the results has to know of it, a sentence each; `run` of `all` cells were to be run.
    pub fn notes(&self, run: usize, all: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.only.is_empty() {
            let only = self.only.iter().map(|condition| format!("`{condition}`")).collect::<Vec<_>>().join(" and ");
            notes.push(format!("This was a part: only the cells with {only} were run, {run} of {all}."));
        }
        let resumed = self.sessions.len().saturating_sub(1);
        let mut warnings: Vec<&Warning> = Vec::new();
        for warning in self.sessions.iter().flat_map(|session| &session.warnings) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        if resumed > 0 {
            let times = if resumed == 1 { "once".to_owned() } else { format!("{resumed} times") };
            let same = if warnings.is_empty() { ", on the same kernel and CPUs with the same program" } else { "" };
            notes.push(format!("Resumed {times}{same}."));
        }
        notes.extend(warnings.iter().map(|warning| format!("{}; {}.", warning.cause, warning.hint)));
        notes
    }
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

impl Timings {
    /// All of it, s.
    pub fn seconds(&self) -> f64 {
        (self.set_up_ms + self.load_ms + self.drain_ms + self.tear_down_ms) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(warnings: Vec<Warning>) -> Session {
        Session { started: Timestamp::UNIX_EPOCH, version: "1.0.0".to_owned(), revision: "abc".to_owned(), warnings }
    }

    #[test]
    fn a_whole_run_in_one_go_needs_no_words() {
        assert!(Course { only: Vec::new(), sessions: vec![session(vec![])] }.notes(9, 9).is_empty());
        assert!(Course::default().notes(9, 9).is_empty(), "results of an older version");
    }

    #[test]
    fn a_part_names_its_conditions_and_a_resumed_run_what_differed() {
        let only = ["server.backlog = 16", "loadgen.rate > 2k"].map(|text| text.parse().unwrap()).to_vec();
        let moved = Warning::new("resumed-elsewhere", "kernel 6.1 → 6.2", "compare");
        let sessions = vec![session(vec![]), session(vec![]), session(vec![moved.clone()]), session(vec![moved])];
        let notes = Course { only, sessions }.notes(3, 9);
        let part =
            "This was a part: only the cells with `server.backlog = 16` and `loadgen.rate > 2000` were run, 3 of 9.";
        assert_eq!(notes, [part, "Resumed 3 times.", "kernel 6.1 → 6.2; compare."]);
        let plain = Course { only: Vec::new(), sessions: vec![session(vec![]), session(vec![])] };
        assert_eq!(plain.notes(9, 9), ["Resumed once, on the same kernel and CPUs with the same program."]);
    }

    #[test]
    fn a_record_without_a_retry_is_a_first_run() {
        let mut record = serde_json::to_value(crate::testing::trial(0)).unwrap();
        record.as_object_mut().unwrap().remove("retry");
        assert_eq!(serde_json::from_value::<Trial>(record).unwrap().retry, 0);
    }
}
