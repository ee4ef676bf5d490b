//! Expectations: a condition that an experiment's author says every valid trial satisfies. They make an experiment a
//! test of the claims it illustrates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionError};
use crate::design::Design;
use crate::results::Trial;

/// One `[[expect]]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expectation {
    /// What holds in every valid trial.
    pub that: Condition,
    /// The cells it is about; all without it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<Condition>,
}

/// What became of an expectation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// The expectation.
    pub expectation: Expectation,
    /// How it ended.
    pub judgement: Judgement,
    /// Valid trials it was evaluated on.
    pub trials: usize,
    /// The trials in which it failed.
    pub failures: Vec<Failure>,
    /// Cells it is about that have no valid trial, in words.
    pub untested: Vec<String>,
}

/// How an expectation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// It holds in every valid trial, and every cell it is about has one.
    Holds,
    /// It failed in a valid trial.
    Fails,
    /// It failed nowhere, but a cell it is about has no valid trial, or it is about no cell.
    Untested,
}

/// A trial in which an expectation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// Its position in the run.
    pub trial: usize,
    /// Its cell in words.
    pub name: String,
    /// What was found, in words.
    pub found: String,
}

impl Outcome {
    /// Evaluates one expectation over the valid trials.
    ///
    /// # Errors
    /// [`ConditionError`] when a name in it does not exist, even if no trial needs it.
    pub fn of(expectation: &Expectation, design: &Design, trials: &[Trial]) -> Result<Self, ConditionError> {
        expectation.that.check_quantities()?;
        let mut outcome = Self {
            expectation: expectation.clone(),
            judgement: Judgement::Holds,
            trials: 0,
            failures: Vec::new(),
            untested: Vec::new(),
        };
        let mut cells = 0;
        for cell in &design.cells {
            let of_cell: Vec<&Trial> = trials.iter().filter(|trial| trial.cell == cell.index).collect();
            let matches = match (&expectation.cells, of_cell.first()) {
                (None, _) => true,
                (Some(condition), Some(trial)) => condition.matches_trial(cell, trial)?,
                (Some(condition), None) => condition.matches_cell(cell, &BTreeMap::new())?,
            };
            if !matches {
                continue;
            }
            cells += 1;
            let valid: Vec<&Trial> = of_cell.into_iter().filter(|trial| trial.is_valid()).collect();
            if valid.is_empty() {
                outcome.untested.push(design.describe(cell));
            }
            for trial in valid {
                outcome.evaluate(trial)?;
            }
        }
        outcome.judgement = match (outcome.failures.is_empty(), outcome.untested.is_empty() && cells > 0) {
            (false, _) => Judgement::Fails,
            (true, true) => Judgement::Holds,
            (true, false) => Judgement::Untested,
        };
        Ok(outcome)
    }

    fn evaluate(&mut self, trial: &Trial) -> Result<(), ConditionError> {
        self.trials += 1;
        if !self.expectation.that.holds_for_trial(trial)? {
            self.failures.push(Failure {
                trial: trial.trial,
                name: trial.name.clone(),
                found: self.expectation.that.found_in(trial),
            });
        }
        Ok(())
    }

    /// The outcome as one sentence.
    pub fn sentence(&self) -> String {
        let about = match &self.expectation.cells {
            Some(cells) => format!("`{}` where `{cells}`", self.expectation.that),
            None => format!("`{}`", self.expectation.that),
        };
        match (self.judgement, self.failures.first()) {
            (Judgement::Fails, Some(first)) => format!(
                "{about} fails in {} of {} trials, first in trial {} ({}): {}",
                self.failures.len(),
                self.trials,
                first.trial,
                first.name,
                first.found
            ),
            (Judgement::Untested, _) if self.untested.is_empty() => format!("{about} is about no cell of this design"),
            (Judgement::Untested, _) => format!("{about} is untested: no valid trial of {}", self.untested.join("; ")),
            _ => format!("{about} holds in {}", crate::format::plural(self.trials, "trial")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn expectation(that: &str, cells: Option<&str>) -> Expectation {
        Expectation { that: that.parse().unwrap(), cells: cells.map(|text| text.parse().unwrap()) }
    }

    fn backlog() -> (Design, Vec<Trial>) {
        let design = testing::design(&[(None, vec![testing::factor("server.backlog", &["16", "128"])])]);
        let trials = testing::trials(&design, &[&[(100, 1), (300, 1)], &[(1000, 1), (1000, 1)]]);
        (design, trials)
    }

    #[test]
    fn an_expectation_is_about_the_cells_it_names() {
        let (design, trials) = backlog();
        let holds =
            Outcome::of(&expectation("served-ratio < 50 %", Some("server.backlog = 16")), &design, &trials).unwrap();
        assert_eq!((holds.judgement, holds.trials), (Judgement::Holds, 2));
        assert_eq!(holds.sentence(), "`served-ratio < 50 %` where `server.backlog = 16` holds in 2 trials");
    }

    #[test]
    fn one_failing_trial_fails_it_and_is_named() {
        let (design, trials) = backlog();
        let fails = Outcome::of(&expectation("served-ratio != 30 %", None), &design, &trials).unwrap();
        assert_eq!((fails.judgement, fails.trials, fails.failures.len()), (Judgement::Fails, 4, 1));
        assert_eq!(
            fails.sentence(),
            "`served-ratio != 30 %` fails in 1 of 4 trials, first in trial 1 (backlog 16): served-ratio 30.0 %"
        );
    }

    #[test]
    fn invalid_trials_do_not_count_and_a_cell_without_valid_ones_is_untested() {
        let (design, mut trials) = backlog();
        trials[1].invalid.push("the generator was the bottleneck".to_owned());
        let holds = Outcome::of(&expectation("served-ratio != 30 %", None), &design, &trials).unwrap();
        assert_eq!((holds.judgement, holds.trials), (Judgement::Holds, 3));
        trials[0].invalid.push("the generator was the bottleneck".to_owned());
        let untested = Outcome::of(&expectation("served-ratio > 0", None), &design, &trials).unwrap();
        assert_eq!((untested.judgement, untested.untested), (Judgement::Untested, vec!["backlog 16".to_owned()]));
    }

    #[test]
    fn an_expectation_about_no_cell_does_not_hold() {
        let (design, trials) = backlog();
        let nowhere =
            Outcome::of(&expectation("served-ratio > 0", Some("server.backlog = 17")), &design, &trials).unwrap();
        assert_eq!(nowhere.judgement, Judgement::Untested);
        assert!(nowhere.sentence().ends_with("is about no cell of this design"), "{}", nowhere.sentence());
    }

    #[test]
    fn names_are_checked_before_any_trial() {
        let error = Outcome::of(&expectation("overflow > 0", None), &Design::default(), &[]).unwrap_err();
        assert!(error.to_string().contains("did you mean `overflows`?"), "{error}");
    }

    #[test]
    fn the_file_says_that_and_where() {
        let json = r#"{"that":"overflows > 0","where":"server.backlog = 16"}"#;
        let read: Expectation = serde_json::from_str(json).unwrap();
        assert_eq!(read, expectation("overflows > 0", Some("server.backlog = 16")));
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }
}
