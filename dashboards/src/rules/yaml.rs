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

fn head(group: &str) -> String {
    format!(
        "# Made by `cargo run -p dashboards`; see docs/dashboards.md. Loads in Prometheus 2.42 and in 3.x.\n\n\
         groups:\n  - name: {group}\n    interval: {INTERVAL}\n    rules:\n"
    )
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

/// The file of recorded series.
pub(super) fn recording(rules: &[Recorded]) -> String {
    let mut out = head("acceptbench-recorded");
    for rule in rules {
        let _ = writeln!(out, "      - record: {}", rule.name);
        folded(&mut out, 8, "expr", &rule.expr);
    }
    out
}

/// The file of alerts.
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
