//! Rules about `PromQL`: what is selected, and what is done with counters and histograms.

use promql_parser::parser::{Expr, LabelModifier};

use super::promql::{Selection, bare, is_interval, is_rate, is_rate_interval, selections, walk};
use super::{Board, labels};
use crate::catalogue;
use crate::queries::{Place, list};
use crate::query::RUN;

pub(super) fn parses(board: &Board) -> Vec<(Place, String)> {
    let wrong = board.queries.iter().filter_map(|asked| Some((asked, asked.parsed.as_ref().err()?)));
    wrong.map(|(asked, error)| (asked.query.place.clone(), format!("query {}: {error}", asked.query.ref_id))).collect()
}

/// A finding for each selector about which `wrong` has something to say.
fn each(board: &Board, wrong: impl Fn(&Place, &Selection) -> Option<String>) -> Vec<(Place, String)> {
    let mut findings = Vec::new();
    for (query, expr) in board.parsed() {
        let said = selections(expr).into_iter().filter_map(|selection| wrong(&query.place, &selection));
        findings.extend(said.map(|said| (query.place.clone(), said)));
    }
    findings
}

/// The matchers a selector must carry. A variable narrows itself by those before it only.
pub(super) fn picked(board: &Board) -> Vec<(Place, String)> {
    each(board, |place, selection| {
        let needed: &[(&str, &str)] = match place {
            Place::Variable(name) if name == "job" => &[],
            Place::Variable(name) if name == "instance" => &[("job", "$job")],
            _ => &[("job", "$job"), ("instance", "$instance")],
        };
        let (label, value) = needed.iter().find(|(label, value)| !selection.has(label, value))?;
        Some(format!("{} without {label}=~\"{value}\"", selection.name()))
    })
}

/// A variable cannot narrow itself, and is looked up before those after it.
pub(super) fn runs(board: &Board) -> Vec<(Place, String)> {
    let picks = list(board.json, "/templating/list").iter().any(|variable| variable["name"] == "run");
    if !picks {
        return Vec::new();
    }
    each(board, |place, selection| {
        let free = match place {
            Place::Variable(name) => name != "quantity",
            // Trials start programs again and again, those of runs that were not picked, too.
            Place::Annotation(name) => name == "Restarted",
            _ => false,
        };
        let of_a_run = catalogue::find(selection.name()).is_some_and(|series| series.labels.contains(&"run"));
        (of_a_run && !free && !selection.has("run", "$run")).then(|| format!("{} without {RUN}", selection.name()))
    })
}

pub(super) fn metric(board: &Board) -> Vec<(Place, String)> {
    each(board, |_, selection| {
        let name = selection.name();
        catalogue::find(name).is_none().then(|| format!("there is no metric '{name}'"))
    })
}

pub(super) fn labels(board: &Board) -> Vec<(Place, String)> {
    let missing = |(query, expr)| {
        let query: &crate::queries::Query = query;
        labels::missing(expr).into_iter().map(|text| (query.place.clone(), text))
    };
    board.parsed().flat_map(missing).collect()
}

pub(super) fn rate_window(board: &Board) -> Vec<(Place, String)> {
    each(board, |_, selection| {
        let window = selection.window?;
        let wrong = selection.in_rate() && !is_rate_interval(window) && !is_interval(window);
        wrong.then(|| format!("{}({}[{}s])", selection.function, selection.name(), window.as_secs()))
    })
}

pub(super) fn counter(board: &Board) -> Vec<(Place, String)> {
    each(board, |place, selection| {
        let series = catalogue::find(selection.name());
        let cumulative = series.is_some_and(|series| series.cumulative);
        let counted = series.is_some_and(|series| series.of_a_run) && selection.function == "last_over_time";
        let asks_for_labels = matches!(place, Place::Variable(_));
        let wrong = cumulative && !selection.in_rate() && !counted && !asks_for_labels;
        wrong.then(|| format!("{} is not directly in rate or increase", selection.name()))
    })
}

pub(super) fn rate_of_gauge(board: &Board) -> Vec<(Place, String)> {
    let mut findings = each(board, |_, selection| {
        let gauge = catalogue::find(selection.name()).is_some_and(|series| !series.cumulative);
        (gauge && selection.in_rate()).then(|| format!("{}({})", selection.function, selection.name()))
    });
    for (query, expr) in board.parsed() {
        walk(expr, None, &mut |node, around| {
            if let (Expr::Subquery(_), Some(Expr::Call(call))) = (node, around)
                && is_rate(call.func.name)
            {
                findings.push((query.place.clone(), format!("{} of a subquery", call.func.name)));
            }
        });
    }
    findings
}

pub(super) fn quantile(board: &Board) -> Vec<(Place, String)> {
    let mut findings = Vec::new();
    for (query, expr) in board.parsed() {
        walk(expr, None, &mut |node, _| {
            if let Expr::Call(call) = node
                && call.func.name == "histogram_quantile"
                && !call.args.args.last().is_some_and(|argument| is_sum_of_bucket_rates(argument))
            {
                let text = "histogram_quantile is not of sum by (le, ...) (rate(..._bucket[...]))";
                findings.push((query.place.clone(), text.to_owned()));
            }
        });
    }
    findings
}

fn is_sum_of_bucket_rates(expr: &Expr) -> bool {
    let Expr::Aggregate(aggregate) = bare(expr) else { return false };
    let by_le = match &aggregate.modifier {
        Some(LabelModifier::Include(by)) => by.labels.iter().any(|label| label == "le"),
        Some(LabelModifier::Exclude(without)) => without.labels.iter().all(|label| label != "le"),
        None => false,
    };
    let of_rate = match bare(&aggregate.expr) {
        Expr::Call(call) => is_rate(call.func.name),
        _ => false,
    };
    let of_buckets = selections(&aggregate.expr).iter().all(|selection| selection.name().ends_with("_bucket"));
    aggregate.op.to_string() == "sum" && by_le && of_rate && of_buckets
}

pub(super) fn interval(board: &Board) -> Vec<(Place, String)> {
    each(board, |_, selection| {
        let wrong = selection.window.is_some_and(is_interval);
        wrong.then(|| format!("{}({}[$__interval])", selection.function, selection.name()))
    })
}

/// Measured with Prometheus 2.42: over a range, `count_values by` three labels loses one of them at each step.
pub(super) fn count_values(board: &Board) -> Vec<(Place, String)> {
    let mut findings = Vec::new();
    for (query, expr) in board.parsed() {
        walk(expr, None, &mut |node, _| {
            if let Expr::Aggregate(aggregate) = node
                && aggregate.op.to_string() == "count_values"
                && !matches!(aggregate.modifier, Some(LabelModifier::Exclude(_)))
            {
                findings.push((query.place.clone(), "count_values without 'without'".to_owned()));
            }
        });
    }
    findings
}
