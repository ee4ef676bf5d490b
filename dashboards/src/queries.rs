//! Every query of a board, read from its JSON: what the rules look at, what `--list` prints and what the live test
//! asks.

use std::fmt;

use serde_json::Value;

/// Where a query or a finding belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The board as a whole.
    Board,
    /// A panel, by its title.
    Panel(String),
    /// A variable, by its name.
    Variable(String),
    /// An annotation, by its name.
    Annotation(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board => write!(f, "the board"),
            Self::Panel(title) => write!(f, "panel '{title}'"),
            Self::Variable(name) => write!(f, "variable '{name}'"),
            Self::Annotation(name) => write!(f, "annotation '{name}'"),
        }
    }
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whose it is.
    pub place: Place,
    /// Its name within the panel: A, B, ...
    pub ref_id: String,
    /// `PromQL` with Grafana's variables, or what a variable asks: `label_values(...)`.
    pub text: String,
    /// The names of its series, with `{{label}}`: a legend, or the texts of an annotation.
    pub legend: String,
    /// `time_series`, `table` or `heatmap`.
    pub format: String,
    /// Asked for one instant, not for a range.
    pub instant: bool,
    /// The type of the panel; empty for variables and annotations.
    pub panel: String,
}

/// A string in a JSON object; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The elements of a JSON list; none when there is no list.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The place of a panel.
pub(crate) fn panel_place(panel: &Value) -> Place {
    let title = text(panel, "title");
    Place::Panel(if title.is_empty() { format!("number {}", panel["id"]) } else { title.to_owned() })
}

/// Every panel, those inside collapsed rows included.
pub(crate) fn panels(board: &Value) -> Vec<&Value> {
    list(board, "/panels").iter().flat_map(|panel| std::iter::once(panel).chain(list(panel, "/panels"))).collect()
}

/// Every query of a board: of its panels, variables and annotations.
pub fn of(board: &Value) -> Vec<Query> {
    let panels = panels(board);
    let targets = panels.into_iter().flat_map(|panel| {
        list(panel, "/targets").iter().map(move |target| Query {
            place: panel_place(panel),
            ref_id: text(target, "refId").to_owned(),
            text: text(target, "expr").to_owned(),
            legend: text(target, "legendFormat").to_owned(),
            format: text(target, "format").to_owned(),
            instant: target["instant"].as_bool().unwrap_or(false),
            panel: text(panel, "type").to_owned(),
        })
    });
    let outside = |place: Place, text: &str, legend: String| Query {
        place,
        ref_id: String::new(),
        text: text.to_owned(),
        legend,
        format: "time_series".to_owned(),
        instant: false,
        panel: String::new(),
    };
    let variables = list(board, "/templating/list").iter().filter(|variable| variable["type"] == "query");
    let variables = variables.map(|variable| {
        let query = variable["query"].as_str().unwrap_or(text(&variable["query"], "query"));
        outside(Place::Variable(text(variable, "name").to_owned()), query, String::new())
    });
    let annotations = list(board, "/annotations/list").iter().filter(|annotation| annotation["expr"].is_string());
    let annotations = annotations.map(|annotation| {
        let says = format!("{} {}", text(annotation, "titleFormat"), text(annotation, "textFormat"));
        outside(Place::Annotation(text(annotation, "name").to_owned()), text(annotation, "expr"), says)
    });
    targets.chain(variables).chain(annotations).collect()
}

/// Selector and label of `label_values(SELECTOR, LABEL)`.
pub fn label_values(query: &str) -> Option<(&str, &str)> {
    let inside = query.trim().strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inside.rsplit_once(',')?;
    Some((selector.trim(), label.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_queries_of_panels_in_rows_variables_and_annotations_are_found() {
        let board = json!({
            "panels": [
                {"title": "Row", "type": "row", "panels": [{"title": "In", "targets": [{"refId": "A", "expr": "a"}]}]},
                {"title": "Out", "targets": [{"refId": "A", "expr": "b"}, {"refId": "B", "expr": "c", "instant": true}]},
            ],
            "templating": {"list": [{"type": "query", "name": "job", "query": {"query": "label_values(d, job)"}}]},
            "annotations": {"list": [{"name": "Trials", "expr": "e"}, {"builtIn": 1, "name": "Grafana's own"}]},
        });
        let found: Vec<(String, String)> =
            of(&board).into_iter().map(|query| (query.place.to_string(), query.text)).collect();
        let expected = [
            ("panel 'In'", "a"),
            ("panel 'Out'", "b"),
            ("panel 'Out'", "c"),
            ("variable 'job'", "label_values(d, job)"),
            ("annotation 'Trials'", "e"),
        ];
        assert_eq!(found, expected.map(|(place, text)| (place.to_owned(), text.to_owned())));
    }

    #[test]
    fn label_values_has_a_selector_and_a_label() {
        assert_eq!(label_values(r#"label_values(a{b="c", d="e"}, job)"#), Some((r#"a{b="c", d="e"}"#, "job")));
        assert_eq!(label_values("metrics(a)"), None);
    }
}
