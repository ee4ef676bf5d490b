//! Rule files as text.
//!
//! Expressions and sentences are folded blocks (`>-`): lines are joined by spaces again when the file is read, and
//! nothing in them needs a quote.

use std::fmt::Write;

use super::{Alert, Recorded};
use crate::model::UID_PREFIX;

/// How often rules are evaluated. Scrapes come every second; alerts need not.
const INTERVAL: &str = "10s";

/// Columns of a folded line without its indent.
const WIDTH: usize = 100;

/// What every file begins with.
const MADE: &str = "# Made by `cargo run -p dashboards`; see docs/dashboards.md.";

/// An item of the list `groups`, without its rules.
fn head(group: &str) -> String {
    format!("  - name: {group}\n    interval: {INTERVAL}\n    rules:\n")
}

/// `text` after `key`, folded at spaces.
fn folded(out: &mut String, indent: usize, key: &str, text: &str) {
    let (pad, inner) = (" ".repeat(indent), " ".repeat(indent + 2));
    let _ = writeln!(out, "{pad}{key}: >-");
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{inner}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{inner}{line}");
}

/// The group of recorded series.
pub(super) fn recording(rules: &[Recorded]) -> String {
    let mut out = head("acceptbench-recorded");
    for rule in rules {
        let _ = writeln!(out, "      - record: {}", rule.name);
        folded(&mut out, 8, "expr", &rule.expr);
    }
    out
}

/// The group of alerts.
pub(super) fn alerting(alerts: &[Alert]) -> String {
    let mut out = head("acceptbench-alerts");
    for alert in alerts {
        let _ = writeln!(out, "      - alert: {}", alert.name);
        folded(&mut out, 8, "expr", &alert.expr);
        let _ = writeln!(out, "        for: {}", alert.lasting);
        let _ = writeln!(out, "        labels:\n          severity: {}", alert.severity.label());
        let _ = writeln!(out, "        annotations:");
        folded(&mut out, 10, "summary", alert.summary);
        folded(&mut out, 10, "description", alert.description);
        let _ = writeln!(out, "          dashboard: /d/{UID_PREFIX}{}", alert.board);
    }
    out
}

/// A group as a file for `rule_files`.
pub(super) fn file(group: &str) -> String {
    format!("{MADE} Loads in Prometheus 2.42 and in 3.x.\n\ngroups:\n{group}")
}

/// Groups as one resource for the Prometheus operator. Its fields:
/// <https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.PrometheusRule>.
pub(super) fn resource(groups: &[String]) -> String {
    let mut out = format!(
        "{MADE} Both rule files as one resource: needs the Prometheus operator.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: acceptbench\nspec:\n  groups:\n"
    );
    for line in groups.iter().flat_map(|group| group.lines()) {
        let _ = writeln!(out, "  {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_text_is_indented_and_short_and_the_same_when_it_is_joined() {
        let text = "word ".repeat(60) + "end";
        let mut out = String::new();
        folded(&mut out, 4, "expr", &text);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "    expr: >-");
        assert!(lines[1..].iter().all(|line| line.starts_with("      ") && line.len() <= WIDTH + 6), "{out}");
        assert_eq!(lines[1..].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "), text);
    }
}
