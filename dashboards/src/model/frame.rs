//! What stands around the panels of every board: variables, links to the other boards, annotations.

use serde::Serialize;
use serde_json::{Value, json};

use super::{DATASOURCE, Datasource, TAG, UID_PREFIX};
use crate::query::{self, metric};

/// The time shown when a board is opened.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct TimeRange {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

/// Grafana's wrapping of a list of variables.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Templating {
    pub(super) list: Vec<Variable>,
}

/// Grafana's wrapping of a list of annotations.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Annotations {
    pub(super) list: Vec<Annotation>,
}

/// A link at the top of a board to all boards with a tag.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    title: &'static str,
    r#type: &'static str,
    tags: Vec<&'static str>,
    as_dropdown: bool,
    icon: &'static str,
    include_vars: bool,
    keep_time: bool,
    tooltip: &'static str,
    url: &'static str,
}

/// To every other board, with the time and the variables of this one. Found by tag, so a new board needs no new link.
pub(super) fn links() -> Vec<Link> {
    vec![Link {
        title: "acceptbench",
        r#type: "dashboards",
        tags: vec![TAG],
        as_dropdown: false,
        icon: "external link",
        include_vars: true,
        keep_time: true,
        tooltip: "",
        url: "",
    }]
}

/// A link from a panel to another board.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PanelLink {
    title: &'static str,
    url: String,
    target_blank: bool,
}

impl PanelLink {
    /// To the board `name`, with the time and the variables of this one.
    pub(super) fn new(name: &str, title: &'static str) -> Self {
        Self { title, url: format!("/d/{UID_PREFIX}{name}?{KEEPS}"), target_blank: false }
    }

    /// Does it lead to the board with this uid?
    pub(super) fn leads_to(&self, uid: &str) -> bool {
        self.url.strip_prefix("/d/").and_then(|rest| rest.strip_prefix(uid)).is_some_and(|rest| rest.starts_with('?'))
    }
}

/// What makes Grafana carry the time shown and every variable over to the board a link leads to.
pub const KEEPS: &str = "${__url_time_range}&${__all_variables}";

/// A choice at the top of a board.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Variable {
    /// Which Prometheus.
    #[serde(rename_all = "camelCase")]
    Datasource {
        /// How a query refers to it.
        name: &'static str,
        /// What the user reads.
        label: &'static str,
        /// The type of data source.
        query: &'static str,
        /// 1: when the board is loaded.
        refresh: u8,
        /// 0: shown.
        hide: u8,
    },
    /// Values of a label, several at once.
    #[serde(rename_all = "camelCase")]
    Query {
        /// How a query refers to it.
        name: &'static str,
        /// What the user reads.
        label: &'static str,
        /// Where the values come from.
        datasource: Datasource,
        /// `label_values(SELECTOR, LABEL)`.
        definition: String,
        /// The same for the query editor.
        query: VariableQuery,
        /// Several values may be chosen.
        multi: bool,
        /// "All" may be chosen.
        include_all: bool,
        /// What "All" becomes in a matcher.
        all_value: &'static str,
        /// What is chosen at first.
        current: Current,
        /// 2: when the time range changes too.
        refresh: u8,
        /// 1: by name.
        sort: u8,
        /// 0: shown.
        hide: u8,
    },
}

/// The query of a variable.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VariableQuery {
    query: String,
    ref_id: &'static str,
}

/// What is chosen: a list where several may be, else a string.
#[derive(Debug, Clone, Serialize)]
pub struct Current {
    selected: bool,
    text: Value,
    value: Value,
}

/// The values of a label: all of them to begin with, or the `one` where several at once say nothing.
fn values_of(name: &'static str, label: &'static str, definition: String, one: Option<&str>) -> Variable {
    let query = VariableQuery { query: definition.clone(), ref_id: "StandardVariableQuery" };
    let (text, value) = match one {
        Some(value) => (json!(value), json!(value)),
        None => (json!(["All"]), json!(["$__all"])),
    };
    Variable::Query {
        name,
        label,
        datasource: DATASOURCE,
        definition,
        query,
        multi: one.is_none(),
        include_all: one.is_none(),
        all_value: ".+",
        current: Current { selected: true, text, value },
        refresh: 2,
        sort: 1,
        hide: 0,
    }
}

/// Data source, job and instance. Every program shows [`BUILD_INFO`](metric::standard::BUILD_INFO), so jobs of others
/// in the same Prometheus are not offered.
pub(super) fn variables() -> Vec<Variable> {
    let build_info = metric::standard::BUILD_INFO.full_name();
    vec![
        Variable::Datasource { name: "datasource", label: "Data source", query: "prometheus", refresh: 1, hide: 0 },
        values_of("job", "Job", format!("label_values({build_info}, job)"), None),
        values_of("instance", "Instance", format!("label_values({build_info}{{job=~\"$job\"}}, instance)"), None),
    ]
}

/// Which runs, and which of their quantities, besides those of every board.
pub(super) fn run_variables() -> [Variable; 2] {
    use metric::runner;
    let run = format!("label_values({}, run)", query::sel(&runner::INFO, ""));
    let quantity = format!("label_values({}, quantity)", query::sel(&runner::RESULT, query::RUN));
    // Quantities have units of their own: two on one axis say nothing.
    [values_of("run", "Run", run, None), values_of("quantity", "Quantity", quantity, Some("served-ratio"))]
}

/// Marks on the time axis.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    name: &'static str,
    datasource: Datasource,
    enable: bool,
    hide: bool,
    icon_color: &'static str,
    expr: String,
    /// Samples no further apart than this become one region.
    step: &'static str,
    title_format: &'static str,
    text_format: &'static str,
    tag_keys: &'static str,
    use_value_for_time: bool,
}

impl Annotation {
    fn new(name: &'static str, icon_color: &'static str, expr: String) -> Self {
        Self {
            name,
            datasource: DATASOURCE,
            enable: true,
            hide: false,
            icon_color,
            expr,
            step: "1s",
            title_format: "",
            text_format: "",
            tag_keys: "",
            use_value_for_time: false,
        }
    }

    fn says(mut self, title_format: &'static str, text_format: &'static str) -> Self {
        (self.title_format, self.text_format) = (title_format, text_format);
        self
    }
}

/// Trials as regions, kernel parameters that changed, programs that were started again. `trials` narrows the trials.
pub(super) fn annotations(trials: &str) -> Vec<Annotation> {
    use metric::{runner, standard};
    let changed = |what: &str| format!("changes({what}[$__rate_interval]) > 0");
    // Each trial of a run starts a server and a load generator, until the last; the trials are marked already.
    let restarted = format!(
        "{} unless on (instance) last_over_time({}[1m])",
        changed(&query::sel(&standard::PROCESS_START_TIME, "")),
        query::sel(&runner::INFO, "")
    );
    vec![
        Annotation::new("Trials", "light-blue", query::sel(&runner::TRIAL_INFO, trials))
            .says("Trial {{trial}}, cell {{cell}}: {{phase}}", "{{experiment}}: {{factors}}"),
        Annotation::new("Kernel parameter changed", "orange", changed(&query::sel(&standard::SYSCTL_VALUE, "")))
            .says("{{name}} changed", "{{job}} {{instance}}"),
        Annotation::new("Restarted", "red", restarted).says("{{job}} started again", "{{instance}}"),
    ]
}
