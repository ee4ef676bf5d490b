//! What was found, and what it means for an experiment.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Finding {
    /// What.
    pub(super) name: &'static str,
    pub(super) status: Status,
    /// What is the case.
    pub(super) value: String,
    /// What that limits; nothing when it is fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limits: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
    /// Shipped experiments that cannot run for it, or are limited by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) experiments: Vec<String>,
}

/// How much it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// Everything.
    Ok,
    /// Less than everything.
    Limits,
    /// Not what some experiment cannot do without.
    Missing,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limits => "limits",
            Self::Missing => "missing",
        }
    }
}

/// What becomes of a shipped experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// Names of the findings that say so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) because: Vec<String>,
}

/// Whether it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Runs,
    /// It runs, and something makes its figures worth less.
    Limited,
    CannotRun,
    /// It needs a server and load generators that run already.
    NeedsDeployment,
}

impl Verdict {
    pub(super) fn can_run(&self) -> bool {
        matches!(self.outcome, Outcome::Runs | Outcome::Limited)
    }
}

impl Finding {
    pub(super) fn ok(name: &'static str, value: impl Into<String>) -> Self {
        let (limits, fix) = (None, None);
        Self { name, status: Status::Ok, value: value.into(), limits, fix, experiments: Vec::new() }
    }

    pub(super) fn limits(self, limits: impl Into<String>, fix: impl Into<String>, experiments: Vec<String>) -> Self {
        Self { status: Status::Limits, limits: Some(limits.into()), fix: Some(fix.into()), experiments, ..self }
    }

    pub(super) fn missing(self, limits: impl Into<String>, fix: impl Into<String>, experiments: Vec<String>) -> Self {
        Self { status: Status::Missing, ..self.limits(limits, fix, experiments) }
    }
}
