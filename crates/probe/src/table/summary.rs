//! The last lines: how many claims hold, what could not be seen and why, and what is other than on Linux 6.18.

use std::collections::BTreeMap;

use crate::claim::Verdict;
use crate::document::Document;
use crate::facts::NOTES;
use crate::run::Row;
use crate::text::{Look, plural};

/// Further lines of a paragraph begin here.
const HANGING: usize = 0;

/// Appends the summary.
pub(super) fn write(out: &mut String, document: &Document, look: Look) {
    let mut line = |text: &str| look.labelled(out, 0, HANGING, "", text);
    line(&counts(&document.claims));
    for (reason, names) in unseen(&document.claims) {
        line(&format!("{}: {reason}", names.join(", ")));
    }
    let changed: Vec<String> = document.claims.iter().filter_map(changed).collect();
    if changed.is_empty() {
        line("other than on Linux 6.18: nothing");
    } else {
        line(&format!("other than on Linux 6.18: {}", changed.join("; ")));
    }
}

/// `118 claims: 110 hold, 6 differ (in 6 of them the notes are wrong on this kernel: 1.2, 3.6), 2 not observed`
fn counts(rows: &[Row]) -> String {
    let number = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let verb = |number: usize, verb: &str| if number == 1 { format!("1 {verb}s") } else { format!("{number} {verb}") };
    let (holds, differs) = (number(Verdict::Holds), number(Verdict::Differs));
    let wrong: Vec<&Row> = rows.iter().filter(|row| row.verdict == Verdict::Differs && !row.notes.is_empty()).collect();
    let is_wrong = |number: &&str| wrong.iter().any(|row| row.notes.contains(number));
    // In the order of the notes: 3.10 comes after 3.9.
    let numbers: Vec<&str> = NOTES.iter().map(|(number, _)| *number).filter(is_wrong).collect();
    let wrong = match wrong.len() {
        0 => String::new(),
        number => format!(" (in {number} of them the notes are wrong on this kernel: {})", numbers.join(", ")),
    };
    format!(
        "{}: {}, {}{wrong}, {} not observed",
        plural(rows.len(), "claim"),
        verb(holds, "hold"),
        verb(differs, "differ"),
        number(Verdict::NotObserved)
    )
}

/// Claims that were not observed, by reason.
fn unseen(rows: &[Row]) -> BTreeMap<String, Vec<String>> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.verdict == Verdict::NotObserved) {
        let names = reasons.entry(row.did.clone()).or_default();
        let lead = if row.failed { "measurement failed" } else { "not observed" };
        names.push(if names.is_empty() { format!("{lead}: {}", row.name) } else { row.name.to_owned() });
    }
    reasons
}

/// What Linux 6.18 makes otherwise; what could not be seen says nothing about it.
fn changed(row: &Row) -> Option<String> {
    let there = match row.known {
        Verdict::Holds => "there it holds",
        Verdict::Differs => "there it differs",
        Verdict::NotObserved => return None,
    };
    (row.verdict != row.known && row.verdict != Verdict::NotObserved)
        .then(|| format!("{} {} ({there})", row.name, row.verdict.name()))
}
