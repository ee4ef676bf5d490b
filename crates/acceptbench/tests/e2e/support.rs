//! What the tests share: a directory and a command of their own each, and stored trials read back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use study::results::Trial;
use tempfile::TempDir;

/// One measurement at a time: two would be each other's noise.
static MACHINE: RwLock<()> = RwLock::new(());

/// The machine, for as long as the guard lives.
pub(crate) fn machine() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A part of the machine: for what is neither noise to others of its kind nor minds theirs, in a network of its own.
pub(crate) fn part_of_the_machine() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// The built program with a clean environment.
pub(crate) fn acceptbench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptbench"));
    command.env_clear();
    command
}

/// A directory that goes with the test.
pub(crate) struct Lab {
    directory: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes an experiment file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a file in a temporary directory");
        path
    }

    /// `acceptbench ARGS` in this directory, run to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        acceptbench().args(args).current_dir(self.path()).output().expect("the built program starts")
    }

    /// Runs an experiment and returns its trials; the program must end with 0.
    pub(crate) fn trials(&self, experiment: &str) -> Vec<Trial> {
        let (code, trials, said) = self.try_trials(experiment);
        assert_eq!(code, Some(0), "{said}");
        trials
    }

    /// Runs an experiment; exit code, each trial once, and what it said.
    pub(crate) fn try_trials(&self, experiment: &str) -> (Option<i32>, Vec<Trial>, String) {
        self.file("experiment.toml", experiment);
        let output = self.run(&["run", "experiment.toml", "--admin", "off"]);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        (output.status.code(), last_of_each(self.records()), said)
    }

    /// Every record of the latest run, those that do not count included.
    pub(crate) fn records(&self) -> Vec<Trial> {
        records(&self.path().join("results/latest"))
    }
}

/// Every record of a run, in the order in which they were written; none of a run that kept none.
pub(crate) fn records(directory: &Path) -> Vec<Trial> {
    let lines = fs::read_to_string(directory.join("trials.jsonl")).unwrap_or_default();
    lines.lines().map(|line| serde_json::from_str(line).expect("a trial")).collect()
}

/// The last record of each place in the run's order: on a busy machine a trial may not count, and is repeated.
pub(crate) fn last_of_each(records: Vec<Trial>) -> Vec<Trial> {
    let places: BTreeMap<usize, Trial> = records.into_iter().map(|record| (record.trial, record)).collect();
    places.into_values().collect()
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs an experiment; every trial must balance, line by line.
pub(crate) fn balanced(experiment: &str) -> Vec<Trial> {
    balanced_with(machine(), experiment)
}

/// [`balanced`] with as much of the machine as it needs.
pub(crate) fn balanced_with<G>(_machine: G, experiment: &str) -> Vec<Trial> {
    let (_, trials, said) = Lab::new().try_trials(experiment);
    assert!(!trials.is_empty(), "{said}");
    for trial in &trials {
        for line in &trial.ledger.lines {
            assert_eq!(line.residual, 0, "{} line {}: {}", trial.name, line.number, line.equation);
        }
    }
    trials
}

/// Splitmix64: the same moments in every run of the tests.
pub(crate) fn random(seed: u64, below: u64) -> u64 {
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % below
}
