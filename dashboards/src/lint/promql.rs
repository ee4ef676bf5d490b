//! `PromQL` with Grafana's variables: parsed, and walked with each node's parent in sight.

use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, VectorSelector};

use crate::queries::{Place, Query, label_values};

/// Windows that stand for Grafana's. Primes of seconds nobody writes, so that they are known again after parsing.
const WINDOWS: [(&str, Duration); 3] = [
    ("$__rate_interval", Duration::from_secs(4243)),
    ("$__interval", Duration::from_secs(4241)),
    ("$__range", Duration::from_secs(4259)),
];

/// Is it `$__rate_interval`?
pub(super) fn is_rate_interval(window: Duration) -> bool {
    window == WINDOWS[0].1
}

/// Is it `$__interval`?
pub(super) fn is_interval(window: Duration) -> bool {
    window == WINDOWS[1].1
}

/// The expression of a query; of a variable the selector.
pub(super) fn parse(query: &Query) -> Result<Expr, String> {
    let text = match &query.place {
        Place::Variable(_) => label_values(&query.text).ok_or("it is not label_values(SELECTOR, LABEL)")?.0,
        _ => &query.text,
    };
    let mut text = text.to_owned();
    for (variable, window) in WINDOWS {
        text = text.replace(variable, &format!("{}s", window.as_secs()));
    }
    parser::parse(&text)
}

/// The expressions an expression is made of.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.expr]).map(|part| &**part).collect(),
        Expr::Unary(unary) => vec![&unary.expr],
        Expr::Binary(binary) => vec![&binary.lhs, &binary.rhs],
        Expr::Paren(paren) => vec![&paren.expr],
        Expr::Subquery(subquery) => vec![&subquery.expr],
        Expr::Call(call) => call.args.args.iter().map(|part| &**part).collect(),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => Vec::new(),
    }
}

/// Calls `look` with every node and the one around it.
pub(super) fn walk<'a>(expr: &'a Expr, around: Option<&'a Expr>, look: &mut dyn FnMut(&'a Expr, Option<&'a Expr>)) {
    look(expr, around);
    for part in parts(expr) {
        walk(part, Some(expr), look);
    }
}

/// A selector, the window over which it is taken if there is one, and the function it stands directly in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) selector: &'a VectorSelector,
    pub(super) window: Option<Duration>,
    pub(super) function: &'a str,
}

impl Selection<'_> {
    /// The name of what is selected; empty when none is given.
    pub(super) fn name(&self) -> &str {
        self.selector.name.as_deref().unwrap_or_default()
    }

    /// Its matchers.
    pub(super) fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.selector.matchers.matchers.iter()
    }

    /// Whether it has the matcher `label=~"value"`.
    pub(super) fn has(&self, label: &str, value: &str) -> bool {
        self.matchers()
            .any(|matcher| matcher.name == label && matcher.value == value && matches!(matcher.op, MatchOp::Re(_)))
    }

    /// Whether it stands directly in rate or increase.
    pub(super) fn in_rate(&self) -> bool {
        self.window.is_some() && is_rate(self.function)
    }
}

/// Functions that turn a counter into events per second or their number.
pub(super) fn is_rate(function: &str) -> bool {
    matches!(function, "rate" | "irate" | "increase")
}

/// Every selector of an expression.
pub(super) fn selections(expr: &Expr) -> Vec<Selection<'_>> {
    let mut found = Vec::new();
    walk(expr, None, &mut |node, around| {
        let function = match around {
            Some(Expr::Call(call)) => call.func.name,
            _ => "",
        };
        match node {
            Expr::VectorSelector(selector) => found.push(Selection { selector, window: None, function }),
            Expr::MatrixSelector(matrix) => {
                found.push(Selection { selector: &matrix.vs, window: Some(matrix.range), function });
            }
            _ => {}
        }
    });
    found
}

/// Without the parentheses around it.
pub(super) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(paren) => bare(&paren.expr),
        other => other,
    }
}
