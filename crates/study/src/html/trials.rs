//! Trial by trial: what counts and why the rest does not, the ledger's residuals, and where a dashboard shows the time.

use std::fmt::Write;

use super::markup::{Column, Field, Table, escape};
use crate::format;
use crate::quantity::Quantity;
use crate::report::Report;
use crate::report::facts;
use crate::results::Trial;

/// The board that links lead to. A test of the program holds it against the boards there are.
pub const BOARD: &str = "acceptbench-overview";

/// Time shown before and after a trial, ms.
const MARGIN_MS: i64 = 2000;

/// The dashboards of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dashboards<'a> {
    /// Where Grafana is, if that is known.
    pub(super) base: Option<&'a str>,
    /// The run's name: the label `run` of its series.
    pub(super) run: &'a str,
}

impl Dashboards<'_> {
    /// The board over the time of these trials, from Grafana's root on.
    pub(super) fn path<'t>(&self, trials: impl Iterator<Item = &'t Trial>) -> String {
        let spans = trials.map(|trial| {
            let began = trial.started.as_millisecond();
            #[expect(clippy::cast_possible_truncation, reason = "a trial is shorter than 2^63 ms")]
            let ended = began + (trial.timings.seconds() * 1e3).ceil() as i64;
            (began, ended)
        });
        let (from, to) = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
        format!("/d/{BOARD}?var-run={}&from={}&to={}", in_url(self.run), from - MARGIN_MS, to + MARGIN_MS)
    }

    fn link(&self, trial: &Trial) -> Option<String> {
        let base = self.base?.trim_end_matches('/');
        let path = self.path([trial].into_iter());
        Some(format!("<a href=\"{}\" rel=\"noreferrer\">open</a>", escape(&format!("{base}{path}"))))
    }
}

/// A trial's number, and which of its records this is.
fn number(trial: &Trial) -> Field {
    let retry = if trial.retry > 0 { format!(", retry {}", trial.retry) } else { String::new() };
    Field::number(&format!("{}{retry}", trial.trial), Some(trial.trial as f64))
}

/// Text as a part of an address's query.
fn in_url(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// Every trial, with the quantities given.
pub(super) fn table(report: &Report<'_>, quantities: &[&Quantity], dashboards: &Dashboards<'_>) -> String {
    let mut columns = vec![
        Column::plain("trial"),
        Column::plain("cell"),
        Column::new("block", "Every cell once per block"),
        Column::new("counts", "Why not, where it does not"),
    ];
    columns.extend(quantities.iter().map(|quantity| Column::new(quantity.title, quantity.help)));
    columns.push(Column::new("took", "Set-up, load, drain and tear-down"));
    columns.push(Column::new("began", "UTC"));
    if dashboards.base.is_some() {
        columns.push(Column::new("Grafana", "The trial's time on the board Overview"));
    }
    let row = |trial: &Trial| {
        let counts = match trial.invalid.as_slice() {
            [] => Field::text("yes"),
            reasons => Field::text(&format!("no: {}", reasons.join("; "))).class("bad"),
        };
        let took = trial.timings.seconds();
        let mut row = vec![
            number(trial),
            Field::text(&trial.name),
            Field::number(&trial.block.to_string(), Some(trial.block as f64)),
            counts,
        ];
        row.extend(quantities.iter().map(|quantity| {
            let value = quantity.of(trial);
            let text = value.map_or_else(|| "–".to_owned(), |value| format::value(value, quantity.unit));
            Field::number(&text, value)
        }));
        row.push(Field::number(&format::time(took), Some(took)));
        let began = trial.started.strftime("%H:%M:%S").to_string();
        row.push(Field::number(&began, Some(trial.started.as_millisecond() as f64)));
        row.extend(dashboards.link(trial).map(|link| Field::markup(link, None)));
        row
    };
    Table {
        caption: "Every trial, in the order they were run; numbers as in trials.csv".to_owned(),
        columns,
        rows: report.trials.iter().map(row).collect(),
        class: "sortable long",
    }
    .html()
}

/// The lines over all trials, then the residual of every line in every trial.
pub(super) fn ledger(report: &Report<'_>) -> String {
    let lines = facts::ledger(report.trials);
    let sum = |line: &facts::LedgerLine<'_>| {
        vec![
            Field::text(&line.title),
            Field::number(&format!("{}/{}", line.balanced.0, line.balanced.1), Some(line.balanced.0 as f64)),
            Field::number(&line.worst.residual.to_string(), Some(line.worst.residual as f64)),
            Field::text(&format!("trial {}: {}", line.trial, line.worst.equation)).class("equation"),
        ]
    };
    let lines_table = Table {
        caption: "Line by line: how many trials balance, and the one that is furthest off (or the first)".to_owned(),
        columns: ["line", "balanced", "worst residual", "for example"].map(Column::plain).to_vec(),
        rows: lines.iter().map(sum).collect(),
        class: "",
    };
    let numbers = facts::line_numbers(report.trials);
    let mut columns = vec![Column::plain("trial"), Column::plain("cell")];
    columns
        .extend(lines.iter().zip(&numbers).map(|(line, number)| Column::new(&format!("line {number}"), &line.title)));
    let residuals = |trial: &Trial| {
        let mut row = vec![number(trial), Field::text(&trial.name)];
        row.extend(numbers.iter().map(|number| match trial.ledger.lines.iter().find(|line| line.number == *number) {
            None => Field::number("–", None),
            Some(line) if line.balances() => Field::number(&line.residual.to_string(), Some(line.residual as f64)),
            Some(line) => Field::number(&line.residual.to_string(), Some(line.residual as f64)).class("number bad"),
        }));
        row
    };
    let trials_table = Table {
        caption: "Trial by trial: the residual of every line, connections".to_owned(),
        columns,
        rows: report.trials.iter().map(residuals).collect(),
        class: "sortable long",
    };
    let off: Vec<String> = report
        .trials
        .iter()
        .flat_map(|trial| trial.ledger.lines.iter().map(move |line| (trial, line)))
        .filter(|(_, line)| !line.balances())
        .map(|(trial, line)| {
            format!(
                "trial {} ({}), line {} {}: {}; residual {}",
                trial.trial, trial.name, line.number, line.name, line.equation, line.residual
            )
        })
        .take(EQUATIONS)
        .collect();
    let off = if off.is_empty() {
        String::new()
    } else {
        format!("<h3>What does not balance</h3>\n{}", super::markup::list(&off))
    };
    format!(
        "{}{off}<details><summary>Residuals trial by trial</summary>\n{}</details>\n",
        lines_table.html(),
        trials_table.html()
    )
}

/// Equations that do not balance, told in full at most.
const EQUATIONS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_link_spans_the_trial_and_names_the_run() {
        let mut trial = testing::trial(0);
        trial.started = "2026-01-02T03:04:05Z".parse().unwrap();
        trial.timings.load_ms = 1500.2;
        let dashboards = Dashboards { base: Some("https://grafana.example/sub/"), run: "a b\"<-20260102" };
        let link = dashboards.link(&trial).unwrap();
        assert_eq!(
            link,
            "<a href=\"https://grafana.example/sub/d/acceptbench-overview?var-run=a%20b%22%3C-20260102&amp;\
             from=1767323043000&amp;to=1767323048501\" rel=\"noreferrer\">open</a>"
        );
        assert_eq!(Dashboards { base: None, ..dashboards }.link(&trial), None);
    }
}
