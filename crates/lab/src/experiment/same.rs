//! Are two runs of the same experiment? Their cells say so: the same levels with everything else alike. How often they were
//! run, in which order and from which seed does not matter, nor what was asked about them.

use std::collections::{BTreeMap, BTreeSet};

use super::Experiment;
use crate::settings::Resolved;

/// What two experiments have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Cells alike in everything, by their indices in the one and in the other.
    pub cells: Vec<(usize, usize)>,
    /// What is not alike, in words; empty for the same experiment.
    pub differences: Vec<String>,
}

impl Common {
    /// Of two experiments, called A and B.
    pub fn of(a: &Experiment, b: &Experiment) -> Self {
        let mut common = Self::default();
        if a.name != b.name {
            common.differences.push(format!("A is `{}`, B is `{}`", a.name, b.name));
        }
        if a.place.topology() != b.place.topology() {
            let (a, b) = (a.place.topology().name(), b.place.topology().name());
            common.differences.push(format!("topology is {a} in A and {b} in B"));
            return common;
        }
        let others: BTreeMap<Key<'_>, usize> = keys(b).collect();
        let mut unlike: BTreeMap<String, (String, usize)> = BTreeMap::new();
        let mut alone = Vec::new();
        for (key, cell) in keys(a) {
            let Some(other) = others.get(&key).copied() else {
                alone.push(("A", describe(a, cell)));
                continue;
            };
            let unequal = unequal(&a.resolved[cell], &b.resolved[other]);
            if unequal.is_empty() {
                common.cells.push((cell, other));
            }
            for (setting, difference) in unequal {
                let entry = unlike.entry(setting).or_insert((difference, 0));
                entry.1 += 1;
            }
        }
        let own: BTreeMap<Key<'_>, usize> = keys(a).collect();
        alone.extend(keys(b).filter(|(key, _)| !own.contains_key(key)).map(|(_, cell)| ("B", describe(b, cell))));
        for (setting, (difference, cells)) in unlike {
            let cells = study::format::plural(cells, "cell");
            common.differences.push(format!("{setting} is {difference} ({cells})"));
        }
        common.differences.extend(alone.into_iter().map(|(run, cell)| format!("only {run} has the cell {cell}")));
        common
    }
}

/// What makes a cell: the name of its grid, and its settings.
type Key<'a> = (Option<&'a str>, &'a BTreeMap<String, String>);

fn keys(experiment: &Experiment) -> impl Iterator<Item = (Key<'_>, usize)> {
    let grids = &experiment.design.grids;
    experiment.design.cells.iter().map(|cell| ((grids[cell.grid].name.as_deref(), &cell.settings), cell.index))
}

fn describe(experiment: &Experiment, cell: usize) -> String {
    experiment.design.describe(&experiment.design.cells[cell])
}

/// Settings in which two cells differ, with both values.
fn unequal(a: &Resolved, b: &Resolved) -> Vec<(String, String)> {
    let (a, b) = (a.effective(), b.effective());
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "not set".to_owned());
    names
        .into_iter()
        // Seeds are the run's.
        .filter(|name| !matches!(name.as_str(), "server.seed" | "loadgen.seed") && a.get(*name) != b.get(*name))
        .map(|name| {
            let difference = if name.starts_with("target.files.") && a.contains_key(name) && b.contains_key(name) {
                "another text in A than in B".to_owned()
            } else {
                format!("{} in A and {} in B", shown(a.get(name)), shown(b.get(name)))
            };
            (name.clone(), difference)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        [experiment]
        name = "pair"
        question = "are they the same?"
        [loadgen]
        rate = 200
        [[factor]]
        set = "server.backlog"
        to = [4, 64]
    "#;

    fn common(piece: &str, other: &str) -> Common {
        assert!(BASE.contains(piece), "{piece}");
        let parse = |text: &str| Experiment::parse("pair.toml", text).expect("valid");
        Common::of(&parse(BASE), &parse(&BASE.replace(piece, other)))
    }

    #[test]
    fn how_often_and_in_which_order_does_not_matter() {
        let same = common("[loadgen]", "replicates = 9\nseed = 5\norder = \"as-written\"\n[loadgen]");
        assert_eq!(same, Common { cells: vec![(0, 0), (1, 1)], differences: Vec::new() });
    }

    #[test]
    fn what_is_not_alike_is_named_once_with_both_values() {
        let rate = common("rate = 200", "rate = 300");
        assert_eq!(rate.cells, []);
        assert_eq!(rate.differences, ["loadgen.rate is 200.0 in A and 300.0 in B (2 cells)"]);
        let levels = common("[4, 64]", "[64, 256]");
        assert_eq!(levels.cells, [(1, 0)]);
        assert_eq!(levels.differences, ["only A has the cell backlog 4", "only B has the cell backlog 256"]);
        let name = common("\"pair\"", "\"other\"");
        assert_eq!((name.cells.len(), name.differences), (2, vec!["A is `pair`, B is `other`".to_owned()]));
        let place = common("[loadgen]", "topology = \"loopback\"\n[loadgen]");
        assert_eq!(
            (place.cells.len(), place.differences),
            (0, vec!["topology is veth in A and loopback in B".to_owned()])
        );
        let sysctl = common("[[factor]]", "[sysctl]\n\"net.ipv4.tcp_syncookies\" = 0\n[[factor]]");
        assert_eq!(sysctl.differences, ["sysctl.net.ipv4.tcp_syncookies is not set in A and 0 in B (2 cells)"]);
    }
}
