//! Which labels the series of an expression have, and where an expression names one that is not there.
//!
//! Follows Prometheus' rules for aggregation and vector matching
//! (<https://prometheus.io/docs/prometheus/latest/querying/operators/>). What it cannot know (an unknown metric, a
//! `label_replace`) it does not guess: such an expression has unknown labels, and nothing is held against it.

use std::collections::BTreeSet;

use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

use crate::catalogue::{self, TARGET_LABELS};

/// Names of labels.
pub(super) type Labels = BTreeSet<String>;

/// The labels of an expression's series; `None` when they cannot be known.
pub(super) fn of(expr: &Expr) -> Option<Labels> {
    infer(expr, &mut Vec::new())
}

/// Where an expression names a label that is not there.
pub(super) fn missing(expr: &Expr) -> Vec<String> {
    let mut findings = Vec::new();
    infer(expr, &mut findings);
    findings
}

fn infer(expr: &Expr, findings: &mut Vec<String>) -> Option<Labels> {
    match expr {
        Expr::VectorSelector(selector) => selected(selector, findings),
        Expr::MatrixSelector(matrix) => selected(&matrix.vs, findings),
        Expr::Paren(paren) => infer(&paren.expr, findings),
        Expr::Unary(unary) => infer(&unary.expr, findings),
        Expr::Subquery(subquery) => infer(&subquery.expr, findings),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Some(Labels::new()),
        Expr::Aggregate(aggregate) => aggregated(aggregate, findings),
        Expr::Binary(binary) => combined(binary, findings),
        Expr::Call(call) => called(call, findings),
        Expr::Extension(_) => None,
    }
}

fn set(names: &[&str]) -> Labels {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn selected(selector: &VectorSelector, findings: &mut Vec<String>) -> Option<Labels> {
    let name = selector.name.as_deref()?;
    let series = catalogue::find(name)?;
    let mut labels = set(series.labels);
    labels.extend(set(&TARGET_LABELS));
    if series.buckets {
        labels.insert("le".to_owned());
    }
    require(selector.matchers.matchers.iter().map(|matcher| &matcher.name), &labels, name, findings);
    Some(labels)
}

/// Notes each of `names` that `labels` lacks.
fn require<'a>(names: impl Iterator<Item = &'a String>, labels: &Labels, of: &str, findings: &mut Vec<String>) {
    let missing = names.filter(|name| !labels.contains(*name));
    findings.extend(missing.map(|name| format!("{of} has no label '{name}'")));
}

fn aggregated(aggregate: &AggregateExpr, findings: &mut Vec<String>) -> Option<Labels> {
    let op = aggregate.op.to_string();
    let inside = infer(&aggregate.expr, findings);
    if matches!(op.as_str(), "topk" | "bottomk" | "limitk") {
        return inside;
    }
    let mut labels = match &aggregate.modifier {
        None => Labels::new(),
        Some(LabelModifier::Include(by)) => {
            if let Some(inside) = &inside {
                require(by.labels.iter(), inside, &format!("what {op} adds up"), findings);
            }
            by.labels.iter().cloned().collect()
        }
        Some(LabelModifier::Exclude(without)) => {
            let mut inside = inside?;
            require(without.labels.iter(), &inside, &format!("what {op} adds up"), findings);
            inside.retain(|label| !without.labels.contains(label));
            inside
        }
    };
    if op == "count_values"
        && let Some(Expr::StringLiteral(made)) = aggregate.param.as_deref()
    {
        labels.insert(made.val.clone());
    }
    Some(labels)
}

fn combined(binary: &BinaryExpr, findings: &mut Vec<String>) -> Option<Labels> {
    let (left, right) = (infer(&binary.lhs, findings), infer(&binary.rhs, findings));
    let scalar = |expr: &Expr| matches!(super::promql::bare(expr), Expr::NumberLiteral(_));
    if scalar(&binary.rhs) {
        return left;
    }
    if scalar(&binary.lhs) {
        return right;
    }
    let modifier = binary.modifier.as_ref();
    let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
    if let Some(LabelModifier::Include(on) | LabelModifier::Exclude(on)) = matching {
        for (side, labels) in [("left", &left), ("right", &right)] {
            if let Some(labels) = labels {
                require(on.labels.iter(), labels, &format!("the {side} side of {}", binary.op), findings);
            }
        }
    }
    match modifier.map(|modifier| &modifier.card) {
        Some(VectorMatchCardinality::ManyToMany) if binary.op.to_string() == "or" => {
            Some(left?.union(&right?).cloned().collect())
        }
        Some(VectorMatchCardinality::ManyToMany) => left,
        Some(VectorMatchCardinality::ManyToOne(carried)) => carry(left, right.as_ref(), &carried.labels, findings),
        Some(VectorMatchCardinality::OneToMany(carried)) => carry(right, left.as_ref(), &carried.labels, findings),
        Some(VectorMatchCardinality::OneToOne) | None => match matching {
            Some(LabelModifier::Include(on)) => Some(on.labels.iter().cloned().collect()),
            Some(LabelModifier::Exclude(ignored)) => {
                Some(left?.into_iter().filter(|label| !ignored.labels.contains(label)).collect())
            }
            None => left,
        },
    }
}

/// The labels of the many side and those carried over from the one side.
fn carry(many: Option<Labels>, one: Option<&Labels>, carried: &[String], findings: &mut Vec<String>) -> Option<Labels> {
    if let Some(one) = one {
        require(carried.iter(), one, "the one side of group_left or group_right", findings);
    }
    let mut labels = many?;
    labels.extend(carried.iter().cloned());
    Some(labels)
}

fn called(call: &Call, findings: &mut Vec<String>) -> Option<Labels> {
    let mut arguments: Vec<Option<Labels>> = call.args.args.iter().map(|argument| infer(argument, findings)).collect();
    match call.func.name {
        "label_replace" | "label_join" | "absent" | "absent_over_time" => None,
        "vector" | "time" | "scalar" => Some(Labels::new()),
        "histogram_quantile" => {
            let mut labels = arguments.pop()??;
            labels.remove("le");
            Some(labels)
        }
        // One argument is a vector, the others are numbers, which have no labels.
        _ => arguments.into_iter().try_fold(Labels::new(), |mut all, labels| {
            all.extend(labels?);
            Some(all)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use promql_parser::parser::parse;

    #[track_caller]
    fn labels(text: &str) -> Vec<String> {
        of(&parse(text).expect("PromQL")).expect("known").into_iter().collect()
    }

    #[test]
    fn labels_follow_aggregation_and_matching() {
        assert_eq!(labels("acceptbench_server_accepts_total"), ["acceptor", "instance", "job"]);
        assert_eq!(labels("sum by (job) (acceptbench_server_accepts_total)"), ["job"]);
        assert_eq!(labels("sum(acceptbench_server_accepts_total)"), [""; 0]);
        assert_eq!(labels("topk(3, acceptbench_server_accepts_total)"), ["acceptor", "instance", "job"]);
        assert_eq!(
            labels("count_values by (job) (\"backlog\", acceptbench_listener_backlog_requested)"),
            ["backlog", "job"]
        );
        assert_eq!(
            labels("acceptbench_listener_backlog_requested * on (job) group_left (role) acceptbench_build_info"),
            ["instance", "job", "listener", "role"]
        );
        assert_eq!(
            labels(
                "histogram_quantile(0.5, sum by (le, job) (rate(acceptbench_server_accept_queue_wait_seconds_bucket[1m])))"
            ),
            ["job"]
        );
        assert_eq!(labels("2 * up and on (job) acceptbench_build_info"), ["instance", "job"]);
    }

    #[test]
    fn a_label_that_is_not_there_is_named() {
        let missing = |text: &str| missing(&parse(text).expect("PromQL"));
        assert_eq!(missing("up{role=\"server\"}"), ["up has no label 'role'"]);
        assert_eq!(missing("sum by (le) (up)"), ["what sum adds up has no label 'le'"]);
        assert_eq!(missing("up * on (role) acceptbench_build_info"), ["the left side of * has no label 'role'"]);
        assert_eq!(
            missing("acceptbench_build_info * on (job) group_left (role) up"),
            ["the one side of group_left or group_right has no label 'role'"]
        );
        assert_eq!(missing("sum by (whatever) (not_ours)"), [""; 0]);
    }
}
