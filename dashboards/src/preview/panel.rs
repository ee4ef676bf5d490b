//! One panel: asks its queries and draws by its kind.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::chart::{self, Frame};
use super::text::{colour, escape, named, value};
use crate::client::{Client, Range, Series};
use crate::queries::{list, text as field};

/// A named series.
pub(super) type Named = (String, Series);

/// What stands in a panel.
///
/// # Errors
/// As [`Client::get`].
pub(super) fn drawn(panel: &Value, client: Client, range: Range, trials: &[f64]) -> Result<String, String> {
    let unit = panel.pointer("/fieldConfig/defaults/unit").and_then(Value::as_str).unwrap_or_default();
    if panel["type"] == "table" {
        return table(panel, client, range);
    }
    let mut series: Vec<Named> = Vec::new();
    for target in list(panel, "/targets") {
        let expression = field(target, "expr");
        let found =
            if target["instant"] == true { client.instant(expression, range) } else { client.range(expression, range) };
        let legend = field(target, "legendFormat");
        series.extend(found?.into_iter().map(|one| (named(legend, &one), one)));
    }
    series.retain(|(_, one)| one.points.iter().any(|(_, value)| value.is_finite()));
    if series.is_empty() {
        return Ok(nothing(panel));
    }
    let height = panel["gridPos"]["h"].as_u64().unwrap_or(8);
    let frame = Frame::new(panel["gridPos"]["w"].as_u64().unwrap_or(12), height, range, unit, trials);
    Ok(match field(panel, "type") {
        "stat" => tiles(panel, &series, unit),
        "heatmap" => chart::heat_map(&frame, &series),
        "state-timeline" => chart::states(&frame, &series),
        _ => chart::lines(&frame, &series),
    })
}

/// What a panel says that has nothing to draw.
fn nothing(panel: &Value) -> String {
    let none = panel.pointer("/fieldConfig/defaults/noValue").and_then(Value::as_str).unwrap_or("no data");
    format!("<div class=\"none\">{}</div>", escape(none))
}

fn tiles(panel: &Value, series: &[Named], unit: &str) -> String {
    let mut out = "<div class=\"tiles\">".to_owned();
    for (name, one) in series {
        let Some((_, number)) = one.points.last() else { continue };
        let _ = write!(
            out,
            "<div class=\"tile\"><b style=\"color: {}\">{}</b>{}</div>",
            colour(*number, panel),
            value(*number, unit),
            escape(name)
        );
    }
    out + "</div>"
}

/// A line per combination of labels, a column per query, by the names the board gives both.
fn table(panel: &Value, client: Client, range: Range) -> Result<String, String> {
    let organize = &panel["transformations"][1]["options"];
    let names = &organize["renameByName"];
    let mut rows: BTreeMap<String, (Value, Vec<String>)> = BTreeMap::new();
    let targets = list(panel, "/targets");
    let mut columns: Vec<(u64, &str, bool)> = Vec::new();
    for (column, target) in targets.iter().enumerate() {
        let name = names[format!("Value #{}", field(target, "refId"))].as_str().unwrap_or_default();
        let unit = unit_of(panel, name);
        for series in client.instant(field(target, "expr"), range)? {
            let mut labels = series.labels.clone();
            if let Some(labels) = labels.as_object_mut() {
                labels.remove("__name__");
            }
            let row = rows.entry(labels.to_string()).or_insert_with(|| (labels, vec![String::new(); targets.len()]));
            row.1[column] = series.points.last().map_or_else(String::new, |(_, number)| value(*number, unit));
        }
    }
    if rows.is_empty() {
        return Ok(nothing(panel));
    }
    for (label, name) in names.as_object().into_iter().flatten() {
        let at = organize["indexByName"][label].as_u64().unwrap_or_default();
        columns.push((at, name.as_str().unwrap_or_default(), label.starts_with("Value #")));
    }
    columns.sort_unstable();
    let mut out = "<table><tr>".to_owned();
    let _ = columns.iter().try_for_each(|(_, name, _)| write!(out, "<th>{}</th>", escape(name)));
    let labels: BTreeMap<&str, &str> = names
        .as_object()
        .into_iter()
        .flatten()
        .map(|(label, name)| (name.as_str().unwrap_or_default(), label.as_str()))
        .collect();
    for (of, numbers) in rows.values() {
        out.push_str("</tr><tr>");
        let mut numbers = numbers.iter();
        for (_, name, is_value) in &columns {
            let cell = if *is_value { numbers.next().map_or("", String::as_str) } else { field(of, labels[name]) };
            let _ = write!(out, "<td>{}</td>", escape(cell));
        }
    }
    Ok(out + "</tr></table>")
}

/// The unit of a column.
fn unit_of<'a>(panel: &'a Value, column: &str) -> &'a str {
    let overrides = list(panel, "/fieldConfig/overrides").iter();
    let mut of = overrides.filter(|one| one["matcher"]["options"] == column);
    of.next().and_then(|one| one["properties"][0]["value"].as_str()).unwrap_or("short")
}
