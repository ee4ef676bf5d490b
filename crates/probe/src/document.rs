//! What a run of claims comes to, as one value: rows, notes, and what is not measured. `--json` prints it; the schema in
//! `schema/probe.schema.json` says what it looks like.

use serde::Serialize;

use kernel::namespace::Privilege;

use crate::claim::Verdict;
use crate::facts::{self, NOT_HERE, NOTES};
use crate::run::Row;

/// JSON Schema (draft 2020-12) of a [`Document`].
pub const SCHEMA: &str = include_str!("../schema/probe.schema.json");

/// Every claim that was measured, and what that says about the notes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Document {
    /// `uname -r`.
    pub kernel: String,
    /// How the claims came by their namespaces.
    pub privilege: Privilege,
    /// Were claims included that wait out the kernel's defaults?
    pub full: bool,
    /// One row a claim, in the order of the headings.
    pub claims: Vec<Row>,
    /// The notes that those claims are about, in the order of the notes.
    pub notes: Vec<Note>,
    /// What no claim measures, and why.
    pub not_covered: Vec<NotCovered>,
}

/// A note and what became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Note {
    /// Its number.
    pub number: &'static str,
    /// What it says.
    pub says: &'static str,
    /// Differs when one of its claims does, not observed when none was.
    pub verdict: Verdict,
    /// Its claims.
    pub claims: Vec<&'static str>,
}

/// A note or a fact that is not measured here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NotCovered {
    /// Its number or id.
    pub id: &'static str,
    /// What it says.
    pub says: &'static str,
    /// Why it is not measured.
    pub reason: &'static str,
}

impl Document {
    /// Joins the rows to the notes.
    pub fn new(kernel: String, privilege: Privilege, full: bool, claims: Vec<Row>) -> Self {
        let notes = NOTES.iter().filter_map(|(number, says)| note(number, says, &claims)).collect();
        let not_covered = NOT_HERE
            .iter()
            .map(|(id, reason)| NotCovered { id, says: facts::says(id).unwrap_or_default(), reason })
            .collect();
        Self { kernel, privilege, full, claims, notes, not_covered }
    }

    /// Did a measurement itself fail?
    pub fn any_failed(&self) -> bool {
        self.claims.iter().any(|row| row.failed)
    }

    /// The rows about a note.
    pub fn rows_of<'a>(&'a self, number: &'a str) -> impl Iterator<Item = &'a Row> {
        self.claims.iter().filter(move |row| row.notes.contains(&number))
    }

    /// The document as JSON with line breaks.
    ///
    /// # Errors
    /// None that these types can cause.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

fn note(number: &'static str, says: &'static str, rows: &[Row]) -> Option<Note> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.notes.contains(&number)).collect();
    let any = |verdict| rows.iter().any(|row| row.verdict == verdict);
    let verdict = if any(Verdict::Differs) {
        Verdict::Differs
    } else if any(Verdict::Holds) {
        Verdict::Holds
    } else {
        Verdict::NotObserved
    };
    (!rows.is_empty()).then(|| Note { number, says, verdict, claims: rows.iter().map(|row| row.name).collect() })
}
