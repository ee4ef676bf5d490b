//! `acceptbench compare`: two results directories of one experiment, cell by cell. Nothing is run.

use std::collections::BTreeMap;
use std::path::Path;

use kernel::environment::Environment;
use lab::{Common, Stored, run_name};
use study::compare::{Comparison, Run};

use crate::cli::CompareArgs;
use crate::exit::{End, Failure};
use crate::report::{known, quantities};
use crate::terminal::{note, say};

/// Columns of the tables.
const WIDTH: usize = 80;

/// Differences between experiments that are named; more than these are counted.
const NAMED: usize = 4;

/// One of the two directories.
struct Side {
    name: String,
    stored: Stored,
    environment: BTreeMap<String, String>,
}

impl Side {
    fn read(directory: &Path) -> Result<Self, Failure> {
        let stored = Stored::read(directory).map_err(Failure::usage)?;
        if stored.trials.is_empty() {
            return Err(Failure::Usage(format!("{} holds no trial: run the experiment again", directory.display())));
        }
        let name = run_name(&stored.path);
        let environment = stored.environment.as_ref().map(described).unwrap_or_default();
        Ok(Self { name, stored, environment })
    }

    fn run(&self) -> Run<'_> {
        Run {
            name: &self.name,
            design: &self.stored.experiment.design,
            trials: &self.stored.trials,
            environment: &self.environment,
        }
    }
}

/// Compares and prints.
pub(crate) fn compare(args: &CompareArgs) -> Result<End, Failure> {
    let (a, b) = (Side::read(&args.one)?, Side::read(&args.other)?);
    if [&a, &b].iter().any(|side| side.stored.experiment.search.is_some()) {
        return Err(Failure::Usage(
            "compare holds trials of equal settings against each other, which those of a [search] are not; read the capacities \
             of both with acceptbench report"
                .to_owned(),
        ));
    }
    let common = Common::of(&a.stored.experiment, &b.stored.experiment);
    check(&common, args.common)?;
    let experiment = &a.stored.experiment;
    let (names, effect) = (quantities(experiment), experiment.compare.smallest_effect);
    let comparison = Comparison::of(&a.run(), &b.run(), &common.cells, &names, effect).map_err(Failure::usage)?;
    if args.json {
        say(&serde_json::to_string_pretty(&comparison).map_err(Failure::requirement)?);
    } else {
        say(&comparison.text(WIDTH));
    }
    Ok(End::Success)
}

/// Refuses what is not the same experiment, unless the cells of both will do.
fn check(common: &Common, only_common: bool) -> Result<(), Failure> {
    let Common { cells, differences } = common;
    if differences.is_empty() {
        return Ok(());
    }
    let mut named: Vec<String> = differences.iter().take(NAMED).cloned().collect();
    if differences.len() > NAMED {
        named.push(format!("and {} more", differences.len() - NAMED));
    }
    let named = named.join("; ");
    let alike = study::format::plural(cells.len(), "cell");
    match (cells.len(), only_common) {
        (0, _) => {
            Err(Failure::Usage(format!("A and B are not the same experiment and have no cell in common: {named}")))
        }
        (_, false) => Err(Failure::Usage(format!(
            "A and B are not the same experiment: {named}; --common compares the {alike} that are alike in both"
        ))),
        (_, true) => {
            note(&format!("not the same experiment: {named}; compared are the {alike} that are alike in both"));
            Ok(())
        }
    }
}

/// The machine as names and values, features under their own names.
fn described(environment: &Environment) -> BTreeMap<String, String> {
    let mut described = known(environment);
    for (name, feature) in &environment.features {
        let text = if feature.available { "there" } else { "not there" };
        described.insert(format!("feature {name}"), text.to_owned());
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_experiments_are_refused_with_what_differs_and_the_way_out() {
        let common = |cells: usize, differences: usize| Common {
            cells: (0..cells).map(|cell| (cell, cell)).collect(),
            differences: (0..differences).map(|number| format!("difference {number}")).collect(),
        };
        assert_eq!(check(&common(3, 0), false), Ok(()));
        assert_eq!(check(&common(3, 2), true), Ok(()));
        let refused = |cells, differences, only| match check(&common(cells, differences), only) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{other:?}"),
        };
        let text = refused(3, 6, false);
        assert!(text.contains("difference 3; and 2 more; --common compares the 3 cells"), "{text}");
        assert!(refused(0, 1, true).contains("no cell in common: difference 0"));
    }

    #[test]
    fn a_machine_is_described_with_its_features() {
        let environment = kernel::environment::collect();
        let described = described(&environment);
        assert_eq!(described.get("kernel-release"), environment.kernel_release.as_ref());
        assert_eq!(described["feature sock-diag"], "there");
    }
}
