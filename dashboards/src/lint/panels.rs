//! Rules about panels: what a reader is told, where they lie, and how their series are drawn.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Board, labels};
use crate::model::{COLUMNS, Unit};
use crate::queries::{Place, list, panel_place, text};

/// What a reader can turn. Options of the programs, the first argument of a load, kernel parameters, limits.
const KNOBS: &[&str] = &[
    "accept-delay",
    "acceptors",
    "arrivals",
    "backlog",
    "deadline",
    "duration",
    "engine",
    "ip_local_port_range",
    "max-in-flight",
    "max-listeners",
    "nofile",
    "on-accept",
    "rate",
    "relisten",
    "replicates",
    "retries",
    "retire",
    "reuseport",
    "somaxconn",
    "tcp_abort_on_overflow",
    "tcp_fastopen",
    "tcp_fin_timeout",
    "tcp_max_tw_buckets",
    "tcp_max_syn_backlog",
    "tcp_migrate_req",
    "tcp_syn_linear_timeouts",
    "tcp_syn_retries",
    "tcp_synack_retries",
    "tcp_syncookies",
    "tcp_tw_reuse",
    "warm-up",
    "workers",
];

/// Is `knob` in `text` as a word of its own?
fn names(text: &str, knob: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices(knob)
        .any(|(at, _)| !text[..at].ends_with(part_of_word) && !text[at + knob.len()..].starts_with(part_of_word))
}

/// A finding for each panel that shows something and about which `wrong` has something to say.
fn each(board: &Board, wrong: impl Fn(&Value) -> Option<String>) -> Vec<(Place, String)> {
    board.drawn().filter_map(|panel| Some((panel_place(panel), wrong(panel)?))).collect()
}

pub(super) fn title(board: &Board) -> Vec<(Place, String)> {
    let mut seen = BTreeSet::from([""]);
    let taken = board.panels().into_iter().filter(|panel| !seen.insert(text(panel, "title")));
    taken.map(|panel| (panel_place(panel), format!("the title '{}' is empty or taken", text(panel, "title")))).collect()
}

pub(super) fn unit(board: &Board) -> Vec<(Place, String)> {
    each(board, |panel| {
        let unit = panel.pointer("/fieldConfig/defaults/unit").and_then(Value::as_str).unwrap_or_default();
        let known = Unit::ALL.iter().any(|known| known.id() == unit);
        (!known).then(|| format!("the unit is '{unit}'"))
    })
}

pub(super) fn description(board: &Board) -> Vec<(Place, String)> {
    each(board, |panel| {
        let description = text(panel, "description");
        let good = description.ends_with('.') && description.contains("Bad:");
        (!good)
            .then(|| format!("the description is '{description}', without a period at its end or what bad looks like"))
    })
}

pub(super) fn knob(board: &Board) -> Vec<(Place, String)> {
    each(board, |panel| {
        let description = text(panel, "description");
        let good = description.is_empty() || KNOBS.iter().any(|knob| names(description, knob));
        (!good).then(|| "the description names no knob".to_owned())
    })
}

/// Left, top, right and bottom edge.
fn edges(panel: &Value) -> Option<[u64; 4]> {
    let at = |key: &str| panel["gridPos"][key].as_u64();
    let (x, y) = (at("x")?, at("y")?);
    Some([x, y, x + at("w")?, y + at("h")?])
}

pub(super) fn grid(board: &Board) -> Vec<(Place, String)> {
    let mut findings = Vec::new();
    let mut placed: Vec<([u64; 4], &Value)> = Vec::new();
    for panel in list(board.json, "/panels") {
        let Some(edges) = edges(panel) else {
            findings.push((panel_place(panel), "it has no place".to_owned()));
            continue;
        };
        let [left, top, right, bottom] = edges;
        if right > u64::from(COLUMNS) || left == right || top == bottom {
            findings
                .push((panel_place(panel), format!("it goes from column {left} to {right}, row {top} to {bottom}")));
        }
        let on = placed.iter().find(|([l, t, r, b], _)| left < *r && *l < right && top < *b && *t < bottom);
        if let Some((_, other)) = on {
            findings.push((panel_place(panel), format!("it lies on {}", panel_place(other))));
        }
        placed.push((edges, panel));
    }
    findings
}

pub(super) fn panel_id(board: &Board) -> Vec<(Place, String)> {
    let mut seen = BTreeSet::from([0]);
    let taken = board.panels().into_iter().filter(|panel| !seen.insert(panel["id"].as_u64().unwrap_or(0)));
    taken.map(|panel| (panel_place(panel), format!("the id {} is taken", panel["id"]))).collect()
}

pub(super) fn ref_id(board: &Board) -> Vec<(Place, String)> {
    each(board, |panel| {
        let mut seen = BTreeSet::from([""]);
        let taken = list(panel, "/targets").iter().find(|target| !seen.insert(text(target, "refId")))?;
        Some(format!("the name {} is taken", taken["refId"]))
    })
}

pub(super) fn heat_map(board: &Board) -> Vec<(Place, String)> {
    let targets = board.queries.iter().filter(|asked| asked.query.panel == "heatmap");
    let wrong = targets.filter(|asked| {
        let series = asked.parsed.as_ref().ok().and_then(labels::of);
        let other = series.is_some_and(|labels| labels != BTreeSet::from(["le".to_owned()]));
        asked.query.format != "heatmap" || asked.query.legend != "{{le}}" || other
    });
    let say = "it needs the format heatmap, the legend {{le}} and series by le only";
    wrong.map(|asked| (asked.query.place.clone(), format!("query {}: {say}", asked.query.ref_id))).collect()
}

pub(super) fn instant(board: &Board) -> Vec<(Place, String)> {
    let wrong = board.queries.iter().map(|asked| &asked.query).filter(|query| match query.panel.as_str() {
        "stat" | "table" => !query.instant,
        "" => false,
        _ => query.instant,
    });
    wrong
        .map(|query| {
            let asked = if query.instant { "for one instant" } else { "for a range" };
            (query.place.clone(), format!("query {} of a {} asks {asked}", query.ref_id, query.panel))
        })
        .collect()
}

/// Panels whose series carry names.
const NAMED: [&str; 3] = ["stat", "timeseries", "state-timeline"];

pub(super) fn legend(board: &Board) -> Vec<(Place, String)> {
    let named = board.queries.iter().filter(|asked| NAMED.contains(&asked.query.panel.as_str()));
    let wrong = named.filter_map(|asked| {
        let query = &asked.query;
        let several = asked.parsed.as_ref().ok().and_then(labels::of).is_some_and(|labels| !labels.is_empty());
        let why = match query.legend.as_str() {
            "" | "__auto" => "no legend",
            legend if several && !legend.contains("{{") => "its series share one legend",
            _ => return None,
        };
        Some((query.place.clone(), format!("query {}: {why}", query.ref_id)))
    });
    wrong.collect()
}

/// The labels a legend names.
fn named_in(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim()))
}

pub(super) fn legend_labels(board: &Board) -> Vec<(Place, String)> {
    let mut findings = Vec::new();
    for (query, expr) in board.parsed() {
        let Some(labels) = labels::of(expr) else { continue };
        let missing = named_in(&query.legend).filter(|label| !labels.contains(*label));
        findings.extend(missing.map(|label| {
            (query.place.clone(), format!("the series of query {} have no label '{label}'", query.ref_id))
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knob_is_a_word_of_its_own() {
        assert!(names("Raise backlog.", "backlog"));
        assert!(!names("tcp_max_syn_backlog bounds it.", "backlog"));
        assert!(!names("rates", "rate"));
        assert!(names("backlogs and backlog", "backlog"));
    }
}
