//! What every form of the report says of the trials beside their cells, so that all forms say the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::design::Design;
use crate::finding::{Contrast, Findings};
use crate::format;
use crate::ledger::Line;
use crate::quantity::{Quantity, UnknownQuantity};
use crate::results::Trial;
use crate::screen::Place;

/// What is told of each contrast.
pub(crate) const CONTRAST: [&str; 7] = ["cell", "against", "metric", "medians", "effect", "adjusted p", "judgement"];

/// Every contrast, its figures and what it came to.
///
/// # Errors
/// [`UnknownQuantity`] of findings that another version made.
pub(crate) fn contrasts(design: &Design, findings: &Findings) -> Result<Vec<Vec<String>>, UnknownQuantity> {
    let words = |cell: usize| design.cells.get(cell).map(|cell| design.describe(cell)).unwrap_or_default();
    let row = |contrast: &Contrast| {
        let quantity = Quantity::named(&contrast.metric)?;
        let [from, to] = contrast.medians;
        Ok(vec![
            contrast.name.clone(),
            words(contrast.baseline),
            quantity.title.to_owned(),
            format::change(from, to, quantity.unit),
            contrast.effect_and_interval(quantity.unit),
            contrast.p.map_or_else(|| "–".to_owned(), format::p_value),
            contrast.judgement_in_words(),
        ])
    };
    findings.contrasts.iter().map(row).collect()
}

/// One line of the ledger over all trials.
#[derive(Clone, Debug)]
pub(crate) struct LedgerLine<'a> {
    /// Its number and name.
    pub(crate) title: String,
    /// Trials in which it balances, and trials that have it.
    pub(crate) balanced: (usize, usize),
    /// The trial that is furthest off, or the first.
    pub(crate) trial: usize,
    /// The line there.
    pub(crate) worst: &'a Line,
}

/// Per line: how many trials balance, and the equation of the one that is furthest off (or of the first).
pub(crate) fn ledger(trials: &[Trial]) -> Vec<LedgerLine<'_>> {
    line_numbers(trials).into_iter().filter_map(|number| ledger_line(trials, number)).collect()
}

/// The numbers of the lines that any trial has, ascending.
pub(crate) fn line_numbers(trials: &[Trial]) -> BTreeSet<u8> {
    trials.iter().flat_map(|trial| &trial.ledger.lines).map(|line| line.number).collect()
}

fn ledger_line(trials: &[Trial], number: u8) -> Option<LedgerLine<'_>> {
    let of = |trial: &'_ Trial| trial.ledger.lines.iter().position(|line| line.number == number);
    let lines: Vec<(usize, &Line)> =
        trials.iter().filter_map(|trial| Some((trial.trial, &trial.ledger.lines[of(trial)?]))).collect();
    let balanced = lines.iter().filter(|(_, line)| line.balances()).count();
    // max_by_key keeps the last of equals; reversed, that is the first trial.
    let (trial, worst) = *lines.iter().rev().max_by_key(|(_, line)| line.residual.unsigned_abs())?;
    let derived = match (lines.iter().any(|(_, line)| line.derived), trials.iter().any(|trial| trial.target.is_some()))
    {
        (false, _) => "",
        (true, false) => " (derived where cookies were sent)",
        (true, true) => " (derived: what only the server could count, or cookies were sent)",
    };
    Some(LedgerLine {
        title: format!("{number} {}{derived}", worst.name),
        balanced: (balanced, lines.len()),
        trial,
        worst,
    })
}

/// Effective sysctls: by name the values, and by value the cells.
pub(crate) fn sysctls(trials: &[Trial]) -> BTreeMap<&str, BTreeMap<&str, BTreeSet<usize>>> {
    let mut seen = BTreeMap::<&str, BTreeMap<&str, BTreeSet<usize>>>::new();
    for trial in trials {
        for (name, value) in &trial.sysctls {
            seen.entry(name).or_default().entry(value).or_default().insert(trial.cell);
        }
    }
    seen
}

/// These cells in words.
pub(crate) fn cells_in_words(design: &Design, cells: &BTreeSet<usize>) -> String {
    let known = cells.iter().filter_map(|index| design.cells.get(*index));
    known.map(|cell| design.describe(cell)).collect::<Vec<_>>().join("; ")
}

/// Warnings of trials and of both ends, each once, with how many trials had it; then the notes.
pub(crate) fn warnings(trials: &[Trial], notes: &[String]) -> Vec<String> {
    let mut seen = BTreeMap::<(&str, &str), BTreeSet<usize>>::new();
    for trial in trials {
        for warning in trial.warnings.iter().chain(&trial.server.warnings).chain(&trial.loadgen.warnings) {
            seen.entry((&warning.cause, &warning.hint)).or_default().insert(trial.trial);
        }
    }
    let warnings = seen
        .iter()
        .map(|((cause, hint), trials)| format!("{cause} ({hint}): {}", format::plural(trials.len(), "trial")));
    warnings.chain(notes.iter().cloned()).collect()
}

/// What the place of the trials means for their figures.
pub(crate) fn caveat(place: Place<'_>) -> String {
    match place {
        Place::Lab { cpus } => {
            format!("both ends share {}: rates are not those of a network card", format::plural(cpus, "CPU"))
        }
        Place::Attached(attached) => format!(
            "of the runner; attached to the server at {} and the load generators at {}, sysctls in {}",
            attached.server,
            attached.loadgens.join(", "),
            attached.sysctl_path.display()
        ),
    }
}
