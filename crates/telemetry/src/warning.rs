//! Warnings are values: shown by the command line, stored with the result, exported.

use serde::{Deserialize, Serialize};

/// Something that deserves attention but stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Warning {
    /// A stable kebab-case name, e.g. `backlog-capped`.
    pub code: String,
    /// What is the case, with its figures.
    pub cause: String,
    /// What to do about it.
    pub hint: String,
}

impl Warning {
    /// A warning of this kind.
    pub fn new(code: &str, cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), cause: cause.into(), hint: hint.into() }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.cause, self.hint)
    }
}
