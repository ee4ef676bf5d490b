//! The first screen: what a run ends with on the terminal. Every figure on it is measured, the answer is derived.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::Evidence;
use crate::capacity::Capacity;
use crate::design::Design;
use crate::expectation::{Judgement, Outcome};
use crate::finding::Findings;
use crate::format::plural;
use crate::quantity::Quantity;
use crate::results::Attached;
use crate::summary::Summary;
use crate::table::{Table, width};

/// Width of the names in front of the lower lines (`Answer`, `Ledger`), and of the indent below them.
const INDENT: usize = 8;

/// What the screen shows.
#[derive(Clone, Copy, Debug)]
pub struct Screen<'a> {
    /// The experiment's name.
    pub name: &'a str,
    /// Its question.
    pub question: &'a str,
    /// Its cells.
    pub design: &'a Design,
    /// What the trials said, with `quantity` and `confirm-latency.p99`, and what comparing the cells came to.
    pub summary: &'a Summary,
    /// The quantity that answers the question.
    pub quantity: &'a Quantity,
    /// Least change worth a word, see [`Evidence`].
    pub smallest_effect: f64,
    /// Cell that the others are compared with, see [`Evidence`].
    pub baseline: Option<usize>,
    /// What became of the expectations.
    pub expectations: &'a [Outcome],
    /// What else must be said, a sentence each.
    pub notes: &'a [String],
    /// Where it ran.
    pub place: Place<'a>,
    /// Where the report is.
    pub report: &'a str,
    /// The command to try next.
    pub next: Option<&'a str>,
}

/// Where the trials of a run took place.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In private namespaces of one machine.
    Lab {
        /// CPUs that both ends shared.
        cpus: usize,
    },
    /// On a deployment that runs on, whose sysctls were stepped.
    Attached(&'a Attached),
}

impl Place<'_> {
    /// What the run did to its surroundings, in two words.
    pub(crate) fn trace(self) -> &'static str {
        match self {
            Self::Lab { .. } => "host untouched",
            Self::Attached(Attached { restored: true, .. }) => "sysctls restored",
            Self::Attached(_) => "sysctls not restored",
        }
    }

    /// What every figure has to be read with.
    pub(crate) fn caveat(self) -> String {
        match self {
            Self::Lab { cpus: 1 } => "Both ends share one CPU: rates are not your NIC's.".to_owned(),
            Self::Lab { cpus } => format!("Both ends share {cpus} CPUs: rates are not your NIC's."),
            Self::Attached(_) => "within what moved while the books were read".to_owned(),
        }
    }
}

/// The screen as lines of at most `width` characters (words longer than that stay whole), each ended by a newline.
pub fn render(screen: &Screen, width: usize) -> String {
    let mut lines = screen.heading(width);
    lines.extend(screen.table(width));
    lines.extend(named("Answer", &screen.answer(), width));
    if let Some(found) = screen.summary.findings.as_ref().and_then(Findings::sentence) {
        lines.extend(named("Finding", &found, width));
    }
    for (name, text) in screen.summary.explanation.on_screen(width.saturating_sub(INDENT)) {
        lines.extend(named(name, &text, width));
    }
    for sentence in screen.changed() {
        lines.extend(named("Changed", &sentence, width));
    }
    if let Some(invalid) = invalid(screen.summary) {
        lines.extend(named("Invalid", &invalid, width));
    }
    for sentence in expectations(screen.expectations) {
        lines.extend(named("Expect", &sentence, width));
    }
    lines.extend(screen.ledger(width));
    for note in screen.notes {
        lines.extend(named("Note", note, width));
    }
    let next = screen.next.map_or_else(String::new, |next| format!("next: {next}"));
    lines.extend(two_parts("Report", screen.report, &next, width));
    lines.join("\n") + "\n"
}

impl<'a> Screen<'a> {
    /// What the answer is derived from.
    pub fn evidence(&self) -> Evidence<'a> {
        Evidence {
            design: self.design,
            summary: self.summary,
            quantity: self.quantity,
            smallest_effect: self.smallest_effect,
            baseline: self.baseline,
        }
    }

    /// The answer in a sentence.
    pub fn answer(&self) -> String {
        self.summary.capacity.as_ref().map_or_else(|| self.evidence().sentence(), Capacity::sentence)
    }

    /// The lines of its table, at most `width` characters long.
    pub fn table(&self, width: usize) -> Vec<String> {
        if let Some(capacity) = &self.summary.capacity {
            return capacity.lines().iter().flat_map(|line| wrap(line, width, INDENT)).collect();
        }
        Table { design: self.design, summary: self.summary, quantity: self.quantity, width }.lines()
    }

    fn heading(&self, limit: usize) -> Vec<String> {
        let left = format!("{}: {}", self.name, lower_first(self.question));
        let right = format!("{} · {}", plural(self.summary.trials, "trial"), self.place.trace());
        let gap = limit.saturating_sub(width(&left) + width(&right));
        if gap >= 2 {
            return vec![format!("{left}{}{right}", " ".repeat(gap))];
        }
        let mut lines = wrap(&left, limit, 0);
        lines.push(format!("{right:>limit$}"));
        lines
    }

    fn ledger(&self, limit: usize) -> Vec<String> {
        let Summary { trials, balanced, .. } = self.summary;
        let balance = if *trials == 1 { "balances" } else { "balance" };
        two_parts("Ledger", &format!("{balanced}/{trials} {balance}"), &self.place.caveat(), limit)
    }

    /// What an attached run did to each sysctl: the values it was set to, and what it is now.
    fn changed(&self) -> Vec<String> {
        let Place::Attached(attached) = self.place else { return Vec::new() };
        let sentence = |(name, original): (&String, &String)| {
            let setting = format!("sysctl.{name}");
            let mut values: Vec<&str> =
                self.design.cells.iter().filter_map(|cell| Some(cell.settings.get(&setting)?.as_str())).collect();
            let mut seen = BTreeSet::new();
            values.retain(|value| seen.insert(*value));
            // What the file sets for all cells alike is in no cell.
            let to = if values.is_empty() { "set".to_owned() } else { values.join(", ") };
            let now = if attached.restored { "now again" } else { "perhaps not again" };
            format!("{name} of the running deployment: {to}; {now} {original}")
        };
        attached.originals.iter().map(sentence).collect()
    }
}

fn invalid(summary: &Summary) -> Option<String> {
    if summary.invalid.is_empty() {
        return None;
    }
    // Reasons carry their figures after a colon; what they have in common is before it.
    let mut kinds = BTreeMap::<&str, (usize, &str)>::new();
    for reason in summary.invalid.iter().flat_map(|trial| &trial.reasons) {
        let kind = reason.split_once(':').map_or(reason.as_str(), |(kind, _)| kind);
        kinds.entry(kind).or_insert((0, reason)).0 += 1;
    }
    let reason = |(times, example): &(usize, &str)| match example.split_once(": ") {
        Some((kind, figures)) if *times > 1 => format!("{times} × {kind} (e.g. {figures})"),
        _ => format!("{times} × {example}"),
    };
    let reasons = kinds.values().map(reason).collect::<Vec<_>>().join("; ");
    let are = if summary.invalid.len() == 1 { "is" } else { "are" };
    Some(format!("{} of {} {are} left out: {reasons}", summary.invalid.len(), plural(summary.trials, "trial")))
}

/// One line when all hold, otherwise one per expectation that does not.
fn expectations(outcomes: &[Outcome]) -> Vec<String> {
    let broken: Vec<String> =
        outcomes.iter().filter(|outcome| outcome.judgement != Judgement::Holds).map(Outcome::sentence).collect();
    if broken.is_empty() && !outcomes.is_empty() {
        return vec![format!("{0}/{0} hold", outcomes.len())];
    }
    broken
}

/// A question in the middle of a line begins in lower case, unless its first word is an abbreviation or a name.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second.is_whitespace() => {
            first.to_lowercase().collect::<String>() + &text[first.len_utf8()..]
        }
        _ => text.to_owned(),
    }
}

fn named(name: &str, text: &str, limit: usize) -> Vec<String> {
    wrap(&format!("{name:<INDENT$}{text}"), limit, INDENT)
}

/// Two statements on one line where they fit, on two otherwise.
fn two_parts(name: &str, first: &str, second: &str, limit: usize) -> Vec<String> {
    const COLUMN: usize = 27;
    let head = format!("{name:<INDENT$}{first}");
    let gap = COLUMN.saturating_sub(width(&head)).max(4);
    if second.is_empty() {
        vec![head]
    } else if width(&head) + gap + width(second) <= limit {
        vec![format!("{head}{}{second}", " ".repeat(gap))]
    } else {
        [vec![head], wrap(&format!("{}{second}", " ".repeat(INDENT)), limit, INDENT)].concat()
    }
}

/// Breaks `text` at spaces into lines of at most `limit` characters, all but the first indented. Runs of spaces inside
/// a line are kept; a number and its unit stay together.
pub fn wrap(text: &str, limit: usize, indent: usize) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    for word in text.split_inclusive(' ') {
        let unit = matches!(word.trim_end().trim_end_matches([',', ';', '.', ')']), "%" | "s" | "ms" | "µs" | "ns");
        match chunks.last_mut().filter(|_| unit) {
            Some(number) => number.push_str(word),
            None => chunks.push(word.to_owned()),
        }
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for chunk in chunks {
        let fits = width(&line) + width(chunk.trim_end()) <= limit;
        if !fits && !line.trim().is_empty() {
            lines.push(line.trim_end().to_owned());
            line = " ".repeat(indent);
        }
        line.push_str(&chunk);
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests;
