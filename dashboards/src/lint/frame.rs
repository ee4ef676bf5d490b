//! Rules about the board itself: its JSON, links, variables, data source, annotations and first row.

use serde_json::{Value, json};

use super::Board;
use crate::model::{DATASOURCE, KEEPS, SCHEMA_VERSION, TAG, UID_PREFIX};
use crate::queries::{Place, label_values, list, panel_place, text};

/// A finding about the whole board, unless it is as it should be.
fn unless(good: bool, text: impl Into<String>) -> Vec<(Place, String)> {
    if good { Vec::new() } else { vec![(Place::Board, text.into())] }
}

pub(super) fn classic_json(board: &Board) -> Vec<(Place, String)> {
    let wrong = [
        ("schemaVersion", board.json["schemaVersion"] == SCHEMA_VERSION),
        ("id", board.json["id"].is_null()),
        ("editable", board.json["editable"] == false),
        ("version", board.json["version"].is_null() || board.json["version"] == 0),
    ];
    let wrong = wrong.into_iter().filter(|(_, good)| !good);
    wrong.map(|(field, _)| (Place::Board, format!("{field} is {}", board.json[field]))).collect()
}

pub(super) fn uid(board: &Board) -> Vec<(Place, String)> {
    let uid = text(board.json, "uid");
    let mut findings =
        unless(uid.len() > UID_PREFIX.len() && uid.starts_with(UID_PREFIX), format!("the uid is '{uid}'"));
    findings.extend(unless(!board.others.contains(&uid), format!("another board has the uid '{uid}'")));
    findings
}

pub(super) fn tag(board: &Board) -> Vec<(Place, String)> {
    unless(list(board.json, "/tags").iter().any(|tag| tag == TAG), format!("no tag '{TAG}'"))
}

pub(super) fn refresh(board: &Board) -> Vec<(Place, String)> {
    let refresh = text(board.json, "refresh");
    let mut findings = unless(matches!(refresh, "1s" | "5s"), format!("refresh is '{refresh}'"));
    let time = &board.json["time"];
    findings.extend(unless(*time == json!({"from": "now-5m", "to": "now"}), format!("the time is {time}")));
    findings
}

pub(super) fn links(board: &Board) -> Vec<(Place, String)> {
    let good = |link: &&Value| {
        link["type"] == "dashboards"
            && list(link, "/tags").iter().any(|tag| tag == TAG)
            && link["keepTime"] == true
            && link["includeVars"] == true
    };
    unless(
        list(board.json, "/links").iter().filter(good).count() == 1,
        format!("no link to the boards tagged '{TAG}' that keeps time and variables"),
    )
}

pub(super) fn drill_down(board: &Board) -> Vec<(Place, String)> {
    let mut findings = Vec::new();
    for panel in board.drawn() {
        for link in list(panel, "/links") {
            let url = text(link, "url");
            let target = url.strip_prefix("/d/").and_then(|rest| rest.split_once('?'));
            let good = target.is_some_and(|(uid, keeps)| board.others.contains(&uid) && keeps == KEEPS);
            if !good || text(link, "title").is_empty() {
                findings.push((panel_place(panel), format!("the link '{}' to {url}", text(link, "title"))));
            }
        }
    }
    findings
}

pub(super) fn variables(board: &Board) -> Vec<(Place, String)> {
    let variables = list(board.json, "/templating/list");
    let missing = ["datasource", "job", "instance"].into_iter().filter_map(|name| {
        let found = variables.iter().find(|variable| variable["name"] == name);
        let good = found.is_some_and(|variable| match name {
            "datasource" => variable["type"] == "datasource" && variable["query"] == "prometheus",
            _ => is_choice(variable, name),
        });
        let what = if found.is_some() { "is not as it must be" } else { "is missing" };
        (!good).then(|| (Place::Variable(name.to_owned()), what.to_owned()))
    });
    missing.collect()
}

/// Several values of a label, or all of them, looked up when the time range changes, sorted.
fn is_choice(variable: &Value, label: &str) -> bool {
    let query = text(&variable["query"], "query");
    variable["type"] == "query"
        && variable["multi"] == true
        && variable["includeAll"] == true
        && variable["allValue"] == ".+"
        && variable["refresh"] == 2
        && variable["sort"].as_u64().is_some_and(|sort| sort > 0)
        && label_values(query).is_some_and(|(_, of)| of == label)
}

pub(super) fn datasource(board: &Board) -> Vec<(Place, String)> {
    let expected = json!(DATASOURCE);
    let mut users: Vec<(Place, &Value)> = Vec::new();
    for panel in board.drawn() {
        users.push((panel_place(panel), panel));
        users.extend(list(panel, "/targets").iter().map(|target| (panel_place(panel), target)));
    }
    let variables = list(board.json, "/templating/list").iter().filter(|variable| variable["type"] == "query");
    users.extend(variables.map(|variable| (Place::Variable(text(variable, "name").to_owned()), variable)));
    let annotations = list(board.json, "/annotations/list").iter().filter(|annotation| annotation["expr"].is_string());
    users.extend(annotations.map(|annotation| (Place::Annotation(text(annotation, "name").to_owned()), annotation)));
    let wrong = users.into_iter().filter(|(_, user)| user["datasource"] != expected);
    wrong.map(|(place, user)| (place, format!("the data source is {}", user["datasource"]))).collect()
}

pub(super) fn annotation_step(board: &Board) -> Vec<(Place, String)> {
    let annotations = list(board.json, "/annotations/list").iter().filter(|annotation| annotation["expr"].is_string());
    let wrong = annotations.filter(|annotation| annotation["step"] != "1s");
    wrong
        .map(|annotation| {
            let place = Place::Annotation(text(annotation, "name").to_owned());
            (place, format!("the step is {}", annotation["step"]))
        })
        .collect()
}

pub(super) fn health(board: &Board) -> Vec<(Place, String)> {
    let mut panels = list(board.json, "/panels").iter();
    let heading =
        panels.next().is_some_and(|panel| panel["type"] == "row" && text(panel, "title").contains("Healthy?"));
    let mut first_row = panels.take_while(|panel| panel["type"] != "row");
    unless(
        heading && first_row.any(|panel| panel["type"] == "stat"),
        "it does not begin with a row 'Healthy? ...' that has a stat",
    )
}
