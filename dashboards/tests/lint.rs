//! The boards keep every rule, and for every rule there is a board that breaks it and no other.

use dashboards::lint::{RULES, lint, lint_board};
use serde_json::{Value, json};

/// Breaks a good board in one way.
type Break = fn(&mut Value);

/// A broken board per rule, at least one each.
const BROKEN: &[(&str, Break)] = &[
    ("classic-json", |board| board["schemaVersion"] = json!(36)),
    ("classic-json", |board| board["id"] = json!(7)),
    ("classic-json", |board| board["editable"] = json!(true)),
    ("classic-json", |board| board["version"] = json!(3)),
    ("uid", |board| board["uid"] = json!("overview")),
    ("uid", |board| board["uid"] = json!("acceptbench-listeners")),
    ("tag", |board| board["tags"] = json!(["tcp"])),
    ("refresh", |board| board["refresh"] = json!("1m")),
    ("refresh", |board| board["time"]["from"] = json!("now-6h")),
    ("links", |board| board["links"][0]["keepTime"] = json!(false)),
    ("links", |board| board["links"][0]["includeVars"] = json!(false)),
    ("variables", |board| remove_named(&mut board["templating"]["list"], "datasource")),
    ("variables", |board| variable(board, "job")["allValue"] = json!(".*")),
    ("variables", |board| variable(board, "instance")["multi"] = json!(false)),
    ("variables", |board| variable(board, "instance")["refresh"] = json!(1)),
    ("runs", |board| replace(target(board, PICKED), r#"run=~"$run", "#, "")),
    ("runs", |board| replace(target(board, PICKED), r#"run=~"$run""#, r#"run="1""#)),
    ("runs", |board| replace(&mut board["annotations"]["list"][0], r#"run=~"$run", "#, "")),
    ("drill-down", |board| link(board)["url"] = json!("/d/acceptbench-nowhere?${__url_time_range}&${__all_variables}")),
    ("drill-down", |board| link(board)["url"] = json!("/d/acceptbench-accept-queue?${__all_variables}")),
    ("drill-down", |board| link(board)["url"] = json!("https://example.org/")),
    ("drill-down", |board| link(board)["title"] = json!("")),
    ("datasource", |board| target(board, PLANNED)["datasource"]["uid"] = json!("prometheus")),
    ("datasource", |board| panel(board, PLANNED)["datasource"] = Value::Null),
    ("datasource", |board| board["annotations"]["list"][0]["datasource"]["uid"] = json!("-- Grafana --")),
    ("datasource", |board| variable(board, "job")["datasource"] = Value::Null),
    ("annotation-step", |board| board["annotations"]["list"][0]["step"] = json!("")),
    ("health", |board| board["panels"][0]["title"] = json!("Numbers")),
    ("health", |board| {
        // Drawn as lines, with what lines need, so that only the first row's promise is broken.
        let first_row = board["panels"].as_array_mut().expect("panels").iter_mut().skip(1);
        for panel in first_row.take_while(|panel| panel["type"] != "row") {
            panel["type"] = json!("timeseries");
            for target in panel["targets"].as_array_mut().expect("targets") {
                target["instant"] = json!(false);
            }
        }
    }),
    ("title", |board| panel(board, PLANNED)["title"] = json!("")),
    ("title", |board| {
        panel(board, PLANNED)["title"] = json!("Connect errors by verdict");
    }),
    ("unit", |board| panel(board, PLANNED)["fieldConfig"]["defaults"]["unit"] = json!("")),
    ("unit", |board| panel(board, PLANNED)["fieldConfig"]["defaults"]["unit"] = json!("velocityknot")),
    ("description", |board| panel(board, PLANNED)["description"] = json!("")),
    ("description", |board| panel(board, PLANNED)["description"] = json!("Follows rate. Bad: gaps")),
    ("description", |board| panel(board, PLANNED)["description"] = json!("Follows rate.")),
    ("knob", |board| panel(board, PLANNED)["description"] = json!("What there is. Bad: gaps.")),
    ("grid", |board| panel(board, PLANNED)["gridPos"]["w"] = json!(25)),
    ("grid", |board| {
        let other = panel(board, "Connect errors by verdict")["gridPos"].clone();
        panel(board, PLANNED)["gridPos"] = other;
    }),
    ("panel-id", |board| panel(board, PLANNED)["id"] = json!(1)),
    ("ref-id", |board| panel(board, PLANNED)["targets"][1]["refId"] = json!("A")),
    ("heat-map", |board| target(board, HEAT_MAP)["format"] = json!("time_series")),
    ("heat-map", |board| target(board, HEAT_MAP)["legendFormat"] = json!("{{le}} s")),
    ("heat-map", |board| replace(target(board, HEAT_MAP), "by (le)", "by (le, instance)")),
    ("instant", |board| target(board, "Accepts")["instant"] = json!(false)),
    ("instant", |board| target(board, PLANNED)["instant"] = json!(true)),
    ("legend", |board| target(board, PLANNED)["legendFormat"] = json!("")),
    ("legend", |board| target(board, "Connect errors by verdict")["legendFormat"] = json!("errors")),
    ("legend-labels", |board| target(board, PLANNED)["legendFormat"] = json!("{{acceptor}}")),
    ("legend-labels", |board| board["annotations"]["list"][0]["textFormat"] = json!("{{colour}}")),
    ("parses", |board| target(board, PLANNED)["expr"] = json!("sum(")),
    ("parses", |board| variable(board, "instance")["query"]["query"] = json!("label_values({, instance)")),
    ("picked", |board| replace(target(board, PLANNED), r#", instance=~"$instance""#, "")),
    ("picked", |board| replace(target(board, PLANNED), r#"job=~"$job""#, r#"job="server""#)),
    ("picked", |board| {
        variable(board, "instance")["query"]["query"] = json!("label_values(acceptbench_build_info, instance)");
    }),
    ("metric", |board| replace(target(board, PLANNED), "planned_total", "planed_total")),
    ("metric", |board| replace(target(board, PLANNED), "acceptbench_loadgen", "loadgen")),
    ("metric", |board| replace(target(board, PLANNED), "planned_total", "planned_total_bucket")),
    ("labels", |board| replace(target(board, PLANNED), "{job", r#"{colour="red", job"#)),
    ("labels", |board| replace(target(board, "Connect errors by verdict"), "by (verdict)", "by (verdict, colour)")),
    ("labels", |board| replace(target(board, "Programs up"), "on (job, instance)", "on (job, instance, role)")),
    ("rate-window", |board| replace(target(board, PLANNED), "$__rate_interval", "1m")),
    ("counter", |board| {
        replace(target(board, PLANNED), "rate(", "(");
        replace(target(board, PLANNED), "[$__rate_interval]", "");
    }),
    ("counter", |board| replace(target(board, PLANNED), "rate(", "delta(")),
    ("counter", |board| replace(target(board, PLANNED), "rate(", "last_over_time(")),
    ("rate-of-gauge", |board| replace(target(board, PLANNED), "planned_total", "target_rate")),
    ("rate-of-gauge", |board| {
        replace(target(board, PLANNED), "rate(", "rate(rate(");
        replace(target(board, PLANNED), "])", "])[1m:1s])");
    }),
    ("quantile", |board| replace(target(board, LATENCY), "by (le)", "")),
    ("quantile", |board| replace(target(board, LATENCY), "sum by (le)", "max by (le)")),
    ("count-values", |board| replace(target(board, BINDS), "without ()", "by (job, instance, listener)")),
    ("interval", |board| replace(&mut board["annotations"]["list"][1], "$__rate_interval", "$__interval")),
    ("interval", |board| replace(target(board, PLANNED), "$__rate_interval", "$__interval")),
];

const BINDS: &str = "What binds the accept queue";
const PICKED: &str = "The quantity picked, as trials came in";
const PLANNED: &str = "Planned, attempted, served, accepted";
const LATENCY: &str = "Latency from the planned instant";
const HEAT_MAP: &str = "Latency to the first byte";

fn named<'a>(list: &'a mut Value, key: &str, name: &str) -> &'a mut Value {
    let found = list.as_array_mut().expect("a list").iter_mut().find(|one| one[key] == name);
    found.unwrap_or_else(|| panic!("none is called {name}"))
}

fn panel<'a>(board: &'a mut Value, title: &str) -> &'a mut Value {
    named(&mut board["panels"], "title", title)
}

/// The first query of a panel.
fn target<'a>(board: &'a mut Value, title: &str) -> &'a mut Value {
    &mut panel(board, title)["targets"][0]
}

/// The first link of a panel that has one.
fn link(board: &mut Value) -> &mut Value {
    &mut panel(board, BINDS)["links"][0]
}

fn variable<'a>(board: &'a mut Value, name: &str) -> &'a mut Value {
    named(&mut board["templating"]["list"], "name", name)
}

fn remove_named(list: &mut Value, name: &str) {
    list.as_array_mut().expect("a list").retain(|one| one["name"] != name);
}

/// Replaces in the query of a target or annotation; what is replaced is there.
fn replace(target: &mut Value, from: &str, to: &str) {
    let text = target["expr"].as_str().expect("a query");
    assert!(text.contains(from), "{from} is not in {text}");
    target["expr"] = json!(text.replace(from, to));
}

fn boards() -> Vec<Value> {
    dashboards::json().expect("boards become JSON")
}

#[test]
fn the_boards_keep_every_rule() {
    let findings: Vec<String> = lint(&boards()).iter().map(ToString::to_string).collect();
    assert_eq!(findings, [""; 0]);
}

#[test]
fn a_broken_board_breaks_exactly_its_rule() {
    let boards = boards();
    let mut failures = Vec::new();
    for (index, (rule, breaks)) in BROKEN.iter().enumerate() {
        // Only one board lets a user pick runs.
        let uid = if *rule == "runs" { "acceptbench-experiment" } else { "acceptbench-overview" };
        let (mut board, others): (Vec<Value>, Vec<Value>) =
            boards.iter().cloned().partition(|board| board["uid"] == uid);
        let mut board = board.pop().expect("there is one");
        breaks(&mut board);
        let findings = lint_board(&board, &others);
        if findings.is_empty() || findings.iter().any(|finding| finding.rule != *rule) {
            let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
            failures.push(format!("number {index}, made to break {rule}: {found:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_rule_is_broken_by_some_board() {
    let unbroken = RULES.iter().map(|rule| rule.name).filter(|name| BROKEN.iter().all(|(rule, _)| rule != name));
    assert_eq!(unbroken.collect::<Vec<_>>(), [""; 0]);
    let unknown = BROKEN.iter().map(|(rule, _)| *rule).filter(|name| RULES.iter().all(|rule| rule.name != *name));
    assert_eq!(unknown.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn rules_have_names_of_their_own() {
    let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
}

#[test]
fn every_board_is_led_to_by_a_panel_of_another() {
    let boards = boards();
    let mut reached: Vec<&str> = Vec::new();
    for board in &boards {
        for panel in board["panels"].as_array().expect("panels") {
            let links = panel["links"].as_array().map_or(&[][..], Vec::as_slice);
            let urls = links.iter().map(|link| link["url"].as_str().expect("an address"));
            let uids = urls.filter_map(|url| Some(url.strip_prefix("/d/")?.split_once('?')?.0));
            reached.extend(uids.inspect(|uid| assert!(board["uid"] != **uid, "{}: leads to itself", board["title"])));
        }
    }
    for name in ["accept-queue", "load-generator", "kernel-parameters", "experiment"] {
        assert!(reached.contains(&format!("acceptbench-{name}").as_str()), "no panel leads to {name}");
    }
}

#[test]
fn the_experiment_board_lets_several_runs_be_picked_and_shows_their_trials_only() {
    let mut boards = boards();
    let board = named_board(&mut boards, "acceptbench-experiment");
    let run = variable(board, "run");
    assert!(run["multi"] == true && run["includeAll"] == true && run["allValue"] == ".+", "{run}");
    let quantity = variable(board, "quantity");
    assert!(quantity["multi"] == false && quantity["includeAll"] == false, "{quantity}");
    assert_eq!(quantity["current"]["value"], "served-ratio", "a string where one may be chosen");
    let trials = board["annotations"]["list"][0].clone();
    assert_eq!(trials["name"], "Trials");
    assert!(trials["expr"].as_str().is_some_and(|text| text.contains(r#"run=~"$run""#)), "{trials}");
}

fn named_board<'a>(boards: &'a mut [Value], uid: &str) -> &'a mut Value {
    boards.iter_mut().find(|board| board["uid"] == uid).unwrap_or_else(|| panic!("no board {uid}"))
}
