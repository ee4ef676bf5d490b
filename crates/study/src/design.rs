//! What is varied: grids of factors, and the cells they span. The lab makes a [`Design`] from an experiment
//! file; everything here reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All cells of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Design {
    /// The main grid first (without a name), then the others.
    pub grids: Vec<Grid>,
    /// Every cell, in the order of its index.
    pub cells: Vec<Cell>,
}

/// A full cross of factors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Grid {
    /// `None` for the main grid.
    pub name: Option<String>,
    /// Rows before columns: the last factor varies fastest.
    pub factors: Vec<Factor>,
}

/// One thing that is varied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Factor {
    /// How it is called in tables: the setting's short name, e.g. `somaxconn`.
    pub label: String,
    /// Its levels in the order of the file.
    pub levels: Vec<Level>,
}

/// One level of a factor: one setting, or several that go together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Level {
    /// How it is called in tables, e.g. `128`.
    pub label: String,
    /// Full setting name (`sysctl.net.core.somaxconn`, `server.backlog`) to value as text.
    pub settings: BTreeMap<String, String>,
}

/// One combination of levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cell {
    /// Position in [`Design::cells`].
    pub index: usize,
    /// Position of its grid in [`Design::grids`].
    pub grid: usize,
    /// Level of each factor of its grid.
    pub levels: Vec<usize>,
    /// What makes this cell: the settings of its levels, and those its grid sets for all its cells. A condition's
    /// `where` is matched against these, then against the effective options.
    pub settings: BTreeMap<String, String>,
}

impl Factor {
    /// One of its levels in words: `somaxconn 128`.
    pub(crate) fn at(&self, level: usize) -> String {
        format!("{} {}", self.label, self.levels[level].label)
    }
}

impl Grid {
    /// Levels of its factors in words: `somaxconn 128, backlog 16`.
    pub(crate) fn at(&self, levels: &[usize]) -> String {
        levels_of(self.factors.iter().zip(levels.iter().copied()))
    }
}

/// Levels of factors in words.
pub(crate) fn levels_of<'a>(levels: impl Iterator<Item = (&'a Factor, usize)>) -> String {
    levels.map(|(factor, level)| factor.at(level)).collect::<Vec<_>>().join(", ")
}

impl Design {
    /// The cells of one grid, in order.
    pub fn cells_of(&self, grid: usize) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.grid == grid)
    }

    /// A cell in words: `somaxconn 128, backlog 16`, after the grid's name if it has one.
    pub fn describe(&self, cell: &Cell) -> String {
        let grid = &self.grids[cell.grid];
        let levels = grid.at(&cell.levels);
        match (&grid.name, levels.is_empty()) {
            (Some(name), true) => name.clone(),
            (Some(name), false) => format!("{name}: {levels}"),
            (None, true) => "the only cell".to_owned(),
            (None, false) => levels,
        }
    }
}
