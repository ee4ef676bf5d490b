//! The rules every board keeps, as code.
//!
//! They read the JSON, not the types of [`model`](crate::model), so that they judge a board made by hand or exported
//! from Grafana too. Each rule is a name, a sentence and a function; `tests/lint.rs` holds a board that breaks it and
//! no other.

mod frame;
mod labels;
mod panels;
mod promql;
mod selectors;

use std::fmt;

use promql_parser::parser::Expr;
use serde_json::Value;

use crate::queries::{self, Place, Query};

/// Something about a board that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// The board's title.
    pub board: String,
    /// Where on the board.
    pub place: Place,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} ({})", self.board, self.place, self.text, self.rule)
    }
}

/// Looks at a board and names what breaks one rule.
type Check = fn(&Board) -> Vec<(Place, String)>;

/// A rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, kebab-case.
    pub name: &'static str,
    /// What it asks for.
    pub asks: &'static str,
    check: Check,
}

const fn rule(name: &'static str, asks: &'static str, check: Check) -> Rule {
    Rule { name, asks, check }
}

/// Every rule.
pub const RULES: &[Rule] = &[
    rule(
        "classic-json",
        "schemaVersion 41, id null, not editable, no version: what file provisioning takes",
        frame::classic_json,
    ),
    rule("uid", "a uid that begins with acceptbench- and that no other board has", frame::uid),
    rule("tag", "the tag the links between boards go by", frame::tag),
    rule("refresh", "refreshed every 1s or 5s, the last 5 minutes at first", frame::refresh),
    rule("links", "a link by tag that keeps time and variables", frame::links),
    rule(
        "variables",
        "the variables datasource, job and instance, several and all, looked up when the time changes",
        frame::variables,
    ),
    rule(
        "runs",
        "where runs can be picked, every selector of a metric with the label run carries them",
        selectors::runs,
    ),
    rule(
        "drill-down",
        "a panel's link leads to another board there is, and keeps time and variables",
        frame::drill_down,
    ),
    rule("datasource", "every query goes to ${datasource}", frame::datasource),
    rule("annotation-step", "annotations are asked for every 1s, or their regions fall apart", frame::annotation_step),
    rule("health", "the first row answers whether it is healthy, with a stat", frame::health),
    rule("title", "every panel has a title that no other panel of its board has", panels::title),
    rule("unit", "every panel has a unit of the list", panels::unit),
    rule(
        "description",
        "every panel says in whole sentences what it shows and what bad looks like",
        panels::description,
    ),
    rule("knob", "every description names a knob that moves the panel", panels::knob),
    rule("grid", "panels lie within 24 columns and not on each other", panels::grid),
    rule("panel-id", "panel ids are unique and not 0", panels::panel_id),
    rule("ref-id", "the queries of a panel have names of their own", panels::ref_id),
    rule(
        "heat-map",
        "a heat map's target has the format heatmap, its series are le and nothing else",
        panels::heat_map,
    ),
    rule("instant", "stats and tables ask for one instant: a range goes on showing series that ended", panels::instant),
    rule("legend", "every series drawn has a legend, which tells several apart", panels::legend),
    rule("legend-labels", "a legend or annotation names labels its series have", panels::legend_labels),
    rule("parses", "every query is PromQL", selectors::parses),
    rule("picked", "every selector carries the job and instance picked", selectors::picked),
    rule("metric", "every metric is one of the constants", selectors::metric),
    rule("labels", "matchers, by, on and group name labels that are there", selectors::labels),
    rule("rate-window", "rate and increase go over $__rate_interval", selectors::rate_window),
    rule(
        "counter",
        "a counter stands directly in rate or increase; one of a run in last_over_time, too",
        selectors::counter,
    ),
    rule("rate-of-gauge", "rate and increase are of counters", selectors::rate_of_gauge),
    rule("quantile", "histogram_quantile is of sum by (le, ...) (rate(..._bucket[...]))", selectors::quantile),
    rule(
        "count-values",
        "count_values goes without labels, never by: Prometheus 2.42 mixes up three of them over a range",
        selectors::count_values,
    ),
    rule(
        "interval",
        "nothing goes over $__interval: with a scrape interval of 1s it holds one sample, and nothing changes",
        selectors::interval,
    ),
];

/// A board as the rules see it.
#[derive(Debug)]
struct Board<'a> {
    json: &'a Value,
    /// The uids of the other boards.
    others: Vec<&'a str>,
    queries: Vec<Asked>,
}

/// A query and what it parses to.
#[derive(Debug)]
struct Asked {
    query: Query,
    parsed: Result<Expr, String>,
}

impl<'a> Board<'a> {
    fn new(json: &'a Value, others: impl Iterator<Item = &'a Value>) -> Self {
        let others = others.map(|other| queries::text(other, "uid")).collect();
        let parsed = |query: Query| Asked { parsed: promql::parse(&query), query };
        Self { json, others, queries: queries::of(json).into_iter().map(parsed).collect() }
    }

    /// Every panel, headings of rows included.
    fn panels(&self) -> Vec<&'a Value> {
        queries::panels(self.json)
    }

    /// Every panel that shows something.
    fn drawn(&self) -> impl Iterator<Item = &'a Value> {
        self.panels().into_iter().filter(|panel| !matches!(queries::text(panel, "type"), "row" | "text"))
    }

    /// The queries that parse.
    fn parsed(&self) -> impl Iterator<Item = (&Query, &Expr)> {
        self.queries.iter().filter_map(|asked| Some((&asked.query, asked.parsed.as_ref().ok()?)))
    }
}

/// What breaks the rules in boards that are provisioned together.
pub fn lint(boards: &[Value]) -> Vec<Finding> {
    let each = boards.iter().enumerate().map(|(index, board)| {
        let others = boards.iter().enumerate().filter(move |(other, _)| *other != index);
        judge(&Board::new(board, others.map(|(_, other)| other)))
    });
    each.flatten().collect()
}

/// What breaks the rules in one board that is provisioned with others.
pub fn lint_board(board: &Value, others: &[Value]) -> Vec<Finding> {
    judge(&Board::new(board, others.iter()))
}

fn judge(board: &Board) -> Vec<Finding> {
    let title = queries::text(board.json, "title");
    let found = RULES.iter().map(|rule| {
        let findings = (rule.check)(board).into_iter();
        findings.map(|(place, text)| Finding { rule: rule.name, board: title.to_owned(), place, text })
    });
    found.flatten().collect()
}
