//! Which cells of an experiment are run: all of them, or those that satisfy the conditions of a command line.

use study::condition::{Condition, ConditionError};
use study::design::{Cell, Design};
use thiserror::Error;

use super::Experiment;

/// A part of an experiment; the whole is one, too.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What its cells satisfy; empty for the whole.
    pub only: Vec<Condition>,
    /// Their indices, in order.
    pub cells: Vec<usize>,
}

/// Why conditions make no part of an experiment.
#[derive(Debug, Error)]
pub enum PartError {
    /// A condition asks for what is no setting.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// No cell is left.
    #[error("`{0}` matches no cell{1}; name settings and levels of the factors (acceptbench check lists the cells)")]
    Nothing(Condition, &'static str),
}

impl Part {
    /// All cells.
    pub(super) fn whole(design: &Design) -> Self {
        Self { only: Vec::new(), cells: design.cells.iter().map(|cell| cell.index).collect() }
    }

    /// Was no cell left out by a condition?
    pub fn is_whole(&self) -> bool {
        self.only.is_empty()
    }
}

impl Experiment {
    /// Leaves out every cell that does not satisfy all of these conditions on settings.
    ///
    /// # Errors
    /// A name that is no setting; no cell that satisfies them.
    pub fn select(&mut self, only: &[Condition]) -> Result<(), PartError> {
        for condition in only {
            condition.check_settings()?;
            let before = self.part.cells.len();
            let mut cells = Vec::new();
            for index in &self.part.cells {
                if self.satisfies(&self.design.cells[*index], condition)? {
                    cells.push(*index);
                }
            }
            if cells.is_empty() {
                let left = if before < self.design.cells.len() { " that the other conditions leave" } else { "" };
                return Err(PartError::Nothing(condition.clone(), left));
            }
            self.part.cells = cells;
            self.part.only.push(condition.clone());
        }
        Ok(())
    }

    fn satisfies(&self, cell: &Cell, condition: &Condition) -> Result<bool, ConditionError> {
        condition.matches_cell(cell, &self.resolved[cell.index].effective())
    }

    /// The design with the cells of the part only; their indices are as they were.
    pub fn design_of_part(&self) -> Design {
        let mut design = self.design.clone();
        design.cells.retain(|cell| self.part.cells.contains(&cell.index));
        design
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment() -> Experiment {
        let text = r#"
            [experiment]
            name = "part"
            question = "which?"
            [server]
            acceptors = 2
            [[factor]]
            set = "server.backlog"
            to = [16, 128, 1024]
            [[factor]]
            set = "loadgen.rate"
            to = [100, 200]
        "#;
        Experiment::parse("part.toml", text).expect("valid")
    }

    fn selected(only: &[&str]) -> Result<Vec<usize>, String> {
        let mut experiment = experiment();
        let only: Vec<Condition> = only.iter().map(|text| text.parse().expect("a condition")).collect();
        experiment.select(&only).map_err(|error| error.to_string())?;
        assert_eq!(experiment.trials(), 3 * experiment.part.cells.len());
        assert_eq!(experiment.part.is_whole(), only.is_empty());
        assert_eq!(experiment.design_of_part().cells.len(), experiment.part.cells.len());
        Ok(experiment.part.cells)
    }

    #[test]
    fn every_condition_must_hold() {
        assert_eq!(selected(&[]), Ok(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(selected(&["server.backlog = 128"]), Ok(vec![2, 3]));
        assert_eq!(selected(&["server.backlog >= 128", "loadgen.rate = 200"]), Ok(vec![3, 5]));
        assert_eq!(selected(&["server.backlog >= 128 and loadgen.rate = 200"]), Ok(vec![3, 5]));
        assert_eq!(selected(&["server.acceptors = 2"]), Ok(vec![0, 1, 2, 3, 4, 5]), "what all cells share counts, too");
    }

    #[test]
    fn a_condition_that_leaves_nothing_is_named() {
        let error = selected(&["server.backlog = 17"]).expect_err("no such level");
        assert!(error.starts_with("`server.backlog = 17` matches no cell; name settings"), "{error}");
        let error = selected(&["server.backlog = 16", "server.backlog = 128"]).expect_err("not both");
        assert!(error.starts_with("`server.backlog = 128` matches no cell that the other conditions leave"), "{error}");
        let error = selected(&["backlog = 16"]).expect_err("no setting");
        assert!(error.contains("`backlog` is not a setting"), "{error}");
    }
}
