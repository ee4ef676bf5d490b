//! Recording and alert rules for Prometheus, made from the same constants as the boards.
//!
//! Owns what is recorded ([`recorded`]), what is alerted about ([`alerts`]) and how both are written (`yaml`). Rules
//! know no variables: they hold for every program in a Prometheus. Alerts compare what is recorded, and each
//! description names the knob. Rates and fractions, never totals; two windows where a short burst and a slow leak
//! differ.
//!
//! Format: <https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/>; loads in 2.42 and in 3.x.

pub mod alerts;
pub mod recorded;
mod yaml;

use crate::query::PICKED;

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Connections are being lost now.
    Critical,
    /// They soon may be, or a measurement cannot be trusted.
    Warning,
}

impl Severity {
    /// The value of the label `severity`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// A series that Prometheus works out at every evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its name: level, what, window.
    pub name: String,
    /// What it is.
    pub expr: String,
}

/// Something worth being told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its name, CamelCase.
    pub name: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// True for as long as it holds.
    pub expr: String,
    /// How long it must hold, as Prometheus writes time.
    pub lasting: &'static str,
    /// One line. `{{ $labels.instance }}` and the like are filled in by Prometheus.
    pub summary: &'static str,
    /// What it means, and which sysctl or flag moves it.
    pub description: &'static str,
    /// The board that shows more, by its file's name without `.json`.
    pub board: &'static str,
}

/// `expression` without what a board's variables pick.
fn everywhere(expression: &str) -> String {
    expression.replace(&format!(", {PICKED}"), "").replace(&format!("{{{PICKED}}}"), "")
}

/// The files, by their names in `prometheus/`: one per group for `rule_files`, and all groups as a resource for Kubernetes.
pub fn files() -> Vec<(&'static str, String)> {
    let groups = [yaml::recording(&recorded::all()), yaml::alerting(&alerts::all())];
    vec![
        ("recording.rules.yml", yaml::file(&groups[0])),
        ("alerts.rules.yml", yaml::file(&groups[1])),
        ("prometheus-rule.yaml", yaml::resource(&groups)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::metric::server;
    use crate::query::{WINDOW, rate, sel};

    #[test]
    fn nothing_of_a_boards_variables_is_left() {
        assert_eq!(everywhere(&sel(&server::OPEN_CONNECTIONS, "")), "acceptbench_server_open_connections");
        let accepts = rate(&server::ACCEPTS, r#"acceptor="0""#);
        assert_eq!(
            everywhere(&accepts.replace(WINDOW, "5m")),
            r#"rate(acceptbench_server_accepts_total{acceptor="0"}[5m])"#
        );
        for (name, text) in files() {
            assert!(!text.contains("$job") && !text.contains("$__"), "{name}");
        }
    }

    #[test]
    fn every_expression_is_promql() {
        let recorded = recorded::all().into_iter().map(|rule| rule.expr);
        for expr in recorded.chain(alerts::all().into_iter().map(|alert| alert.expr)) {
            if let Err(error) = promql_parser::parser::parse(&expr) {
                panic!("{error}: {expr}");
            }
        }
    }
}
