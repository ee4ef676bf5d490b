//! Conditions, in one grammar everywhere: `METRIC OP VALUE`, joined by `and`. Under `that` and `while` the names are
//! quantities of a trial, under `where` and `baseline` they are settings.
//!
//! ```text
//! condition  = comparison { "and" comparison }
//! comparison = NAME ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) VALUE
//! VALUE      = 16 | 2.5k | 12 % | 50ms | any words
//! ```
//! It refuses `or`, parentheses and arithmetic: what needs them is two conditions.

mod parse;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use crate::design::Cell;
use crate::quantity::{Quantity, UnknownQuantity};
use crate::results::Trial;
use crate::settings::{self, PREFIXES};
pub use parse::ParseError;
pub use value::Value;

/// One or more comparisons that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    comparisons: Vec<Comparison>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// A quantity or a setting.
    pub name: String,
    /// How they are compared.
    pub operator: Operator,
    /// What it is compared with.
    pub value: Value,
}

/// How a name and a value are compared. Numbers are equal up to 1e-9 of the greater, since `12 %` is not 0.12 exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// A condition that parses, but asks for something that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// The name of no quantity.
    #[error("evaluate `{condition}`: {source}")]
    Quantity {
        /// The condition.
        condition: String,
        /// What is wrong with the name.
        source: UnknownQuantity,
    },
    /// A quantity compared with a word.
    #[error("evaluate `{condition}`: `{name}` is a number, `{value}` is none; write a number, `12 %` or `50ms`")]
    Word {
        /// The condition.
        condition: String,
        /// The quantity.
        name: String,
        /// The word.
        value: String,
    },
    /// The name of no setting.
    #[error(
        "evaluate `{condition}`: `{name}` is not a setting; settings begin with server., loadgen., half-open. or sysctl., e.g. server.backlog"
    )]
    Setting {
        /// The condition.
        condition: String,
        /// The name.
        name: String,
    },
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`ParseError`] names the position and what was expected there.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::condition(text).map(|comparisons| Self { comparisons })
    }

    /// Its comparisons; at least one.
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }

    /// Can it be evaluated on a trial? For checking a file before anything runs.
    ///
    /// # Errors
    /// [`ConditionError::Quantity`] or [`ConditionError::Word`].
    pub fn check_quantities(&self) -> Result<(), ConditionError> {
        self.comparisons.iter().try_for_each(|comparison| self.quantity(comparison).map(drop))
    }

    /// Can it be matched against settings? For checking a file before anything runs.
    ///
    /// # Errors
    /// [`ConditionError::Setting`].
    pub fn check_settings(&self) -> Result<(), ConditionError> {
        self.comparisons.iter().try_for_each(|comparison| self.setting_name(comparison))
    }

    /// Does it hold in a trial? A quantity without a value (the latency of nothing) satisfies no comparison, not even
    /// `!=`.
    ///
    /// # Errors
    /// [`ConditionError::Quantity`] or [`ConditionError::Word`], whatever the figures.
    pub fn holds_for_trial(&self, trial: &Trial) -> Result<bool, ConditionError> {
        let mut holds = true;
        for comparison in &self.comparisons {
            let (quantity, wanted) = self.quantity(comparison)?;
            holds &= quantity.of(trial).is_some_and(|found| comparison.operator.holds(found, wanted));
        }
        Ok(holds)
    }

    /// Does it match a cell? A setting is looked up in the cell, then in `effective` (what was in force, under the same
    /// names). Compared as numbers where both sides are numbers, times or rates, as text otherwise. A setting without a
    /// value satisfies no comparison.
    ///
    /// # Errors
    /// [`ConditionError::Setting`] for a name that cannot be a setting.
    pub fn matches_cell(&self, cell: &Cell, effective: &BTreeMap<String, String>) -> Result<bool, ConditionError> {
        let mut matches = true;
        for comparison in &self.comparisons {
            let found = cell.settings.get(&comparison.name).or_else(|| effective.get(&comparison.name));
            if found.is_none() {
                self.setting_name(comparison)?;
            }
            matches &= found.is_some_and(|found| comparison.matches_text(found));
        }
        Ok(matches)
    }

    /// [`Self::matches_cell`] with everything known from a trial of that cell.
    ///
    /// # Errors
    /// [`ConditionError::Setting`] for a name that cannot be a setting.
    pub fn matches_trial(&self, cell: &Cell, trial: &Trial) -> Result<bool, ConditionError> {
        self.matches_cell(cell, &settings::effective(trial))
    }

    /// The values its quantities had in a trial, in words: `overflows 0, phantoms 3`. Unknown names are left out.
    pub fn found_in(&self, trial: &Trial) -> String {
        let found = |comparison: &Comparison| {
            let quantity = Quantity::named(&comparison.name).ok()?;
            let value = quantity.of(trial).map(|value| crate::format::value(value, quantity.unit));
            Some(format!("{} {}", quantity.name, value.as_deref().unwrap_or("has no value")))
        };
        self.comparisons.iter().filter_map(found).collect::<Vec<_>>().join(", ")
    }

    fn quantity(&self, comparison: &Comparison) -> Result<(&'static Quantity, f64), ConditionError> {
        let quantity = Quantity::named(&comparison.name)
            .map_err(|source| ConditionError::Quantity { condition: self.to_string(), source })?;
        let number = comparison.value.number().ok_or_else(|| ConditionError::Word {
            condition: self.to_string(),
            name: comparison.name.clone(),
            value: comparison.value.to_string(),
        })?;
        Ok((quantity, number))
    }

    fn setting_name(&self, comparison: &Comparison) -> Result<(), ConditionError> {
        if PREFIXES.iter().any(|prefix| comparison.name.starts_with(prefix)) {
            return Ok(());
        }
        Err(ConditionError::Setting { condition: self.to_string(), name: comparison.name.clone() })
    }
}

impl Comparison {
    fn matches_text(&self, found: &str) -> bool {
        let found = Value::read(found);
        match (found.number(), self.value.number()) {
            (Some(found), Some(wanted)) => self.operator.holds(found, wanted),
            _ => match self.operator {
                Operator::Equal => found == self.value,
                Operator::NotEqual => found != self.value,
                // Words have no order.
                _ => false,
            },
        }
    }
}

impl Operator {
    /// All of them, a longer symbol before its own beginning.
    const ALL: [Self; 6] = [Self::NotEqual, Self::AtMost, Self::AtLeast, Self::Equal, Self::Less, Self::Greater];

    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    fn holds(self, found: f64, wanted: f64) -> bool {
        let equal = (found - wanted).abs() <= 1e-9 * found.abs().max(wanted.abs());
        match self {
            Self::Equal => equal,
            Self::NotEqual => !equal,
            Self::Less => found < wanted && !equal,
            Self::AtMost => found < wanted || equal,
            Self::Greater => found > wanted && !equal,
            Self::AtLeast => found > wanted || equal,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, comparison) in self.comparisons.iter().enumerate() {
            let joint = if index == 0 { "" } else { " and " };
            write!(f, "{joint}{} {} {}", comparison.name, comparison.operator.symbol(), comparison.value)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Condition {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
telemetry::string_serde!(Condition, "a condition as text, e.g. \"overflows > 0\"");

#[cfg(test)]
mod tests;
