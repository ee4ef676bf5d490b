//! Panels, their queries, and what is done with the answers.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::frame::PanelLink;
use super::options::{FieldConfig, Override, Threshold, options};
use super::{DATASOURCE, Datasource, GridPos};

/// What a panel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A heading.
    Row,
    /// The last value of each series, in large type.
    Stat,
    /// Lines over time.
    TimeSeries,
    /// Values over time as bars, for what changes seldom.
    StateTimeline,
    /// The buckets of a histogram over time.
    Heatmap,
    /// A line per series, now.
    Table,
}

impl Kind {
    /// Grafana's name.
    pub fn id(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Stat => "stat",
            Self::TimeSeries => "timeseries",
            Self::StateTimeline => "state-timeline",
            Self::Heatmap => "heatmap",
            Self::Table => "table",
        }
    }

    /// What it asks Prometheus for. A stat or table of the last values in a range would go on showing series that
    /// ended.
    fn asks(self) -> (Format, bool) {
        match self {
            Self::Stat => (Format::TimeSeries, true),
            Self::Table => (Format::Table, true),
            Self::Heatmap => (Format::Heatmap, false),
            Self::Row | Self::TimeSeries | Self::StateTimeline => (Format::TimeSeries, false),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Units of values, by what is counted or measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Events per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// 1 is 100 %.
    Ratio,
    /// A number, shortened.
    Short,
    /// A number as it is.
    Plain,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 6] = [Self::PerSecond, Self::Seconds, Self::Ratio, Self::Short, Self::Plain, Self::Bytes];

    /// Grafana's name.
    pub fn id(self) -> &'static str {
        match self {
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Ratio => "percentunit",
            Self::Short => "short",
            Self::Plain => "none",
            Self::Bytes => "bytes",
        }
    }
}

/// The shape in which Grafana takes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    TimeSeries,
    Table,
    Heatmap,
}

/// One query of a panel.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    ref_id: String,
    datasource: Datasource,
    expr: String,
    legend_format: String,
    format: Format,
    instant: bool,
    range: bool,
}

/// What Grafana does with the answers before it draws them.
#[derive(Debug, Clone, Serialize)]
pub struct Transformation {
    id: &'static str,
    options: Value,
}

/// A panel or the heading of a row.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: Kind,
    title: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    grid_pos: GridPos,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapsed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datasource: Option<Datasource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<PanelLink>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transformations: Vec<Transformation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_config: Option<FieldConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Value>,
    #[serde(skip)]
    columns: Vec<(String, &'static str)>,
}

impl Panel {
    fn new(kind: Kind, title: &str, unit: Unit, description: &'static str) -> Self {
        Self {
            id: 0,
            kind,
            title: title.to_owned(),
            description,
            grid_pos: GridPos::default(),
            collapsed: None,
            datasource: Some(DATASOURCE),
            links: Vec::new(),
            targets: Vec::new(),
            transformations: Vec::new(),
            field_config: Some(FieldConfig::of(kind, unit)),
            options: options(kind, unit),
            columns: Vec::new(),
        }
    }

    /// The heading of a row.
    pub(super) fn heading(title: &str) -> Self {
        let panel = Self::new(Kind::Row, title, Unit::Plain, "");
        Self { collapsed: Some(false), datasource: None, field_config: None, ..panel }
    }

    /// The value of each series now.
    pub fn stat(title: &str, unit: Unit, description: &'static str) -> Self {
        Self::new(Kind::Stat, title, unit, description)
    }

    /// Lines over time.
    pub fn time_series(title: &str, unit: Unit, description: &'static str) -> Self {
        let mut panel = Self::new(Kind::TimeSeries, title, unit, description);
        // Counts, rates and times begin at 0; an axis that does not makes noise look like trouble.
        panel.defaults(|defaults| defaults.min = Some(0.0));
        panel
    }

    /// Bars over time for what changes seldom.
    pub fn state_timeline(title: &str, unit: Unit, description: &'static str) -> Self {
        Self::new(Kind::StateTimeline, title, unit, description)
    }

    /// A histogram over time; `unit` is that of its bounds.
    pub fn heat_map(title: &str, unit: Unit, description: &'static str) -> Self {
        Self::new(Kind::Heatmap, title, unit, description)
    }

    /// A line per combination of labels, a column per query.
    pub fn table(title: &str, description: &'static str) -> Self {
        Self::new(Kind::Table, title, Unit::Short, description)
    }

    /// Adds a query. `legend` names its series; `{{label}}` stands for a label's value.
    #[must_use]
    pub fn target(mut self, expr: impl Into<String>, legend: &str) -> Self {
        let (format, instant) = self.kind.asks();
        let ref_id = ref_id(self.targets.len());
        self.targets.push(Target {
            ref_id,
            datasource: DATASOURCE,
            expr: expr.into(),
            legend_format: legend.to_owned(),
            format,
            instant,
            range: !instant,
        });
        self
    }

    /// A link in the panel's corner to a board, by its name, that shows more of the same, as the title says. A board drops
    /// links to itself, so that boards can share panels.
    #[must_use]
    pub fn leads_to(mut self, (name, title): (&str, &'static str)) -> Self {
        self.links.push(PanelLink::new(name, title));
        self
    }

    /// Drops the links to a board.
    pub(super) fn forget(&mut self, uid: &str) {
        self.links.retain(|link| !link.leads_to(uid));
    }

    /// Adds a query as a column of a table.
    #[must_use]
    pub fn column(mut self, name: &'static str, unit: Unit, thresholds: &[Threshold], expr: String) -> Self {
        self = self.target(expr, "");
        if let (Some(target), Some(config)) = (self.targets.last(), &mut self.field_config) {
            self.columns.push((format!("Value #{}", target.ref_id), name));
            config.overrides.push(Override::column(name, unit, thresholds));
        }
        self
    }

    /// Makes one table of the columns, worst first: the labels under their names, the rest left out, sorted by a
    /// column.
    #[must_use]
    pub fn merged(mut self, labels: &[(&'static str, &'static str)], hidden: &[&'static str], sort: &str) -> Self {
        let labels = labels.iter().map(|(label, name)| ((*label).to_owned(), *name));
        let names: Vec<(String, &str)> = labels.chain(self.columns.iter().cloned()).collect();
        let order: serde_json::Map<_, _> = (0..).zip(&names).map(|(i, (field, _))| (field.clone(), json!(i))).collect();
        let hide: serde_json::Map<_, _> = hidden.iter().map(|label| ((*label).to_owned(), json!(true))).collect();
        let names: serde_json::Map<_, _> = names.into_iter().map(|(field, name)| (field, json!(name))).collect();
        let organize = json!({"excludeByName": hide, "indexByName": order, "renameByName": names});
        self.transformations = vec![
            Transformation { id: "merge", options: json!({}) },
            Transformation { id: "organize", options: organize },
        ];
        self.option("sortBy", json!([{"displayName": sort, "desc": true}]))
    }

    /// Colours by value: `green` up to the first of `steps`.
    #[must_use]
    pub fn thresholds(mut self, steps: &[(f64, &'static str)]) -> Self {
        self.defaults(|defaults| {
            defaults
                .thresholds
                .steps
                .extend(steps.iter().map(|(value, color)| Threshold { color, value: Some(*value) }));
        });
        self
    }

    /// Colours by value where low is bad: `lowest` up to the first of `steps`.
    #[must_use]
    pub fn thresholds_from(mut self, lowest: &'static str, steps: &[(f64, &'static str)]) -> Self {
        self.defaults(|defaults| defaults.thresholds.steps = vec![Threshold { color: lowest, value: None }]);
        self.thresholds(steps)
    }

    /// What stands there when the query has no answer.
    #[must_use]
    pub fn no_value(mut self, text: &'static str) -> Self {
        self.defaults(|defaults| defaults.no_value = Some(text));
        self
    }

    /// The end of the axis.
    #[must_use]
    pub fn max(mut self, max: f64) -> Self {
        self.defaults(|defaults| defaults.max = Some(max));
        self
    }

    /// An option that differs from those of the other panels of its kind.
    #[must_use]
    pub fn option(mut self, name: &str, value: Value) -> Self {
        if let Some(Value::Object(options)) = &mut self.options {
            options.insert(name.to_owned(), value);
        }
        self
    }

    fn defaults(&mut self, change: impl FnOnce(&mut super::options::Defaults)) {
        if let Some(config) = &mut self.field_config {
            change(&mut config.defaults);
        }
    }

    pub(super) fn at(mut self, grid_pos: GridPos) -> Self {
        self.grid_pos = grid_pos;
        self
    }

    pub(super) fn number(&mut self, id: u32) {
        self.id = id;
    }

    #[cfg(test)]
    pub(super) fn grid(&self) -> GridPos {
        self.grid_pos
    }
}

/// A, B, ... Z, A1, B1, ...
fn ref_id(index: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(index % 26).unwrap_or_default());
    if index < 26 { letter.to_string() } else { format!("{letter}{}", index / 26) }
}
