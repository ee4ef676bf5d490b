//! How each kind of panel draws: the options and field settings of Grafana that differ from its defaults.

use serde::Serialize;
use serde_json::{Value, json};

use super::panel::{Kind, Unit};

/// From which value on a colour holds. The first of a panel holds from minus infinity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Threshold {
    /// A colour of Grafana's palette.
    pub color: &'static str,
    /// In the panel's unit; `None` for the first.
    pub value: Option<f64>,
}

/// Settings of the fields of a panel.
#[derive(Debug, Clone, Serialize)]
pub struct FieldConfig {
    pub(super) defaults: Defaults,
    pub(super) overrides: Vec<Override>,
}

/// Settings of every field that no override names.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Defaults {
    pub(super) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) no_value: Option<&'static str>,
    color: Value,
    mappings: Vec<Value>,
    pub(super) thresholds: Thresholds,
    custom: Value,
}

/// Colours by value.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Thresholds {
    mode: &'static str,
    pub(super) steps: Vec<Threshold>,
}

/// Settings of one field, by name.
#[derive(Debug, Clone, Serialize)]
pub struct Override {
    matcher: Value,
    properties: Vec<Value>,
}

impl Override {
    /// The column of a table named `column` shows `unit`, in colours when it has thresholds.
    pub(super) fn column(column: &'static str, unit: Unit, thresholds: &[Threshold]) -> Self {
        let mut properties = vec![json!({"id": "unit", "value": unit.id()})];
        if !thresholds.is_empty() {
            properties.push(json!({"id": "thresholds", "value": {"mode": "absolute", "steps": thresholds}}));
            properties.push(json!({"id": "color", "value": {"mode": "thresholds"}}));
            properties
                .push(json!({"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}));
        }
        Self { matcher: json!({"id": "byName", "options": column}), properties }
    }
}

impl FieldConfig {
    /// What a kind of panel starts from.
    pub(super) fn of(kind: Kind, unit: Unit) -> Self {
        let steps = match kind {
            Kind::StateTimeline => vec![Threshold { color: "blue", value: None }],
            _ => vec![Threshold { color: "green", value: None }],
        };
        let color = match kind {
            Kind::TimeSeries => json!({"mode": "palette-classic"}),
            _ => json!({"mode": "thresholds"}),
        };
        let defaults = Defaults {
            unit: unit.id(),
            min: None,
            max: None,
            no_value: None,
            color,
            mappings: Vec::new(),
            thresholds: Thresholds { mode: "absolute", steps },
            custom: custom(kind),
        };
        Self { defaults, overrides: Vec::new() }
    }
}

/// Settings of the fields that only this kind of panel has.
fn custom(kind: Kind) -> Value {
    match kind {
        Kind::TimeSeries => json!({
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 8,
            "showPoints": "never",
            "spanNulls": false,
            "stacking": {"group": "A", "mode": "none"},
        }),
        Kind::StateTimeline => json!({"fillOpacity": 60, "lineWidth": 1}),
        Kind::Table => json!({"align": "auto", "cellOptions": {"type": "auto"}, "filterable": true}),
        Kind::Row | Kind::Stat | Kind::Heatmap => json!({}),
    }
}

/// The options of a kind of panel.
pub(super) fn options(kind: Kind, unit: Unit) -> Option<Value> {
    match kind {
        Kind::Row => None,
        Kind::Stat => Some(json!({
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            "textMode": "value_and_name",
            "wideLayout": false,
        })),
        Kind::TimeSeries => Some(json!({
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "multi", "sort": "desc"},
        })),
        Kind::StateTimeline => Some(json!({
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": false},
            "mergeValues": true,
            "rowHeight": 0.85,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        })),
        Kind::Heatmap => Some(json!({
            "calculate": false,
            "cellGap": 1,
            "cellValues": {"unit": Unit::PerSecond.id()},
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": false,
                "scale": "exponential",
                "scheme": "Oranges",
                "steps": 64,
            },
            "filterValues": {"le": 1e-9},
            "legend": {"show": true},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": true, "yHistogram": true},
            "yAxis": {"axisPlacement": "left", "reverse": false, "unit": unit.id()},
        })),
        Kind::Table => Some(json!({
            "cellHeight": "sm",
            "footer": {"countRows": false, "fields": "", "reducer": ["sum"], "show": false},
            "showHeader": true,
        })),
    }
}
