//! The diagnosis in lines: a finding each, wrapped under its own column.

use super::finding::{Outcome, Verdict};
use super::{Diagnosis, MAIN};

/// Columns before a finding's value: indent, name, status.
const NAME: usize = 13;
const STATUS: usize = 9;
const INDENT: usize = 2;

/// The whole text, `width` characters per line at most.
pub(super) fn render(diagnosis: &Diagnosis, width: usize) -> String {
    let headline = if diagnosis.can_run { "can run here" } else { "cannot run here" };
    let mut lines = vec![format!("acceptbench run {MAIN} {headline}."), String::new()];
    for finding in &diagnosis.findings {
        let head = format!("{:INDENT$}{:<NAME$}{:<STATUS$}", "", finding.name, finding.status.name());
        lines.extend(wrapped(&head, &finding.value, width));
        if let Some(limits) = &finding.limits {
            let whom = if finding.experiments.is_empty() {
                String::new()
            } else {
                format!(" ({})", finding.experiments.join(", "))
            };
            lines.extend(wrapped(&format!("{:1$}limits: ", "", head.len()), &format!("{limits}{whom}"), width));
        }
        if let Some(fix) = &finding.fix {
            lines.extend(wrapped(&format!("{:1$}to do:  ", "", head.len()), fix, width));
        }
    }
    lines.extend([String::new(), "Shipped experiments".to_owned()]);
    let longest = diagnosis.experiments.iter().map(|verdict| verdict.name.len()).max();
    let column = longest.map_or(NAME, |longest| (longest + 2).max(NAME));
    for Verdict { name, outcome, because } in &diagnosis.experiments {
        let because = because.join(", ");
        let says = match outcome {
            Outcome::Runs => "can run".to_owned(),
            Outcome::Limited => format!("can run, limited by: {because}"),
            Outcome::CannotRun => format!("cannot run for want of: {because}"),
            Outcome::NeedsDeployment => "needs a deployment that runs already (docs/experiments.md)".to_owned(),
        };
        lines.extend(wrapped(&format!("{:INDENT$}{name:<column$}", ""), &says, width));
    }
    lines.join("\n")
}

/// A text after a head, its further lines below its first.
fn wrapped(head: &str, text: &str, width: usize) -> Vec<String> {
    let indent = head.chars().count();
    let mut lines = vec![head.to_owned()];
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let first = column == indent;
        if !first && column + 1 + length > width {
            lines.push(" ".repeat(indent));
            column = indent;
        }
        if let Some(line) = lines.last_mut() {
            if column > indent {
                line.push(' ');
                column += 1;
            }
            line.push_str(word);
            column += length;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn further_lines_stand_below_the_first() {
        let lines = wrapped("  name  ", "one two three four", 16);
        assert_eq!(lines, ["  name  one two", "        three", "        four"]);
        assert_eq!(wrapped("> ", "a-word-that-is-too-long b", 10), ["> a-word-that-is-too-long", "  b"]);
    }
}
