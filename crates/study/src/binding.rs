//! What bound each cell: the one knob that stood between its arrivals and being served, from effective values (options,
//! sysctls read back, the kernel's own view of the listener) and the counters of the valid trials.
//!
//! It never guesses. Where the counters cannot tell two causes apart, or trials of a cell say different things, the knob is
//! [`Knob::Undetermined`] and the evidence names what is missing. The rules are in `binding/rules.rs`, in the order in
//! which they are asked.

mod facts;
mod rules;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::design::Design;
use crate::format::plural;
use crate::results::Trial;

pub(crate) use facts::Facts;

/// What may bind a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    /// The argument of listen(2): the accept queue overflowed, and somaxconn would allow more.
    Backlog,
    /// `net.core.somaxconn`: the accept queue overflowed, and listen(2) was asked for more.
    Somaxconn,
    /// Both, being equal: the accept queue overflowed, and raising one of them changes nothing.
    BacklogAndSomaxconn,
    /// The SYN queue by its length: queue limit + 1 requests, cookies off.
    SynQueue,
    /// The SYN queue by `net.ipv4.tcp_max_syn_backlog`: three quarters of it and one request, cookies off.
    MaxSynBacklog,
    /// The acceptors: more arrivals than they can serve, whatever the queue holds.
    Acceptor,
    /// Local ports of the client.
    ClientPorts,
    /// The load generator: late, out of descriptors or of places in flight.
    Generator,
    /// The timer of the client's SYN: everybody was served, some only after a retry.
    SynRetry,
    /// The client's deadline: the queue held attempts for longer, though the acceptors keep up.
    Deadline,
    /// Nothing: everybody was served at the first SYN.
    Nothing,
    /// Not determined; the evidence says what is missing.
    Undetermined,
}

impl Knob {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backlog => "backlog argument",
            Self::Somaxconn => "somaxconn",
            Self::BacklogAndSomaxconn => "backlog and somaxconn alike",
            Self::SynQueue => "SYN queue",
            Self::MaxSynBacklog => "tcp_max_syn_backlog",
            Self::Acceptor => "acceptor",
            Self::ClientPorts => "client ports",
            Self::Generator => "generator",
            Self::SynRetry => "SYN retry",
            Self::Deadline => "deadline",
            Self::Nothing => "nothing",
            Self::Undetermined => "not determined",
        }
    }
}

/// What bound a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Binding {
    /// Its index in the design.
    pub cell: usize,
    /// It in words.
    pub name: String,
    /// What its valid trials say with one voice.
    pub knob: Knob,
    /// Why, in a phrase with figures; of several trials those of the one in the middle by attempts lost.
    pub evidence: String,
    /// How many valid trials say what.
    pub trials: BTreeMap<Knob, usize>,
}

/// What bound each cell that was run, in the order of the design.
pub fn of(design: &Design, trials: &[Trial]) -> Vec<Binding> {
    let cell = |cell: &crate::design::Cell| {
        let run: Vec<&Trial> = trials.iter().filter(|trial| trial.cell == cell.index).collect();
        (!run.is_empty()).then(|| Binding::of(cell.index, design.describe(cell), &run))
    };
    design.cells.iter().filter_map(cell).collect()
}

impl Binding {
    fn of(cell: usize, name: String, run: &[&Trial]) -> Self {
        let mut said: Vec<(Knob, u64, String)> = run
            .iter()
            .filter(|trial| trial.is_valid())
            .map(|trial| {
                let facts = Facts::of(trial);
                let (knob, evidence) = rules::judge(&facts);
                (knob, facts.lost(), evidence)
            })
            .collect();
        let mut trials = BTreeMap::new();
        for (knob, ..) in &said {
            *trials.entry(*knob).or_default() += 1;
        }
        said.sort_by_key(|(_, lost, _)| *lost);
        let (knob, evidence) = match (said.is_empty(), trials.len()) {
            (true, _) => without_valid_trial(run),
            (false, 1) => {
                let (knob, _, evidence) = said.swap_remove(said.len() / 2);
                (knob, evidence)
            }
            (false, _) => (Knob::Undetermined, format!("the trials disagree: {}", voices(&trials))),
        };
        Self { cell, name, knob, evidence, trials }
    }
}

/// An invalid trial says nothing of the server; that the generator was in its own way is why it is invalid.
fn without_valid_trial(run: &[&Trial]) -> (Knob, String) {
    let limits = run.iter().map(|trial| rules::generator(&Facts::of(trial))).collect::<Option<Vec<_>>>();
    match limits.and_then(|limits| limits.into_iter().next()) {
        Some((knob, evidence)) => (knob, format!("no valid trial: {evidence}")),
        None => (Knob::Undetermined, "no valid trial".to_owned()),
    }
}

fn voices(trials: &BTreeMap<Knob, usize>) -> String {
    let voice = |(knob, count): (&Knob, &usize)| format!("{} in {count}", knob.name());
    trials.iter().map(voice).collect::<Vec<_>>().join(", ")
}

/// All cells in one clause: `the backlog argument in 5 cells, somaxconn in 3, nothing in 1`; of a single cell with its
/// evidence. `None` of none.
pub fn in_words(bindings: &[Binding]) -> Option<String> {
    if let [only] = bindings {
        return Some(format!("{}: {}", only.knob.name(), only.evidence));
    }
    let mut cells = BTreeMap::<Knob, usize>::new();
    for binding in bindings {
        *cells.entry(binding.knob).or_default() += 1;
    }
    let mut counts: Vec<(Knob, usize)> = cells.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let clause = |(index, (knob, count)): (usize, &(Knob, usize))| match index {
        0 => format!("{} in {}", knob.name(), plural(*count, "cell")),
        _ => format!("{} in {count}", knob.name()),
    };
    let clauses: Vec<String> = counts.iter().enumerate().map(clause).collect();
    (!clauses.is_empty()).then(|| clauses.join(", "))
}

#[cfg(test)]
mod tests;
